"""Run the conformance checks under pytest: a test for each plugin and each check.

    from tunesmith.testing import Setup
    from tunesmith.testing.conformance import conformance

    test_conformance = conformance({"calm": Setup(keys={"calm_weight": 0.1})})

`pytest --tunesmith-plugin calm` runs the same tests without a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import TunesmithError
from tunesmith.testing import (
    adapters,
    losses,
    metadata,
    observers,
    optimizers,
    processes,
    settings,
    strategies,
)
from tunesmith.testing.checks import CHECKS, Check, Failure, NotApplicable
from tunesmith.testing.model import write_model
from tunesmith.testing.subject import Setup, Subject

MODULES = (metadata, settings, losses, strategies, adapters, optimizers, observers, processes)
"""The modules whose import registers the checks, in the order in which they run."""


def in_order() -> list[Check]:
    """Return all checks in the order in which they run: first those that train nothing."""
    order = [module.__name__ for module in MODULES]
    return sorted(CHECKS.values(), key=lambda check: order.index(check.run.__module__))


def parameters(setups: Mapping[str, Setup]) -> list[Any]:
    """Return one test parameter for each plugin and check, marked slow where it is, and grouped for pytest-xdist."""
    cases = []
    for plugin, setup in setups.items():
        for check in in_order():
            # Runs are shared: by the checks of a plugin, and by all plugins where they share a launch of processes.
            group = "tunesmith-processes" if check.run is processes.two_processes_are_one else f"tunesmith-{plugin}"
            marks = [pytest.mark.xdist_group(group), *([pytest.mark.slow] if check.slow else [])]
            cases.append(pytest.param(plugin, setup, check, id=f"{Path(plugin).stem}-{check.name}", marks=marks))
    return cases


def conformance(setups: Mapping[str, Setup] | str) -> Callable[..., None]:
    """Return a test of one or several plugins, to assign to a name that begins with test_.

    `setups` is the name of a plugin, or names with what the checks can't know of each plugin.
    """
    if isinstance(setups, str):
        setups = {setups: Setup()}

    @pytest.mark.parametrize(("plugin", "setup", "check"), parameters(setups))
    def test(plugin: str, setup: Setup, check: Check, tunesmith_kit: Kit, request: pytest.FixtureRequest) -> None:
        tunesmith_kit.run(plugin, setup, check, request.session.items)

    return test


class Kit:
    """The subjects of a test session. Checks of the same plugin share its runs.

    Args:
        folder: the folder for all runs.
        model: the folder of the model to train, or None for the kit's own.
    """

    def __init__(self, folder: Path, model: Path | None):
        self.folder, self._model = folder, model
        self.subjects: dict[str, Subject] = {}

    def subject(self, plugin: str, setup: Setup) -> Subject:
        """Return the subject of a plugin. Raises PluginError if it is not installed."""
        if plugin not in self.subjects:
            if self._model is None:
                self._model = write_model(self.folder / "model")
            folder = self.folder / f"{len(self.subjects)}-{Path(plugin).stem}"
            folder.mkdir(exist_ok=True)
            self.subjects[plugin] = Subject(plugin, setup, folder, self._model)
        return self.subjects[plugin]

    def run(self, plugin: str, setup: Setup, check: Check, items: Iterable[pytest.Item]) -> None:
        """Run a check of a plugin: skip it, with the reason, or fail with what to change."""
        try:
            subject = self.subject(plugin, setup)
            if reason := check.why_not(subject):
                pytest.skip(reason)
            if check.run is processes.two_processes_are_one:
                processes.launch(self.sharing(items))
            check.run(subject)
        except NotApplicable as reason:
            pytest.skip(str(reason))
        except Failure as failure:
            pytest.fail(f"{plugin}: {failure}", pytrace=False)
        except TunesmithError as error:
            pytest.fail(f"{plugin}: {check.promise}\n{error}", pytrace=False)

    def sharing(self, items: Iterable[pytest.Item]) -> list[Subject]:
        """Return the subjects of this session whose runs on several processes share launches."""
        selected = []
        for item in items:
            values = getattr(getattr(item, "callspec", None), "params", {})
            check = values.get("check")
            if isinstance(check, Check) and check.run is processes.two_processes_are_one:
                subject = self.subject(values["plugin"], values["setup"])
                selected += [] if check.why_not(subject) else [subject]
        return selected
