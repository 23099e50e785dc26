"""`tunesmith doctor`: one config against this machine, before a run finds out what it lacks.

Every look is alone: where one fails, that is a finding, and the others go on.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tunesmith import checks
from tunesmith.api import faults
from tunesmith.config.load import load_config
from tunesmith.engine import engine
from tunesmith.errors import DataError, PluginError, SafetyError, TunesmithError
from tunesmith.finding import Finding
from tunesmith.plugins.discovery import API, CORE, catalogue, data_file, version_of
from tunesmith.run import Run

INSTALL = "pip install "


def diagnose(config: str, overrides: Sequence[str] = ()) -> list[Finding]:
    """Everything that a config needs of this machine. Raises what `check` does for a config that can't be read; where
    that is because plugins are not installed, they are the findings."""
    try:
        run = Run(*load_config(config, overrides))
    except TunesmithError as error:
        found = Finding.of(error)
        if not installs(found):
            raise
        return [*found, python()]
    return examine(run)


def examine(run: Run) -> list[Finding]:
    """What the run stands on: the config and its files, packages, devices, folders, what plugins look at, the model."""
    names = ", ".join(plugin.name for plugin in run.hooks.plugins)
    found = [finding for error in faults(run) for finding in Finding.of(error)]
    found = found or [Finding("config", "ok", f"no problems; active plugins: {names}")]
    checks.warn(run)
    found += [Finding("config", "warning", f"{name}: {note}") for name, note in run.notes.items()]
    found += [python(), *tried("packages", partial(packages, run))]
    lacking = {finding.what for finding in problems(found)}
    found += tried("engine", lambda: engine("preflight.doctor").machine(run))
    for call, look in zip(run.hooks.calls("diagnose"), run.hooks.diagnose(run), strict=True):
        found += [finding for finding in tried(f"plugin {call.plugin}", look) if finding.what not in lacking]
    if any(finding.exit_code != DataError.exit_code for finding in problems(found)):
        found.append(Finding("model", "warning", "not looked at, because of the problems above"))
    else:
        found += tried("model", lambda: engine("preflight.doctor").model(run))
    return found


def tried(name: str, look: Callable[[], Iterable[Any] | None]) -> list[Finding]:
    """What a look finds; where it fails, that too."""
    found: list[Finding] = []
    try:
        for finding in look() or ():
            if not isinstance(finding, Finding):
                raise PluginError(f"{name}: diagnose gave {finding!r}, which is no Finding")
            found.append(finding)
    except TunesmithError as error:
        found += Finding.of(error, name)
    except (Exception, SystemExit) as error:  # torch whose libraries are missing, for one
        found.append(Finding(name, "problem", f"{type(error).__name__}: {error}"))
    return found


def problems(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.status == "problem"]


# packages


def python() -> Finding:
    version, wanted = platform.python_version(), metadata.metadata(CORE)["Requires-Python"]
    if wanted and not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("Python", "problem", f"{version}; Tunesmith needs {wanted}")
    return Finding("Python", "ok", f"{version}, {platform.platform(terse=True)}, {platform.machine()}")


def packages(run: Run) -> Iterator[Finding]:
    """Versions that are known to be bad, what is missing or out of range, and versions of ours that do not match."""
    ours: dict[str, str] = dict.fromkeys(API, "")
    for candidate in run.config.selection.active.values():
        if candidate.path is None:
            ours[canonicalize_name(candidate.distribution)] = candidate.name
    asked: dict[str, list[tuple[str, Requirement]]] = {}
    for asker, wanted in requirements(ours):
        asked.setdefault(canonicalize_name(wanted.name), []).append((asker, wanted))
    found = list(known_bad(set(asked)))
    told = {finding.what for finding in found}
    found += [made for name in sorted(set(asked) - told) if (made := out_of_range(name, asked[name], ours))]
    found += mismatched(ours)
    direct = sorted({name for name, by in asked.items() if name not in ours and any(a in ours for a, _ in by)})
    if not problems(found):
        versions = ", ".join(f"{name} {version_of(name)}" for name in direct)
        yield Finding("packages", "ok", f"{len(asked)}, among them {versions}")
    yield from found


def requirements(roots: Iterable[str]) -> Iterator[tuple[str, Requirement]]:
    """(distribution, what it asks for here) of the roots and, as far as it is installed, of all that they bring."""
    queue, seen = [(name, "") for name in roots], set()
    for name, extra in queue:
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        lines: list[str] = []
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines = metadata.requires(name) or []
        for line in lines:
            with contextlib.suppress(InvalidRequirement):  # of an old release that nobody builds any more
                wanted = Requirement(line)
                if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                    yield name, wanted
                    queue += [(canonicalize_name(wanted.name), part) for part in ("", *wanted.extras)]


def known_bad(asked: set[str]) -> Iterator[Finding]:
    """Installed versions of which harm is known: a problem in a package that the run uses, else a warning."""
    for row in data_file("known_bad.json"):
        version = version_of(row["package"])
        if version and SpecifierSet(row["specifier"]).contains(version, prereleases=True):
            status = "problem" if row["package"] in asked else "warning"
            yield Finding(row["package"], status, f"{version}: {row['why']}", row["help"])  # type: ignore[arg-type]


def out_of_range(name: str, asked: list[tuple[str, Requirement]], ours: dict[str, str]) -> Finding | None:
    """A package that is missing or of a version that someone does not take. What others ask of each other is a warning:
    they may be wrong about it."""
    version = version_of(name)
    for asker, wanted in sorted(asked, key=lambda pair: pair[0] not in ours):
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            word = ours.get(asker, "")
            help = f'{INSTALL}"tunesmith[{word}]"' if word in catalogue() else f'{INSTALL}"{name}{wanted.specifier}"'
            said = f"{version or 'not installed'}; {asker} needs {wanted.name}{wanted.specifier}"
            return Finding(name, "problem" if asker in ours else "warning", said, help)
    return None


def mismatched(ours: dict[str, str]) -> Iterator[Finding]:
    """Our own distributions are released together, under one version."""
    core = version_of(CORE)
    for name, word in ours.items():
        version = version_of(name)
        if version not in (None, core) and (name in API or word in catalogue()):
            yield Finding(name, "warning", f"{version}, and {CORE} is {core}", f'{INSTALL}"{name}=={core}"')


# what to do about it


def exit_code(found: Iterable[Finding]) -> int:
    """That of the gravest problem: a refusal for safety, else the first; 0 without any."""
    codes = [finding.exit_code for finding in problems(found)]
    return SafetyError.exit_code if SafetyError.exit_code in codes else codes[0] if codes else 0


def installs(found: Iterable[Finding]) -> str | None:
    """One line that installs what is missing."""
    helps = [finding.help or "" for finding in problems(found)]
    wanted = [help.removeprefix(INSTALL) for help in helps if help.startswith(INSTALL)]
    return INSTALL + " ".join(dict.fromkeys(wanted)) if wanted else None


def next_line(found: Sequence[Finding], train: str) -> str | None:
    """What to type next: install what is missing, or train; None where something else has to be mended first."""
    return installs(found) or (None if problems(found) else train)
