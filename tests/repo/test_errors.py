"""Every code of an error is in the catalogue, and everything in the catalogue is raised somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tests.repo.source import ROOT, python_files, short, tree
from tunesmith import errors
from tunesmith.cli import main
from tunesmith.cli.explain import catalogue, command_for, explain, listing

CODES = catalogue()["codes"]
FILES = [path for path in python_files("core", "engine", "plugins") if "tests" not in path.parts]


def literals(node: ast.AST) -> Iterator[str]:
    """Texts that an expression may be: of `a if b else c`, both."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def codes_in(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Codes that a module names: `code=...`, the third argument of Problem, the last of .problem(), class defaults."""
    for node in ast.walk(module):
        found: list[ast.AST] = []
        if isinstance(node, ast.Call):
            found += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "Problem" and len(node.args) > 2:
                found.append(node.args[2])
            elif name in ("problem", "unreadable") and len(node.args) > 3:
                found.append(node.args[-1])
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [node.value for target in targets if isinstance(target, ast.Name) and target.id == "code"]
        elif isinstance(node, ast.arguments):
            named = [*node.args[len(node.args) - len(node.defaults) :], *node.kwonlyargs]
            values = [*node.defaults, *node.kw_defaults]
            found += [value for arg, value in zip(named, values, strict=True) if arg.arg == "code" and value]
        for part in found:
            yield from ((code, getattr(part, "lineno", 0)) for code in literals(part))


RAISED = {code: short(path, line) for path in FILES for code, line in codes_in(tree(path))}


def test_the_reader_of_codes_sees_each_way_to_name_one() -> None:
    source = (
        "Problem('m', w, 'one'); Error('m', code='two'); self.problem('m', p, h, 'three')\n"
        "class E:\n    code = 'four'\ndef f(a, code='five'): ...\nraise E(code='six' if x else 'seven')\n"
    )
    assert {code for code, _ in codes_in(ast.parse(source))} == {"one", "two", "three", "four", "five", "six", "seven"}


def test_every_code_is_explained() -> None:
    missing = [f"{place}: {code}" for code, place in RAISED.items() if code not in CODES]
    assert not missing, "write them into core/tunesmith/data/errors.toml:\n" + "\n".join(missing)


def test_every_code_that_is_explained_is_raised() -> None:
    assert not set(CODES) - set(RAISED)


@pytest.mark.parametrize("code", CODES)
def test_an_entry_is_whole_and_short(code: str) -> None:
    entry = CODES[code]
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
    assert set(entry) == {"exit", "means", "do", "wrong", "right"}
    assert str(entry["exit"]) in catalogue()["exits"]
    assert all(isinstance(entry[k], str) and entry[k].strip() for k in ("means", "do", "wrong", "right"))  # type: ignore[literal-required]
    assert entry["means"].endswith(".") and "\n" not in entry["means"] and len(entry["means"]) <= 160
    assert entry["wrong"] != entry["right"] and len(entry["wrong"].split("\n")) <= 6
    assert f"### {code}\n" in (ROOT / "docs/errors.md").read_text("utf-8")


def test_the_exit_code_of_a_kind_of_error_is_that_of_its_code() -> None:
    kinds = [errors.TunesmithError, *errors.TunesmithError.__subclasses__()]
    assert {kind.code: kind.exit_code for kind in kinds}.items() <= {c: e["exit"] for c, e in CODES.items()}.items()


def test_explain_prints_what_is_asked_for() -> None:
    result = CliRunner().invoke(main, ["explain", "unknown-key", "wrong-type"])
    assert (result.exit_code, result.output) == (0, explain(["unknown-key", "wrong-type"]) + "\n")
    for part in ("unknown-key (exit 2): A key that", "wrong:\n    lerning_rate: 1e-4\nright:\n    learning_rate: 1e-4"):
        assert part in result.output


def test_explain_alone_lists_every_code() -> None:
    result = CliRunner().invoke(main, ["explain"])
    assert (result.exit_code, result.output) == (0, listing() + "\n")
    assert set(re.findall(r"^  ([a-z-]+)  ", result.output, re.M)) == set(CODES)


def test_explain_of_an_unknown_code_gets_the_nearest_spelling() -> None:
    result = CliRunner().invoke(main, ["explain", "unknwon-key", "zzz"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no error has the code 'unknwon-key'\n  help: did you mean 'unknown-key'?" in result.stderr
    assert "tunesmith explain alone lists them" in result.stderr


def test_the_docs_line_names_each_known_code_once() -> None:
    assert command_for(["row", "a-plugins-own", "row", "no-file"]) == "tunesmith explain row no-file"
    assert command_for(["a-plugins-own"]) is None
