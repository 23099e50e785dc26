"""Write the pages of docs/ that are made from the source (`make docs`); with --check, only compare.

hooks.md is made from the docstrings of hookspecs.py; config.md and plugins.md from the settings (through
core/tunesmith/data/catalogue.json, which `make metadata` writes); keys-from-elsewhere.md from these and refused.json.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tunesmith import discovery, keys
from tunesmith.hooks import HOOKS

ROOT = Path(__file__).resolve().parent.parent
MADE = "<!-- made by `make docs`; change the source instead -->\n\n"

DIAGRAM = """
 run.yaml
    |   load_config: keys, types, owners, selection; arity of every hook
    v
 validate           all      settings against settings
 inspect            all      files and packages that the run needs
    |                        ... `check` and `hooks` end here
    v
 load_tokenizer     one
    |   for each entry of datasets:
 load_rows          one      rows
 build_dataset      keyed    rows -> examples; then sequence_len, held-out split, cache
    |                        ... `preprocess` ends here
    v
 configure          all      load arguments, classes patched, states registered
 load_model         one      role "policy": weights are read
 patch_model        chain    adapters, kernels, freezing
 load_model         one      role "reference", if something needs it and no adapter can be switched off
    |                        ... `plan` does these without weights; `verify` ends here
    v
 build_optimizer    one
 build_scheduler    one
    |   resume_from_checkpoint: everything is restored
 on_start           all
    |
    |<--------------------------------------------------------------+
    v                                                               |
 expand             chain    examples of a round -> those to train on
    |   examples are laid out as batches                            |
 prepare_step       all      all micro-batches of the step, no gradient
    |   for each micro-batch: one forward                           |
 compute_loss       one      terms (wrappers add some); then backward
    |   gradients are clipped, loss and norm checked, weights updated
    |   evaluation, where one is due: expand, prepare_step, compute_loss on held-out examples
 on_step            all      logs, early stop                       |
 save_model         all      where a checkpoint is due              |
    |                                                               |
    +---- until the last step --------------------------------------+
    v
 save_model         all      the final model
 on_end             all
"""

ARITY = """
| arity | who answers |
|---|---|
| one | exactly one plugin; two are an error that names both. Wrappers may surround it |
| keyed | one plugin for each key; those with other keys stay silent |
| chain | everyone in call order, each on what the one before returned; no wrappers |
| all | everyone in call order; what they return is ignored |

An implementation asks for the arguments that it wants, by name, and leaves the others out. Call order is the `plugins:`
list, then the words of the other plugins, refined by `after` and `before`. `tunesmith hooks run.yaml` shows it for a
run. A misspelt hook, an argument that it does not offer, and a second answer to a hook of arity one are errors before
anything heavy is loaded.
"""

# The keys that configs of Axolotl use most, most used first: those in at least 35 of its 250 example files.
ELSEWHERE = """
base_model learning_rate micro_batch_size output_dir sequence_len bf16 optimizer datasets gradient_accumulation_steps
lr_scheduler logging_steps num_epochs tf32 sample_packing warmup_ratio saves_per_epoch val_set_size attn_implementation
gradient_checkpointing weight_decay wandb_name wandb_entity wandb_log_model wandb_project wandb_watch evals_per_epoch
adapter lora_alpha lora_r dataset_prepared_path lora_dropout special_tokens resume_from_checkpoint load_in_4bit
load_in_8bit lora_model_dir lora_target_modules plugins lora_target_linear model_type chat_template tokenizer_type
gradient_checkpointing_kwargs fsdp_config eval_sample_packing pad_to_sequence_len strict trust_remote_code fp16
liger_glu_activation liger_rms_norm
""".split()


# tables


def cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(cell, line))} |\n".replace("| --- |", "|---|") for line in lines)


# hooks.md


def sections(docstring: str) -> tuple[str, str, str, str]:
    """Text, When, Answers and example of a hook's docstring."""
    text, _, example = inspect.cleandoc(docstring).partition("\nExample:\n")
    body, _, answers = text.partition("Answers: ")
    summary, _, when = body.partition("When: ")
    if not (when and answers and example):
        raise SystemExit(f"a hook's docstring needs When:, Answers: and Example:, unlike {summary[:60]!r}")
    return summary.strip(), when.strip(), answers.strip(), textwrap.dedent(example).strip()


