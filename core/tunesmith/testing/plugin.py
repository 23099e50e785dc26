"""The pytest plugin: `pytest --tunesmith-plugin NAME` checks a plugin, and fixtures for tests of plugins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tunesmith.testing.conformance import Kit
    from tunesmith.testing.subject import Setup

COLLECTED = Path(__file__).with_name("collected.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tunesmith", "conformance of Tunesmith plugins")
    group.addoption(
        "--tunesmith-plugin", action="append", default=[], metavar="NAME",
        help="check an installed plugin, or a local one (./file.py); may be given several times",
    )  # fmt: skip
    group.addoption(
        "--tunesmith-config", metavar="FILE.yaml",
        help="keys of a run to train with the plugin: its switches, your own base_model or datasets",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.addinivalue_line("markers", "xdist_group(name): run tests of a group in the same worker")
    if names := config.getoption("--tunesmith-plugin"):
        from tunesmith.errors import PluginError
        from tunesmith.testing.subject import candidate_of

        try:
            for name in names:
                candidate_of(name).load()
        except PluginError as error:
            raise pytest.UsageError(str(error)) from None
        given = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*given, str(COLLECTED)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the test that the command line collects."""
    if metafunc.module.__name__ == "tunesmith.testing.collected":
        from tunesmith.testing.conformance import parameters

        setup = _setup(metafunc.config.getoption("--tunesmith-config"))
        names = metafunc.config.getoption("--tunesmith-plugin")
        metafunc.parametrize(("plugin", "setup", "check"), parameters(dict.fromkeys(names, setup)))


def _setup(path: str | None) -> Setup:
    """Return what --tunesmith-config sets: its keys, and its dataset entries by `type:`."""
    from tunesmith.config.yamlfile import read
    from tunesmith.testing.subject import Setup

    if path is None:
        return Setup()
    values: dict[str, Any] = read(Path(path), ()).values
    base, setup = Path(path).resolve().parent, Setup()
    for entry in values.pop("datasets", ()):
        file, type_ = base / entry.pop("path"), entry.pop("type")
        setup = replace(setup, rows={**setup.rows, type_: _rows(file)}, entries={**setup.entries, type_: entry})
    return replace(setup, keys=values)


def _rows(path: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def tunesmith_model() -> Path | None:
    """Return the folder of the model that the checks train. Override it to use your own; None is the kit's tiny one."""
    return None


@pytest.fixture(scope="session")
def tunesmith_kit(tmp_path_factory: pytest.TempPathFactory, tunesmith_model: Path | None) -> Kit:
    """Return the plugins under test of this session, with their runs."""
    from tunesmith.testing.conformance import Kit

    return Kit(tmp_path_factory.mktemp("tunesmith"), tunesmith_model)
