"""The pages of docs/ are complete and up to date, and the code, keys and links that they name exist."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.repo.source import ROOT, plugin_metadata, python_files, short, toml, tree, words
from tunesmith import errors
from tunesmith.config import foreign, keys
from tunesmith.plugins.hookspecs import HOOKS

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKED = [
    *PAGES,
    ROOT / "README.md",
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(ROOT.glob("contrib/*/README.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PLACE = re.compile(r"`([\w/]+\.py)::([\w.]+)`")


def text(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text("utf-8")) if kind == language]


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.M)


def test_generated_pages_are_up_to_date() -> None:
    command = [sys.executable, "tools/docs.py", "--check"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if completed.returncode:
        pytest.fail(f"make docs rewrites:\n{completed.stdout}{completed.stderr}", pytrace=False)


# hooks.md


def test_every_hook_has_a_heading_in_run_order_and_a_line_in_the_diagram() -> None:
    assert [name for name in headings(DOCS / "hooks.md") if name != "Hooks"] == list(HOOKS)
    diagram = blocks(DOCS / "hooks.md", "text")[0]
    assert set(HOOKS) <= set(re.findall(r"\w+", diagram))


@pytest.mark.parametrize("name", HOOKS)
def test_hook_example_compiles_and_uses_only_parameters_of_the_hook(name: str) -> None:
    _, _, example = inspect.cleandoc(HOOKS[name].__doc__ or "").partition("\nExample:\n")
    module = ast.parse(textwrap.dedent(example))
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert functions, f"the example of {name} does not implement it"
    parameters = set(inspect.signature(HOOKS[name]).parameters)
    assert {argument.arg for argument in functions[0].args.args} <= parameters


# config.md, plugins.md


def nested(root: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a schema, with those of nested groups as `group.key`."""
    if name := schema.get("$ref", "").rpartition("/")[2]:
        schema = root["$defs"][name]
    for name, sub in schema.get("properties", {}).items():
        yield prefix + name
        for option in sub.get("anyOf", [sub]):
            yield from nested(root, option, f"{prefix}{name}.")


def test_reference_lists_every_key_of_the_core_and_of_the_plugins() -> None:
    schemas = [keys.core_schema(), keys.dataset_schema()]
    schemas += [info[field] for info in plugin_metadata().values() for field in ("schema", "dataset_schema")]
    declared = [key for schema in schemas for key in nested(schema, schema)]
    listed = re.findall(r"^\| <a id=.*?\[`([\w.]+)`\]", text("config.md"), re.M)
    assert sorted(listed) == sorted(declared)
    assert {"sequence_len", "fsdp_config.offload_params", "lora_r"} <= set(listed)


def test_every_key_has_a_description() -> None:
    empty = re.findall(r"^\| (<a .*?) \|.*\|  \|$", text("config.md"), re.M)
    assert not empty, ", ".join(empty)


def test_every_extra_has_a_section() -> None:
    extras = toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]
    sections = headings(DOCS / "plugins.md")
    libraries = {extra for extra, (first, *_) in extras.items() if first.startswith("tunesmith-") and "[" in first}
    assert set(words("plugins")) == set(extras) - {"all", "dev", "trackers"} - libraries
    assert all(f"`{library}`" in text("plugins.md") for library in libraries)
    assert set(words("plugins")) <= set(sections)
    assert "`trackers`" in text("plugins.md")
    assert "`tunesmith[all]`" in text("plugins.md") and "`tunesmith[dev]`" in text("plugins.md")


def test_every_key_has_an_anchor_of_its_own() -> None:
    ids = re.findall(r'<a id="([^"]+)"></a>', text("config.md"))
    assert len(ids) == len(set(ids)) == len(re.findall(r"^\| <a ", text("config.md"), re.M))
    assert {"sequence_len", "fsdp_config.offload_params", "datasets.path", "dpo.rl_beta", "kto.rl_beta"} <= set(ids)


def test_no_line_of_the_reference_is_a_wall_of_names() -> None:
    long = [line for line in text("config.md").splitlines() if not line.startswith("| ") and len(line) > 120]
    assert not long, "\n".join(long)


def test_keys_of_other_tools_are_all_listed_with_advice() -> None:
    page = text("keys-from-elsewhere.md")
    for name, key in foreign.foreign_keys().items():
        kind = "same as" if key.alias else "refused" if key.reason else "speed" if key.speed else "accepted"
        [row] = re.findall(rf"^\| `{re.escape(name)}` \| {kind} \| (.+) \|$", page, re.M)
        assert (key.alias or key.write.replace("|", "\\|") or key.note or key.speed) in row
    assert len(re.findall(r"^\| \[`\w+`\]\(config.md#", page, re.M)) >= 30  # the most used keys, which exist here


