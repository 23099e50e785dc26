"""Every error code is in the catalogue, and every code in the catalogue is raised."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.contract.fakes import distribution
from tests.repo.source import ROOT, plugin_metadata, python_files, short, tree
from tunesmith import errors
from tunesmith.cli import main
from tunesmith.cli.explain import catalogue, command_for, core_catalogue, explain, listing

CODES = catalogue()["codes"]
FILES = [path for path in python_files("core", "engine", "plugins") if "tests" not in path.parts]


def literals(node: ast.AST) -> Iterator[str]:
    """Yield the strings that an expression can evaluate to: of `a if b else c`, both."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def codes_in(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield (code, line) of each error code in a module.

    A code is `code=...`, the third argument of Problem, the last argument of .problem(), or a default of a class.
    """
    for node in ast.walk(module):
        expressions: list[ast.AST] = []
        if isinstance(node, ast.Call):
            expressions += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "Problem" and len(node.args) > 2:
                expressions.append(node.args[2])
            elif name in ("problem", "unreadable") and len(node.args) > 3:
                expressions.append(node.args[-1])
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            expressions += [node.value for target in targets if isinstance(target, ast.Name) and target.id == "code"]
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            named = [*positional[len(positional) - len(node.defaults) :], *node.kwonlyargs]
            values = [*node.defaults, *node.kw_defaults]
            expressions += [value for arg, value in zip(named, values, strict=True) if arg.arg == "code" and value]
        for part in expressions:
            yield from ((code, getattr(part, "lineno", 0)) for code in literals(part))


RAISED = {code: short(path, line) for path in FILES for code, line in codes_in(tree(path))}
RAISED_BY: dict[str, set[str]] = {}
"""Code -> the folders that raise it: core, engine, plugins/<name>."""
for _path in FILES:
    _parts = short(_path).split("/")
    for _code, _ in codes_in(tree(_path)):
        RAISED_BY.setdefault(_code, set()).add("/".join(_parts[: 2 if _parts[0] == "plugins" else 1]))


def test_codes_in_finds_every_notation() -> None:
    source = (
        "Problem('m', w, 'one'); Error('m', code='two'); self.problem('m', p, h, 'three')\n"
        "class E:\n    code = 'four'\ndef f(a, code='five'): ...\nraise E(code='six' if x else 'seven')\n"
    )
    assert {code for code, _ in codes_in(ast.parse(source))} == {"one", "two", "three", "four", "five", "six", "seven"}


def test_every_raised_code_is_in_the_catalogue() -> None:
    missing = [f"{place}: {code}" for code, place in RAISED.items() if code not in CODES]
    assert not missing, (
        "add these codes to core/tunesmith/data/errors.toml, or to errors.toml of the plugin:\n" + "\n".join(missing)
    )


def test_every_code_in_the_catalogue_is_raised() -> None:
    assert not set(CODES) - set(RAISED)


def test_a_code_that_one_plugin_raises_is_explained_by_that_plugin() -> None:
    """The core explains its own codes, the engine's, and those that several plugins share."""
    owners = {code: f"plugins/{name}" for name, info in plugin_metadata().items() for code in info["errors"]}
    assert not set(owners) & set(core_catalogue()["codes"])
    alone = {code: folders for code, folders in RAISED_BY.items() if len(folders) == 1 and "plugins" in min(folders)}
    assert {code: min(folders) for code, folders in alone.items()} == owners


def test_explain_knows_the_codes_of_a_third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes come from the metadata of the distribution; the plugin is not imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    module = distribution(tmp_path, "rocket", "plugin = Plugin()\n")
    module.write_text("1 / 0\n")
    path = next(tmp_path.glob("*.dist-info")) / "extra_metadata" / "tunesmith.json"
    entry = {"exit": 3, "means": "No fuel.", "do": "Add fuel.", "wrong": "fuel: 0", "right": "fuel: 1"}
    path.write_text(json.dumps({"rocket": {"errors": {"no-fuel": entry}}}))
    result = CliRunner().invoke(main, ["explain", "no-fuel"])
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "no-fuel (exit 3): No fuel.")
    assert command_for(["no-fuel"]) == "tunesmith explain no-fuel"


def test_a_code_that_several_plugins_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = {"exit": 3, "means": "No fuel.", "do": "Add fuel.", "wrong": "fuel: 0", "right": "fuel: 1"}
    for name in ("rocket", "car"):
        distribution(tmp_path, name, "plugin = Plugin()\n")
        path = tmp_path / f"fake_{name}-1.2.3.dist-info/extra_metadata/tunesmith.json"
        path.write_text(json.dumps({name: {"errors": {"no-fuel": entry, "unknown-key": entry}}}))
    result = CliRunner().invoke(main, ["explain", "no-fuel", "unknown-key"])
    assert "'no-fuel' belongs to plugin car (fake-car 1.2.3) and plugin rocket (fake-rocket 1.2.3)" in result.output
    assert "and tunesmith-core 0.1.0" in result.output and result.exit_code == 6
    assert command_for(["no-fuel", "wrong-type"]) == "tunesmith explain wrong-type"


@pytest.mark.parametrize("code", CODES)
def test_catalogue_entry_is_complete_and_short(code: str) -> None:
    entry = CODES[code]
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
    assert set(entry) == {"exit", "means", "do", "wrong", "right"}
    assert str(entry["exit"]) in catalogue()["exits"]
    assert all(isinstance(entry[k], str) and entry[k].strip() for k in ("means", "do", "wrong", "right"))  # type: ignore[literal-required]
    assert entry["means"].endswith(".") and "\n" not in entry["means"] and len(entry["means"]) <= 160
    assert entry["wrong"] != entry["right"] and len(entry["wrong"].split("\n")) <= 6
    assert f"### {code}\n" in (ROOT / "docs/errors.md").read_text("utf-8")


def test_exit_code_of_an_error_class_equals_that_of_its_code() -> None:
    kinds = [errors.TunesmithError, *errors.TunesmithError.__subclasses__()]
    assert {kind.code: kind.exit_code for kind in kinds}.items() <= {c: e["exit"] for c, e in CODES.items()}.items()


def test_explain_prints_the_requested_codes() -> None:
    result = CliRunner().invoke(main, ["explain", "unknown-key", "wrong-type"])
    assert (result.exit_code, result.output) == (0, explain(["unknown-key", "wrong-type"]) + "\n")
    for part in (
        "unknown-key (exit 2): The config contains a key that",
        "wrong:\n    lerning_rate: 1e-4\nright:\n    learning_rate: 1e-4",
    ):
        assert part in result.output


def test_explain_without_arguments_lists_every_code() -> None:
    result = CliRunner().invoke(main, ["explain"])
    assert (result.exit_code, result.output) == (0, listing() + "\n")
    assert set(re.findall(r"^  ([a-z-]+)  ", result.output, re.M)) == set(CODES)


def test_explain_suggests_the_nearest_code() -> None:
    result = CliRunner().invoke(main, ["explain", "unknwon-key", "zzz"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown error code: 'unknwon-key'\n  help: did you mean 'unknown-key'?" in result.stderr
    assert "tunesmith explain without a code lists them" in result.stderr


def test_docs_line_names_each_known_code_once() -> None:
    assert command_for(["row", "a-plugins-own", "row", "no-file"]) == "tunesmith explain row no-file"
    assert command_for(["a-plugins-own"]) is None