def hooks_page() -> str:
    missing = [name for name in HOOKS if f"\n {name} " not in DIAGRAM]
    if missing:
        raise SystemExit(f"the diagram in tools/docs.py lacks {', '.join(missing)}")
    parts = [
        "# Hooks\n\n"
        + MADE
        + "A run is these steps in this order; a plugin answers those that it has something to say to.",
        f"```text{DIAGRAM}```",
        ARITY.strip(),
    ]
    for name, function in HOOKS.items():
        summary, when, answers, example = sections(function.__doc__ or "")
        signature = inspect.signature(function)
        arguments = ", ".join(f"`{p.name}: {p.annotation}`" for p in signature.parameters.values())
        facts = [
            f"- Arity: {function.arity}",
            f"- Arguments: {arguments}",
            f"- Returns: `{signature.return_annotation}`",
            f"- When: {' '.join(when.split())}",
            f"- Answers: {' '.join(answers.split())}",
        ]
        parts += [f"## {name}", summary, "\n".join(facts), f"```python\n{example}\n```"]
    parts.append("The types are in `tunesmith`; [write-a-plugin.md](write-a-plugin.md) shows how they are used.")
    return "\n\n".join(parts) + "\n"


# config.md

WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true, false", "object": "mapping"}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def resolve(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a $ref points to, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = root["$defs"][name] if name else schema
    return found


