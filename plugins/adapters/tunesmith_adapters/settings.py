"""Build the keys of every type of adapter from types.json, which tools/adapter_types.py writes from peft's classes."""

from __future__ import annotations

import ast
import functools
import json
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from tunesmith import PathText, Settings

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("types.json").read_text("utf-8"))
TYPES: dict[str, dict[str, Any]] = FACTS["types"]
"""Value of adapter: -> its config class in peft, its flags, and its options."""
REFUSED: dict[str, str] = FACTS["refused"]
"""Type of peft -> the reason why it can't be trained here."""
PLAIN: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "null": None, "list[int]": list[int], "list[str]": list[str],
    "dict[str, int]": dict[str, int], "dict[str, float]": dict[str, float],
}  # fmt: skip
BOUNDS = {"minimum": "ge", "maximum": "le", "below": "lt"}
"""Bound in types.json -> argument of pydantic's Field."""


def type_of(option: dict[str, Any]) -> Any:
    """Return the type of an option, with its bounds."""
    bounds = {argument: option[name] for name, argument in BOUNDS.items() if name in option}
    kinds = []
    for name in option["type"]:
        kind = Literal[ast.literal_eval(name)] if name.startswith("'") else PLAIN[name]
        kinds.append(Annotated[kind, Field(**bounds)] if bounds and name in ("int", "float") else kind)
    return functools.reduce(operator.or_, kinds)


def group_of(name: str, facts: dict[str, Any]) -> Any:
    """Return the type and the field of the group of a type."""
    fields: dict[str, Any] = {
        key: (type_of(option), Field(option["default"], description=option["text"]))
        for key, option in facts["options"].items()
    }
    paper = f" (arXiv {facts['paper']})" if "paper" in facts else ""
    model = create_model(f"{facts['config'].removesuffix('Config')}Options", __base__=Settings, **fields)
    return model | None, Field(None, description=f"Options of `adapter: {name}`, {facts['title']}{paper}.")


class Saved(Settings):
    """The keys that all types have."""

    adapter_model_dir: PathText | None = None
    """Continue to train the adapter in this folder, with its own options."""


_GROUPS: dict[str, Any] = {name: group_of(name, facts) for name, facts in TYPES.items()}
AdaptersSettings: type[Saved] = create_model("AdaptersSettings", __base__=Saved, **_GROUPS)
"""One group for each type, with the name of the type, and in it the options with the names that peft gives them."""


def options_of(settings: Saved, name: str) -> dict[str, Any]:
    """Return the options of a type: those of its group, and defaults."""
    group = getattr(settings, name)
    return {key: getattr(group, key) if group else option["default"] for key, option in TYPES[name]["options"].items()}
