"""Write what the plugin adapters knows of each type of peft, from its config classes and adapter_types.toml.

It writes plugins/adapters/tunesmith_adapters/types.json, from which the plugin builds its keys without peft. Run it
after an update of peft, and then `make metadata docs`; with --check, it only compares. It fails if peft has a type or
an option that adapter_types.toml does not describe.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tools/adapter_types.toml"
TARGET = ROOT / "plugins/adapters/tunesmith_adapters/types.json"
LORA = "lora"
DEFAULT_TARGETS = {
    "linear": "By default, all linear layers except the head.",
    "peft": "By default, those that peft chooses for the model.",
}
FLAGS = {"merges": True, "starts_as_base": True, "shards": True, "targets": "linear"}
SIZES = ("r", "alpha", "rank", "size", "num", "length", "steps", "init_r", "target_r", "n_frequency", "subspace_rank")
COUNTS = {
    "subspace_rank",
    "num_subspaces",
    "init_r",
    "target_r",
    "n_frequency",
    "num_vectors",
    "vector_length",
    "topk",
    "theta_d_length",
    "block_size",
    "group_size",
    "num_B",
    "stride_A",
    "gralora_k",
    "deltaT",
    "num_cayley_neumann_terms",
    "psoft_svd_lowrank_niter",
    "u",
    "mini_r",
}
"""Options that are at least 1."""
MOST = 1_000_000
"""The largest number of an option: larger ones are mistakes, for which peft would allocate memory."""


def names_of(annotation: Any) -> list[str]:
    """Return the types of an annotation in the vocabulary of types.json: int, str, list[str], dict[str, int], 'a'."""
    if annotation is type(None) or annotation is None:
        return ["null"]
    if annotation is dict:
        return ["dict[str, int]"]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return [name for argument in arguments for name in names_of(argument)]
    if origin is typing.Literal:
        return [repr(value) for value in arguments]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [repr(str(one.value)) for one in annotation]
    if origin is list:
        return [f"list[{names_of(arguments[0])[0]}]"]
    if origin is dict:
        return [f"dict[str, {name}]" for name in names_of(arguments[1])]
    return [annotation.__name__]


def option(field: dataclasses.Field[Any], annotation: Any, text: str) -> dict[str, Any]:
    """Return the entry of an option: its types, default, text, and bounds of its numbers."""
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    default = str(default.value) if isinstance(default, enum.Enum) else default
    names = list(dict.fromkeys(names_of(annotation)))
    if any(name.startswith("'") for name in names):
        names = [name for name in names if name != "str"]  # the values are known
    if default is None and "null" not in names:
        names.append("null")
    entry: dict[str, Any] = {"type": names, "default": default, "text": text}
    if "dropout" in field.name:
        entry |= {"minimum": 0, "below": 1}
    elif field.name in COUNTS or (field.name == "r" and default != 0):
        entry |= {"minimum": 1, "maximum": MOST}
    elif "int" in names:
        entry |= {"minimum": -1 if default == -1 else 0, "maximum": MOST}
    return entry


def collect() -> dict[str, Any]:
    """Return the content of types.json. Raise LookupError for what adapter_types.toml does not describe."""
    from peft import PeftType
    from peft.config import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    table = tomllib.loads(TABLE.read_text("utf-8"))
    known = {*table["types"], *table["refused"], LORA}
    existing = {one.value.lower() for one in PeftType}
    if known != existing:
        raise LookupError(f"adapter_types.toml and peft differ in {', '.join(sorted(known ^ existing))}")
    base = {field.name for field in dataclasses.fields(PeftConfig)}
    collected = {}
    for name, facts in sorted(table["types"].items()):
        cls = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())]
        hints = typing.get_type_hints(cls)
        texts = {**table["common"], **facts.get("options", {})}
        targets = DEFAULT_TARGETS[facts.get("targets", FLAGS["targets"])]
        options = {}
        for field in dataclasses.fields(cls):
            if field.name in base or field.name in {*table["left_out"], *facts.get("left_out", ())}:
                continue
            if field.name not in texts:
                raise LookupError(f"adapter_types.toml does not describe {field.name} of {name}")
            options[field.name] = option(
                field, hints[field.name], texts[field.name].replace("{targets}", targets).strip()
            )
        if unused := set(facts.get("options", {})) - set(options):
            raise LookupError(f"{name} has no option {', '.join(sorted(unused))}")
        flags = {flag: facts.get(flag, default) for flag, default in FLAGS.items()}
        kept = {key: facts[key] for key in ("title", "paper", "merge_note", "needs", "required") if key in facts}
        collected[name] = {"config": cls.__name__, **kept, **flags, "options": options}
    return {"types": collected, "refused": table["refused"]}


def main() -> int:
    text = json.dumps(collect(), indent=1, ensure_ascii=False) + "\n"
    current = TARGET.read_text("utf-8") if TARGET.exists() else ""
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
    elif text != current:
        print(f"{TARGET.relative_to(ROOT)} is not that of the installed peft: run tools/adapter_types.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
