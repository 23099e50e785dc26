"""List the installed plugins, and write the static metadata of a distribution's plugins."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from tunesmith.config.keys import DROP, selects
from tunesmith.errors import ConfigError
from tunesmith.plugins.discovery import FILE, GROUP, Candidate, installed
from tunesmith.plugins.metadata import describe, text_of

LISTED = ("summary", "answers", "strategies", "sources", "hooks", "hookspecs", "offers")
HATCH = """\
[tool.hatch.build.targets.wheel.extra-metadata]
"tunesmith.json" = "tunesmith.json"
"""


def listing() -> list[dict[str, Any]]:
    """Return a row for each installed plugin, from metadata."""
    return [
        {"name": c.name, "distribution": c.distribution, "version": c.version, "requires": c.requires,
         "selected_by": selects(c.info).removesuffix(DROP), **{field: c.info[field] for field in LISTED}}
        for c in installed().values()
    ]  # fmt: skip


def lines_of(row: dict[str, Any]) -> str:
    """Return a row of the listing as text."""
    facts = [row["summary"], f"selected by: {row['selected_by'].removeprefix('write ')}"]
    facts += [f"declares hooks: {', '.join(row['hookspecs'])}"] if row["hookspecs"] else []
    facts += [f"offers {kind}: {', '.join(names)}" for kind, names in row["offers"].items()]
    indent = f"\n{'':12} "
    return f"{row['name']:12} {row['distribution']} {row['version']}{indent}{indent.join(filter(None, facts))}"


def of_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Import the plugins that the pyproject.toml of a folder declares, and return the metadata of each by name.

    Raises ConfigError without such plugins, and PluginError if one can't be imported.
    """
    project, entries = _project(folder)
    sys.path[:0] = [str(path) for path in (folder, folder / "src") if path.is_dir()]
    name, version = str(project.get("name", folder.name)), str(project.get("version", "in " + str(folder)))
    plugins = {word: Candidate(word, name, version, target).load() for word, target in entries.items()}
    return {word: describe(word, plugin.module) for word, plugin in plugins.items()}


def write(folder: Path) -> list[str]:
    """Write tunesmith.json for the plugins of a folder, and return what to print: files, and lines that are missing.

    With hatchling the file is next to pyproject.toml and becomes part of the dist-info. Other build backends can't add
    it there, so it is written into the package.
    """
    text = text_of(of_folder(folder))
    document = _document(folder)
    hatch = "hatchling" in document.get("build-system", {}).get("build-backend", "")
    packages = dict.fromkeys(target.partition(".")[0] for target in _project(folder)[1].values())
    paths, missing = [folder / FILE], ""
    if hatch:
        wheel = document.get("tool", {}).get("hatch", {}).get("build", {}).get("targets", {}).get("wheel", {})
        missing = HATCH if FILE not in wheel.get("extra-metadata", {}) else ""
    else:
        paths = [Path(str(sys.modules[package].__file__)).parent / FILE for package in packages]
        if single := [p for p in packages if not hasattr(sys.modules[p], "__path__")]:
            help = f"move {single[0]}.py to {single[0]}/__init__.py, or build with hatchling"
            message = f"{single[0]} is a single module: {FILE} needs the folder of a package"
            raise ConfigError(message, where=str(folder / "pyproject.toml"), help=help)
        data = document.get("tool", {}).get("setuptools", {}).get("package-data", {})
        lost = [f'{p} = ["{FILE}"]\n' for p in packages if FILE not in [*data.get(p, ()), *data.get("*", ())]]
        setuptools = "setuptools" in document.get("build-system", {}).get("build-backend", "setuptools")
        missing = "[tool.setuptools.package-data]\n" + "".join(lost) if setuptools and lost else ""
    for path in paths:
        path.write_text(text, encoding="utf-8")
    names = ", ".join(json.loads(text))
    lines = [f"{path}: {names}" for path in paths]
    lines += [f"add to {folder / 'pyproject.toml'}, so that the file is installed:\n\n{missing}"] if missing else []
    return [*lines, f"next: pip install -e {folder}"]


def _document(folder: Path) -> dict[str, Any]:
    path = folder / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        help = "name the folder of a distribution, which has a pyproject.toml"
        raise ConfigError(f"{path} can't be read: {error}", where="command line (--write)", help=help) from None


def _project(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the table `project` of a folder's pyproject.toml, and its entry points for plugins."""
    project = _document(folder).get("project", {})
    entries = project.get("entry-points", {}).get(GROUP, {})
    if not entries:
        module = str(project.get("name", "my-plugin")).replace("-", "_")
        word = module.removeprefix("tunesmith_")
        help = f'add the entry point:\n\n[project.entry-points.{GROUP}]\n{word} = "{module}"\n'
        where = str(folder / "pyproject.toml")
        raise ConfigError("the distribution has no plugins", where=where, help=help, code="plugin-shape")
    return project, entries
