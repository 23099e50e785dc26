"""Check that this machine has what a config needs, for `tunesmith doctor`.

The checks are independent: if one fails, that is a finding, and the others still run.
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
from tunesmith.api import faults, load
from tunesmith.engine import engine
from tunesmith.errors import DataError, PluginError, SafetyError, TunesmithError
from tunesmith.finding import Finding
from tunesmith.plugins.discovery import API, CORE, catalogue, data_file, version_of
from tunesmith.run import Run

INSTALL = "pip install "


def diagnose(config: str, overrides: Sequence[str] = ()) -> list[Finding]:
    """Return the findings for a config: its files, packages, devices, folders, checks of plugins, and the model.

    If plugins are not installed, they are the findings. Raises the same errors as `check` if the config can't be loaded
    for another reason.
    """
    try:
        loaded = load(config, overrides)
    except TunesmithError as error:
        findings = Finding.of(error)
        if not install_command(findings):
            raise
        return [*findings, python()]
    return examine(Run(loaded, loaded.hooks()))


def examine(run: Run) -> list[Finding]:
    """Return the findings for a loaded config."""
    names = ", ".join(plugin.name for plugin in run.hooks.plugins)
    findings = [finding for error in faults(run) for finding in Finding.of(error)]
    findings = findings or [Finding("config", "ok", f"no problems; active plugins: {names}")]
    checks.warn(run)
    findings += [Finding("config", "warning", f"{name}: {note}") for name, note in run.notes.items()]
    findings += [python(), *collect("packages", partial(packages, run))]
    reported = {finding.what for finding in problems(findings)}
    findings += collect("engine", lambda: engine("preflight.doctor").machine(run))
    for call, check in zip(run.hooks.calls("diagnose"), run.hooks.diagnose(run), strict=True):
        # A plugin may check for a package that its metadata requires too: report a missing one only once.
        findings += [finding for finding in collect(f"plugin {call.plugin}", check) if finding.what not in reported]
    if any(finding.exit_code != DataError.exit_code for finding in problems(findings)):
        findings.append(Finding("model", "warning", "not checked, because of the problems above"))
    else:
        findings += collect("model", lambda: engine("preflight.doctor").model(run))
    return findings


def collect(name: str, check: Callable[[], Iterable[Any] | None]) -> list[Finding]:
    """Return the findings of a check. An error that it raises is one more finding."""
    findings: list[Finding] = []
    try:
        for finding in check() or ():
            if not isinstance(finding, Finding):
                raise PluginError(f"{name}: diagnose must yield findings, got {finding!r}")
            findings.append(finding)
    except TunesmithError as error:
        findings += Finding.of(error, name)
    except (Exception, SystemExit) as error:  # for example torch without its libraries
        findings.append(Finding(name, "problem", f"{type(error).__name__}: {error}"))
    return findings


def problems(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status == "problem"]


# packages


def python() -> Finding:
    """Return the version of Python, and a problem if the core does not support it."""
    version, specifier = platform.python_version(), metadata.metadata(CORE)["Requires-Python"]
    if specifier and not SpecifierSet(specifier).contains(version, prereleases=True):
        return Finding("Python", "problem", f"{version}; Tunesmith needs {specifier}")
    return Finding("Python", "ok", f"{version}, {platform.platform(terse=True)}, {platform.machine()}")


def packages(run: Run) -> Iterator[Finding]:
    """Yield findings on packages: vulnerable versions, unmet requirements, and mixed versions of Tunesmith's parts."""
    own: dict[str, str] = dict.fromkeys(API, "")  # distribution -> name of its plugin; "" for the core and the engine
    for candidate in run.config.selection.active.values():
        if candidate.path is None:
            own[canonicalize_name(candidate.distribution)] = candidate.name
    required: dict[str, list[tuple[str, Requirement]]] = {}  # package -> (distribution that requires it, requirement)
    for parent, requirement in requirements(own):
        required.setdefault(canonicalize_name(requirement.name), []).append((parent, requirement))
    findings = list(known_bad(set(required)))
    reported = {finding.what for finding in findings}
    for name in sorted(set(required) - reported):
        findings += unmet(name, required[name], own)
    findings += mismatched(own)
    if not problems(findings):
        direct = [name for name, by in required.items() if name not in own and any(parent in own for parent, _ in by)]
        versions = ", ".join(f"{name} {version_of(name)}" for name in sorted(direct))
        yield Finding("packages", "ok", f"{len(required)}, among them {versions}")
    yield from findings