def type_of(root: dict[str, Any], schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return ", or ".join(type_of(root, option) for option in schema["anyOf"] if option.get("type") != "null")
    schema = resolve(root, schema)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {type_of(root, schema.get('items', {'type': 'object'}))}"
    if "properties" in schema:
        return "group"
    bounds = [text.format(f"{schema[key]:g}") for key, text in BOUNDS.items() if key in schema]
    return " ".join([WORDS[schema["type"]], *bounds])


def default_of(name: str, root: dict[str, Any], schema: dict[str, Any]) -> str:
    if name in root.get("required", []):
        return "required"
    value = schema.get("default")
    if value is None or value == {} or (isinstance(value, dict) and "properties" in resolve(root, schema)):
        return "not set"
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def key_rows(root: dict[str, Any], schema: dict[str, Any] | None = None, above: str = "") -> Iterator[list[str]]:
    """A row (key, type, default, description) for each property, and below a group for each of its own."""
    schema = root if schema is None else schema
    for name, sub in schema.get("properties", {}).items():
        row = [f"`{above}{name}`", type_of(root, sub), default_of(name, schema | {"$defs": root.get("$defs", {})}, sub)]
        yield [*row, sub.get("description", "")]
        for option in sub.get("anyOf", [sub]):
            group = resolve(root, option)
            if "properties" in group:
                yield from key_rows(root, group, f"{above}{name}.")


def keys_table(schema: dict[str, Any]) -> str:
    return table(["key", "type", "default", "meaning"], list(key_rows(schema)))


def config_page() -> str:
    parts = [
        "# Config reference\n\n"
        + MADE
        + "Every key of the core and of the plugins of this repository. `null` means that a "
        "key is not set. A key of a plugin that nothing selects is an error that says what would select it. "
        "`tunesmith config-schema` prints the same as a JSON schema, of what is installed.",
        "## Core\n\n" + keys_table(keys.core_schema()),
        "## Entries of datasets\n\nEntries of `datasets:` and of `pretraining_dataset:`; each `type` adds keys of its own, "
        "below.\n\n" + keys_table(keys.dataset_schema()),
    ]
    for name, info in discovery.catalogue().items():
        own, entry = info["schema"], info["dataset_schema"]
        if not own and not entry:
            continue
        part = f"## {name}\n\n{info['summary']}\n\nActive with {ways(info)}.\n"
        part += "\n" + keys_table(own) if own else ""
        types = " or ".join(f"`type: {t}`" for types in info["strategies"].values() for t in types)
        part += f"\nIn an entry of {types}:\n\n{keys_table(entry)}" if entry else ""
        parts.append(part)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def ways(info: dict[str, Any]) -> str:
    """What selects a plugin, in words."""
    found = [f"`{key}: {value}`" for key, values in info["answers"].items() for value in values]
    found += [f"`type: {t}`" for types in info["strategies"].values() for t in types]
    found += [f"`{switch}:`" for switch in info["switches"]]
    default = any(row["plugin"] == info["name"] for row in discovery.defaults())
    found += ["no key, as a default"] if default else []
    return " or ".join([*found, f"`plugins: [{info['name']}]`"])


# keys-from-elsewhere.md


def elsewhere_row(key: str, owned: dict[str, tuple[str, dict[str, Any]]]) -> list[str]:
    """What becomes of a key of another tool. Ends with an error if nobody takes or refuses it."""
    if key in owned:
        owner, root = owned[key]
        schema = root["properties"][key]
        return [f"`{key}`", f"yes ({owner})", type_of(root, schema), schema.get("description", "")]
    if key not in keys.refused():
        raise SystemExit(f"{key} is used by many and is neither a key nor in core/tunesmith/data/refused.json")
    entry = keys.refused()[key]
    return [f"`{key}`", "no", "", f"{entry['reason']}. Instead: {entry['write']}"]


def elsewhere_page() -> str:
    owned: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, info in discovery.catalogue().items():
        owned |= {key: (name, info["schema"]) for key in info["schema"].get("properties", {})}
    owned |= {key: ("core", keys.core_schema()) for key in keys.core_schema()["properties"]}
    head = ["key", "taken", "type", "meaning, or what to write"]
    others = sorted(set(keys.refused()) - set(ELSEWHERE))
    return (
        "# Keys from elsewhere\n\n"
        + MADE
        + "Configs of Axolotl use these keys most. Keys that are taken mean the same here; one that is not is an error with "
        "the advice in the last column, never ignored. Values can differ: the type says which are known.\n\n"
        + table(head, [elsewhere_row(key, owned) for key in ELSEWHERE])
        + "\nFurther keys that are refused with advice:\n\n"
        + table(head, [elsewhere_row(key, {}) for key in others])
        + "\nAny other unknown key is an error too, with the nearest spelling; [config.md](config.md) has all that are known.\n"
    )


# plugins.md


def plugins_page() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    brought = {re.split(r"[<>=]", line)[0].removeprefix("tunesmith-") for line in project["dependencies"]}
    rows = [[f"`{r['plugin']}`", f"`{r['hook']}`", r["replaced_by"] or "nothing"] for r in discovery.defaults()]
    parts = [
        "# Plugins\n\n"
        + MADE
        + "The plugins of this repository. Each is a distribution of its own and an extra of the same "
        'word: `pip install "tunesmith[lora]"`; `tunesmith[all]` brings all, `tunesmith[dev]` what the tests need. '
        "`tunesmith plugins` lists what is installed. The packages in `contrib/` are not among them: they show what a third "
        "party publishes.",
        "## Defaults\n\nActive without being named, until something stands in for them:\n\n"
        + table(["plugin", "for the hook", "replaced by"], rows),
    ]
    for name, info in discovery.catalogue().items():
        hooks = [f"`{hook}`{' (wraps)' if kind == 'wrapper' else ''}" for hook, kind in info["hooks"].items()]
        own = list(info["schema"].get("properties", {}))
        entry = [f"datasets[].{key}" for key in info["dataset_schema"].get("properties", {})]
        kinds = [f"{kind}: {', '.join(types)}" for kind, types in info["strategies"].items()]
        facts = {
            "Distribution": f"`tunesmith-{name}`, {'part of' if name in brought else 'an extra of'} `tunesmith`",
            "Selected by": ways(info),
            "Trains on rows of": ", ".join((info["method"] or {}).get("rows", [])),
            "Turns into examples": "; ".join(kinds),
            "Keys": ", ".join(f"`{key}`" for key in [*own, *entry]),
            "Hooks": ", ".join(hooks),
        }
        lines = "\n".join(f"- {fact}: {text}" for fact, text in facts.items() if text)
        parts.append(f"## {name}\n\n{info['summary']} [README](../plugins/{name}/README.md)\n\n{lines}")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


PAGES = {
    "hooks.md": hooks_page,
    "config.md": config_page,
    "keys-from-elsewhere.md": elsewhere_page,
    "plugins.md": plugins_page,
}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / "docs" / name, make()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(f"docs/{name}")
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print("\n".join(stale) or "the pages are in step with the source")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