# links


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: those that it sets, and its headings in lower case with hyphens for spaces."""
    return set(re.findall(r'<a id="([^"]+)">', page.read_text("utf-8"))) | {
        re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in headings(page)
    }


@pytest.mark.parametrize("page", LINKED, ids=short)
def test_relative_links_resolve_to_a_file_and_heading(page: Path) -> None:
    body = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", body):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{short(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{short(page)}: {link}"


def test_index_links_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", text("index.md")))
    assert linked == {page.name for page in PAGES} - {"index.md"}


def test_every_page_that_a_message_names_exists() -> None:
    """Help lines, `tunesmith explain` and docstrings name pages, some with an anchor."""
    sources = [*python_files("core", "engine", "plugins"), *ROOT.glob("core/tunesmith/data/**/*.toml")]
    sources += ROOT.glob("plugins/*/tunesmith_*/errors.toml")
    names = {
        (short(path), page, anchor)
        for path in sources
        for page, anchor in re.findall(r"docs/([\w/-]+\.md)(?:#([\w.-]+))?", path.read_text("utf-8"))
    }
    assert len(names) >= 10
    for source, page, anchor in names:
        assert (DOCS / page).is_file(), f"{source}: docs/{page}"
        assert not anchor or anchor in anchors(DOCS / page), f"{source}: docs/{page}#{anchor}"


# handwritten pages


def defined(path: Path) -> set[str]:
    """Return the names of a file's functions, classes and methods, such as "train", "Loop" and "Loop.step"."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = set()
    for node in tree(path).body:
        if isinstance(node, kinds):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, kinds)}
    return names


def test_architecture_walk_names_only_existing_code() -> None:
    places = PLACE.findall(text("architecture-walk.md"))
    assert len(places) >= 40
    missing = [
        f"{file}::{name}" for file, name in places if not (ROOT / file).is_file() or name not in defined(ROOT / file)
    ]
    assert not missing, "\n".join(missing)


def test_architecture_walk_mentions_every_hook_of_a_supervised_run() -> None:
    metadata = plugin_metadata()
    answered = {
        hook for word in ("hf", "chat", "sft", "adamw", "schedules", "jsonl") for hook in metadata[word]["hooks"]
    }
    assert answered <= set(re.findall(r"`(\w+)`", text("architecture-walk.md")))


def test_documented_exit_codes_equal_those_of_the_source() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text("errors.md"), re.M)}
    raised = {kind.exit_code for kind in errors.TunesmithError.__subclasses__()} | {errors.TunesmithError.exit_code}
    assert listed == raised | {0, 129, 130, 138, 143, 152}


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a working folder with the files that docs/start.md uses, and change to it."""
    from tests import tiny

    monkeypatch.chdir(tmp_path)
    tiny.model_folder(tmp_path / "models" / "my-model")
    (tmp_path / "data").mkdir()
    tiny.write_rows(tmp_path / "data" / "train.jsonl", tiny.rows("conversation", 40))
    for block in blocks(DOCS / "start.md", "yaml"):
        name = "wrong.yaml" if block.startswith("# wrong.yaml") else "run.yaml"
        (tmp_path / name).write_text(block, encoding="utf-8")
    return tmp_path


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yield (arguments, output) of each `$ tunesmith ...` in the text blocks of a page."""
    for block in blocks(DOCS / page, "text"):
        for part in block.split("$ tunesmith ")[1:]:
            arguments, _, printed = part.partition("\n")
            yield arguments, printed


def without_measures(printed: str) -> list[str]:
    """Return the lines without phases, and without numbers that depend on the machine: losses, speeds, times."""
    number = r"\d[\d.,]*(e[-+]\d+)?( [kM]B)?"
    # The model of the test has random weights, which the plugin diagnosis finds.
    printed = re.sub(r"(?m)^  1 finding in the metrics:\n    \w+ first-loss-.*\n      .*\n", "", printed)
    lines = [line.rstrip() for line in printed.split("\n") if line.strip() and not line.endswith(" ...")]
    measured = r"step|eval|│|memory| +(loss|eval_loss|\d+ of \d+ steps done) "
    return [re.sub(number, "#", line) if re.match(measured, line) else line for line in lines]


def test_commands_on_the_first_page_print_the_output_shown(own_folder: Path) -> None:
    from click.testing import CliRunner

    from tunesmith.cli import main

    shown = [*commands("start.md"), *commands("resume.md")]
    assert len(shown) >= 8
    for arguments, printed in shown:
        result = CliRunner().invoke(main, arguments.split())
        text = result.stdout + (result.stderr if result.exit_code else "")
        assert without_measures(text) == without_measures(printed), f"tunesmith {arguments}"


def test_pyproject_on_the_plugin_page_equals_that_of_the_package() -> None:
    shown = tomllib.loads(blocks(DOCS / "write-a-plugin.md", "toml")[0])
    real = toml(ROOT / "contrib" / "entropybonus" / "pyproject.toml")
    assert shown["build-system"] == real["build-system"] and shown["tool"] == real["tool"]
    assert shown["project"].items() <= real["project"].items()
