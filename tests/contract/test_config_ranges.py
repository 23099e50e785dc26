"""Numbers have limits and paths are usable, for every key of the core and of the installed plugins."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.fakes import BASE, DATA, error_of, load, local_plugin, problems_of, write
from tunesmith.api import start
from tunesmith.config import keys
from tunesmith.config.load import load_config
from tunesmith.config.secrets import is_unexpanded
from tunesmith.files.paths import unexpanded
from tunesmith.plugins import discovery

Path_ = tuple[str, ...]
CONTRIB = {"entropybonus"}


def options_below(
    root: dict[str, Any], schema: dict[str, Any], above: Path_ = ()
) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Yield (path, JSON schema) of each branch of each key of a model, also in groups."""
    for key, sub in schema.get("properties", {}).items():
        for option in sub.get("anyOf", [sub]):
            name = option.get("$ref", "").rpartition("/")[2]
            yield (*above, key), option
            yield from options_below(root, root["$defs"][name] if name else {}, (*above, key))


def keys_with(test: Callable[[dict[str, Any]], bool]) -> dict[Path_, str]:
    """Return path -> owner of the keys whose schema passes a test; those of entries begin with "datasets"."""
    models = [("core", (), keys.core_schema()), ("core", ("datasets",), keys.dataset_schema())]
    models += [(name, (), c.info["schema"]) for name, c in discovery.installed().items() if name not in CONTRIB]
    return {
        path: owner
        for owner, above, schema in models
        for path, option in options_below(schema, schema, above)
        if test(option)
    }


NUMBERS = keys_with(lambda option: option.get("type") in ("integer", "number") and "enum" not in option)
LISTS = keys_with(lambda option: option.get("items", {}).get("format") == "path")
PATHS = keys_with(lambda option: option.get("format") == "path") | LISTS


def config_of(paths: dict[Path_, str], value: Any) -> dict[str, Any]:
    """Return a config in which each of some keys has the same value, and the plugins of all of them are active."""
    entry: dict[str, Any] = {"path": "nobody/rows", "type": "completion"}
    values: dict[str, Any] = {"base_model": "nobody/nothing", "plugins": sorted(set(paths.values()) - {"core"})}
    for path in paths:
        own = [value] if path in LISTS else value
        if path[0] == "datasets":
            entry[path[1]] = own
        else:
            group = values
            for name in path[:-1]:
                group = group.setdefault(name, {})
            group[path[-1]] = own
    return values | {"datasets": [entry]}


def messages(folder: Path, paths: dict[Path_, str], value: Any, code: str) -> dict[Path_, str]:
    """Return path -> the message about the value of each key, for the problems with a code."""
    file = write(folder, yaml.safe_dump(config_of(paths, value), sort_keys=False, allow_unicode=True))
    error = error_of(load_config, file)
    assert error.exit_code == 2
    names = {".".join(path).replace("datasets.", "datasets.0."): path for path in paths}
    problems = [(where, p) for where, p in problems_of(error, file) if p.code == code]
    assert all(where.count(":") == 1 for where, _ in problems)
    named = {p.message.split(" ")[0].removesuffix(".0"): p.message for _, p in problems}
    return {names[name]: message for name, message in named.items() if name in names}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e30, -1e30, 10**40, -(10**40)], ids=str)
def test_number_that_is_not_usable_is_refused_with_the_allowed_range(value: float, tmp_path: Path) -> None:
    assert len(NUMBERS) > 55
    refused = messages(tmp_path, NUMBERS, value, "wrong-type")
    assert set(refused) == set(NUMBERS)
    for path, message in refused.items():
        assert re.search("greater than|less than|an integer|a finite number", message), path
        assert len(message) < 250


def test_range_names_both_bounds(tmp_path: Path) -> None:
    for value in ("0", "1e300", ".inf"):
        [problem] = error_of(load, tmp_path, f"{BASE}num_epochs: {value}\n").problems
        assert "greater than 0 and less than or equal to 100,000" in problem.message


def test_limit_of_every_number_also_holds_for_plugins_of_others(tmp_path: Path) -> None:
    source = "class Mine(Settings):\n    scale: float = 1.0\n    count: int = 1\nplugin = Plugin(settings=Mine)\n"
    local_plugin(tmp_path, "mine", source)
    error = error_of(load, tmp_path, BASE + f"plugins: [./mine.py]\nscale: -1e30\ncount: {2**63}\n")
    assert [p.message.split(",")[0] for p in error.problems] == [
        "scale must be greater than or equal to -1e+15",
        "count must be less than or equal to 9",
    ]


@pytest.mark.parametrize(
    "value", ["$HOME/x", "${HOME}/x", "~/x", "~", "~me/x", "data/$USER/x", "out-$RUN"], ids=str
)  # fmt: skip
def test_path_with_a_variable_is_refused_wherever_a_key_is_a_path(value: str, tmp_path: Path) -> None:
    refused = messages(tmp_path, PATHS, value, "unexpanded")
    assert {("output_dir",), ("base_model",), ("datasets", "path"), ("lora_model_dir",)} <= set(PATHS)
    assert {path for path in PATHS if PATHS[path] == "core" or len(path) == 1} <= set(refused)


@pytest.mark.parametrize("value", ["", " ", "a\0b"], ids=["empty", "blank", "NUL"])
def test_path_that_no_file_can_have_is_refused(value: str, tmp_path: Path) -> None:
    refused = messages(tmp_path, PATHS, value, "wrong-type")
    assert {path for path in PATHS if len(path) == 1} <= set(refused)
    assert not any("\0" in message for message in refused.values())


@pytest.mark.parametrize("text", ["plugins: ['~/mine.py']", "plugins: [$HOME/mine.py]"])
def test_local_plugin_with_a_variable_is_refused_once(text: str, tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, f"{BASE}{DATA}{text}\n").problems
    assert problem.code == "unexpanded" and problem.message.startswith("plugins.0 contains")


def test_function_with_a_variable_is_refused_once(tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, BASE + "datasets: [{path: x, type: $HOME/rows.py:f}]\n").problems
    assert (problem.code, problem.message) == (
        "unexpanded", "datasets.0.type contains $HOME, which is not expanded"
    )  # fmt: skip


def test_prices_and_templates_are_not_variables() -> None:
    for text in ("it costs $5", "~5 tokens", "{{ messages }}", "a~b/c", "x$"):
        assert not is_unexpanded(text) and unexpanded(text) is None


# warnings


def test_hot_learning_rate_is_noted_once_for_every_command(tmp_path: Path) -> None:
    """`check` and the lines that train prints before its first step come from the same notes."""
    run = start(load(tmp_path, BASE + DATA + "learning_rate: 50\n")[0])
    assert {name.rpartition(": ")[2]: text for name, text in run.notes.items()} == {
        "learning_rate": "50 is far above the usual range, 1e-5 to 1e-3"
    }
    assert next(iter(run.notes)).startswith(f"{tmp_path}/run.yaml:3:16: ")


def test_warning_about_a_default_has_no_line_of_the_file(tmp_path: Path) -> None:
    run = start(load(tmp_path, BASE + DATA)[0])
    run.warn("learning_rate", "is odd")
    run.warn(("special_tokens", "pad_token"), "is odd")
    assert list(run.notes) == [
        f"{tmp_path}/run.yaml: learning_rate (default)",
        f"{tmp_path}/run.yaml: special_tokens.pad_token (default)",
    ]