def requirements(roots: Iterable[str]) -> Iterator[tuple[str, Requirement]]:
    """Yield (distribution, requirement) of the roots and of all distributions that they require and are installed.

    Requirements for other platforms, or for extras that are not requested, are left out.
    """
    queue, done = [(name, "") for name in roots], set()
    for name, extra in queue:
        if (name, extra) in done:
            continue
        done.add((name, extra))
        lines: list[str] = []
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines = metadata.requires(name) or []
        for line in lines:
            with contextlib.suppress(InvalidRequirement):  # old releases have requirements that pip no longer accepts
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    yield name, requirement
                    queue += [(canonicalize_name(requirement.name), part) for part in ("", *requirement.extras)]


def known_bad(required: set[str]) -> Iterator[Finding]:
    """Yield installed versions with known vulnerabilities. It is a warning if the run does not use the package."""
    for row in data_file("known_bad.json"):
        version = version_of(row["package"])
        if version and SpecifierSet(row["specifier"]).contains(version, prereleases=True):
            status = "problem" if row["package"] in required else "warning"
            yield Finding(row["package"], status, f"{version}: {row['why']}", row["help"])  # type: ignore[arg-type]


def unmet(name: str, required: list[tuple[str, Requirement]], own: dict[str, str]) -> Iterator[Finding]:
    """Yield a finding if a package is missing or has a version that a requirement excludes.

    It is a problem if Tunesmith or a plugin requires the package, and a warning if another package does: libraries
    often exclude versions that work.
    """
    version = version_of(name)
    for parent, requirement in sorted(required, key=lambda pair: pair[0] not in own):
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            specifier = requirement.specifier
            package = f"tunesmith[{own[parent]}]" if own.get(parent) in catalogue() else f"{name}{specifier}"
            detail = f"{version or 'not installed'}; {parent} needs {requirement.name}{specifier}"
            yield Finding(name, "problem" if parent in own else "warning", detail, f'{INSTALL}"{package}"')
            return


def mismatched(own: dict[str, str]) -> Iterator[Finding]:
    """Yield parts of Tunesmith whose version is not that of the core. All parts are released with the same version."""
    core = version_of(CORE)
    for name, plugin in own.items():
        version = version_of(name)
        if version not in (None, core) and (name in API or plugin in catalogue()):
            yield Finding(name, "warning", f"{version}, but {CORE} is {core}", f'{INSTALL}"{name}=={core}"')


# what to type next


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code of a safety problem if there is one, or else of the first problem; 0 without problems."""
    codes = [finding.exit_code for finding in problems(findings)]
    return SafetyError.exit_code if SafetyError.exit_code in codes else codes[0] if codes else 0


def install_command(findings: Iterable[Finding]) -> str | None:
    """Return one command that installs everything that is missing, or None if no problem asks to install something."""
    helps = [finding.help or "" for finding in problems(findings)]
    packages = [help.removeprefix(INSTALL) for help in helps if help.startswith(INSTALL)]
    return INSTALL + " ".join(dict.fromkeys(packages)) if packages else None


def next_line(findings: Sequence[Finding], train: str) -> str | None:
    """Return what to type next: a command that installs what is missing, or `train`; None if other problems remain."""
    return install_command(findings) or (None if problems(findings) else train)
