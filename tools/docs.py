"""Write the pages of docs/ that are made from the source (`make docs`); with --check, only compare.

hooks.md is made from the docstrings of hookspecs.py; config.md and plugins.md from the settings (through
core/tunesmith/data/catalogue.json, which `make metadata` writes); keys-from-elsewhere.md from these and refused.json;
errors.md from errors.toml.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors_page import errors_page
from pieces import page, points, table

from tunesmith import resume_rules
from tunesmith.config import keys
from tunesmith.plugins import discovery
from tunesmith.plugins.manager import HOOKS

ROOT = Path(__file__).resolve().parent.parent
Schema = dict[str, Any]

HOOKS_HEAD = """
A run is these steps in this order; a plugin answers those that it has something to say to.

```text
 run.yaml
    |   load_config: keys, types, owners, which plugins; arity of every hook
    v
 validate            all     settings against settings
 inspect             all     files and packages that the run needs
    |                        ... `check` and `hooks` end here
 diagnose            all     in `doctor` alone: what the run stands on, on this machine
    |
 load_tokenizer      one
    |   for each entry of datasets and test_datasets:
 load_rows           keyed   rows
 filter_rows         chain   the rows of all entries together: drop some
 build_dataset       keyed   rows to examples; then sequence_len, held-out split, cache
    |                        ... `preprocess` ends here
 configure           all     load arguments, classes patched, states registered
 load_model          one     role "policy"
 patch_model         chain   adapters, kernels, freezing
 load_model          one     role "reference", if something needs one and no adapter can be switched off
    |                        ... `plan` does these without weights; `verify` ends here
 build_optimizer     one
 build_scheduler     one
    |   resume_from_checkpoint: everything is restored
 on_start            all
    |
    |   for each optimizer step:
    |     expand          chain   examples of a round to those that are trained on; laid out as batches
    |     prepare_step    all     all micro-batches of the step, without gradient
    |       for each micro-batch: one forward
    |       compute_loss  one     terms, and those that wrappers add; backward
    |     gradients are clipped; if loss and norm are finite, weights are updated
    |     where an evaluation is due: expand, prepare_step and compute_loss on the held-out examples
    |     on_step         all     log, watch, stop
    |     save_model      all     where a checkpoint is due
    v
 save_model          all     the final model
 on_end              all
```

| arity | who answers |
|---|---|
| one | exactly one plugin; two are an error that names both. Wrappers may surround it |
| keyed | one plugin for each key; those with other keys stay silent |
| chain | everyone in call order, each on what the one before returned; no wrappers |
| all | everyone in call order; what they return is ignored |

An implementation names the arguments that it wants and leaves the others out. Call order is the `plugins:` list, then
the other plugins, by word; refined by `after` and `before`. `tunesmith hooks run.yaml`
shows it. A misspelt hook, an argument that it does not offer, and a second answer to a hook of arity one are errors
before anything is loaded. The types are those of `tunesmith`; [write-a-plugin.md](write-a-plugin.md) uses them.
"""

CONFIG_HEAD = """
Every key of the core and of the plugins of this repository. `null` means that a key is not set. A key of a plugin that
nothing selects is an error that says what would select it. The column "on resume" says whether a key may differ from
that of the checkpoint that a run goes on from: freely, with a word in `accept_changes`, by its content (`data` and
`plugins` are compared themselves), or, where it is empty, not at all; [resume.md](resume.md) has the rest.
`tunesmith config-schema` prints a JSON schema of all that is installed, for editors.
"""

ELSEWHERE_HEAD = """
Configs of Axolotl use these keys most. A key that is taken is owned by the core or a plugin; values can differ, so the
type says which are known. One that is not taken is an error with the advice in the last column, never ignored.
"""

PLUGINS_HEAD = """
The plugins of this repository. Each is a distribution of its own and an extra of the same word:
`pip install "tunesmith[lora]"`. `tunesmith[all]` brings all of them, `tunesmith[dev]` what the tests need.
`tunesmith plugins` lists what is installed. The packages in `contrib/` are no extras: they show what a third party
publishes. `hub` (datasets on the hub), `http`, `s3`, `gcs`, `azure` and `oci` (files elsewhere) and `cut-cross-entropy`
(kernels for a GPU) bring libraries alone.
"""

# The keys that configs of Axolotl use most, most used first: those in at least 35 of its 250 example files.
MOST_USED = """
base_model learning_rate micro_batch_size output_dir sequence_len bf16 optimizer datasets gradient_accumulation_steps
lr_scheduler logging_steps num_epochs tf32 sample_packing warmup_ratio saves_per_epoch val_set_size attn_implementation
gradient_checkpointing weight_decay wandb_name wandb_entity wandb_log_model wandb_project wandb_watch evals_per_epoch
adapter lora_alpha lora_r dataset_prepared_path lora_dropout special_tokens resume_from_checkpoint load_in_4bit
load_in_8bit lora_model_dir lora_target_modules plugins lora_target_linear model_type chat_template tokenizer_type
gradient_checkpointing_kwargs fsdp_config eval_sample_packing pad_to_sequence_len strict trust_remote_code fp16
liger_glu_activation liger_rms_norm
"""


def hook_section(name: str, function: Any) -> str:
    text, _, example = inspect.cleandoc(function.__doc__ or "").partition("\nExample:\n")
    text, _, answers = text.partition("Answers: ")
    summary, _, when = text.partition("When: ")
    if not (when and answers and example):
        raise SystemExit(f"the docstring of {name} needs When:, Answers: and Example:")
    signature = inspect.signature(function)
    facts = {
        "Arity": function.arity,
        "Arguments": ", ".join(f"`{p.name}: {p.annotation}`" for p in signature.parameters.values()),
        "Returns": f"`{signature.return_annotation}`",
        "When": when,
        "Answers": answers,
    }
    code = textwrap.dedent(example).strip()
    return f"## {name}\n\n{summary.strip()}\n\n{points(facts)}\n\n```python\n{code}\n```"


def hooks_page() -> str:
    if missing := [name for name in HOOKS if f" {name} " not in HOOKS_HEAD]:
        raise SystemExit(f"the diagram in tools/docs.py lacks {', '.join(missing)}")
    return page("Hooks", HOOKS_HEAD, *(hook_section(name, function) for name, function in HOOKS.items()))


ON_RESUME: dict[str, str] = {
    **resume_rules.rules(()),
    **{key: rule for info in discovery.catalogue().values() for key, rule in info["on_resume"].items()},
    **dict.fromkeys(resume_rules.BY_CONTENT, "by content"),
}
WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true, false", "object": "mapping"}
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}


def resolve(root: Schema, schema: Schema) -> Schema:
    """The schema that a $ref points to, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Schema = root["$defs"][name] if name else schema
    return found


def type_of(root: Schema, schema: Schema) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return ", ".join(type_of(root, option) for option in schema["anyOf"] if option.get("type") != "null")
    schema = resolve(root, schema)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {type_of(root, schema['items'])}s".replace("texts", "text")
    if "properties" in schema:
        return "group"
    return " ".join(
        [WORDS[schema["type"]], *(f"{word} {schema[key]:g}" for key, word in BOUNDS.items() if key in schema)]
    )


def default_of(root: Schema, schema: Schema) -> str:
    value = schema.get("default")
    if value in (None, {}) or "properties" in resolve(root, schema):
        return "not set"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def key_rows(root: Schema, group: Schema, above: str = "") -> Iterator[list[str]]:
    """A row (key, type, default, meaning) for each property, and after a group one for each of its own."""
    for name, schema in group.get("properties", {}).items():
        default = "required" if name in group.get("required", []) else default_of(root, schema)
        rule = ON_RESUME.get((above + name).partition(".")[0], "")
        yield [f"`{above}{name}`", type_of(root, schema), default, rule, schema.get("description", "")]
        for option in schema.get("anyOf", [schema]):
            yield from key_rows(root, resolve(root, option), f"{above}{name}.")


def keys_table(schema: Schema) -> str:
    return table(["key", "type", "default", "on resume", "meaning"], list(key_rows(schema, schema)))


def entry_types(info: Schema) -> str:
    return " or ".join(f"`type: {name}`" for names in info["strategies"].values() for name in names)


def ways(info: Schema) -> str:
    """What selects a plugin, in words."""
    found = [f"`{key}: {value}`" for key, values in info["answers"].items() for value in values]
    found += [entry_types(info)] if info["strategies"] else []
    found += [f"a `path:` to {', '.join(f'`{source}`' for source in info['sources'])}"] if info["sources"] else []
    found += [f"`{switch}:`" for switch in info["switches"]]
    default = any(row["plugin"] == info["name"] for row in discovery.defaults())
    return " or ".join([*found, f"`plugins: [{info['name']}]`"]) + ("; active by default" if default else "")


def config_page() -> str:
    entries = "Entries of `datasets:` and `pretraining_dataset:`; their `type` adds keys of its own, further down."
    parts = [f"## Core\n\n{keys_table(keys.core_schema())}"]
    parts += [f"## Entries of datasets\n\n{entries}\n\n{keys_table(keys.dataset_schema())}"]
    for name, info in discovery.catalogue().items():
        own, entry = info["schema"], info["dataset_schema"]
        if own or entry:
            parts += [f"## {name}\n\n{info['summary']}\n\n{points({'Selected by': ways(info)})}"]
            parts += [keys_table(own)] if own else []
            parts += [f"In an entry with {entry_types(info)}:\n\n{keys_table(entry)}"] if entry else []
    return page("Config reference", CONFIG_HEAD, *parts)


def elsewhere_row(key: str, owned: dict[str, tuple[str, Schema]]) -> list[str]:
    """What becomes of a key of another tool. Ends with an error if nobody takes or refuses it."""
    if key in owned:
        owner, root = owned[key]
        schema = root["properties"][key]
        return [f"`{key}`", owner, type_of(root, schema), schema.get("description", "")]
    if key not in keys.refused():
        raise SystemExit(f"{key} is used by many, and it is neither a key nor in core/tunesmith/data/refused.json")
    entry = keys.refused()[key]
    return [f"`{key}`", "not taken", "", f"{entry['reason']}; instead: {entry['write']}"]


def elsewhere_page() -> str:
    plugins = {name: info["schema"] for name, info in discovery.catalogue().items()}
    schemas = {**plugins, "core": keys.core_schema()}
    owned = {key: (name, schema) for name, schema in schemas.items() for key in schema.get("properties", {})}
    head = ["key", "owner", "type", "meaning, or what to write instead"]
    most, others = MOST_USED.split(), sorted(set(keys.refused()) - set(MOST_USED.split()))
    return page(
        "Keys from elsewhere",
        ELSEWHERE_HEAD,
        table(head, [elsewhere_row(key, owned) for key in most]),
        "Further keys that are refused with advice:",
        table(head, [elsewhere_row(key, {}) for key in others]),
        "Any other unknown key is an error too, with the nearest spelling. [config.md](config.md) has all known ones.",
    )


def plugin_section(name: str, info: Schema, brought: set[str]) -> str:
    own = list(info["schema"].get("properties", {}))
    entry = [f"datasets[].{key}" for key in info["dataset_schema"].get("properties", {})]
    facts = {
        "Distribution": f"`tunesmith-{name}`, {'part of' if name in brought else 'an extra of'} `tunesmith`",
        "Selected by": ways(info),
        "Trains on rows of": ", ".join((info["method"] or {}).get("rows", [])),
        "Turns into examples": "; ".join(f"{kind}: {', '.join(types)}" for kind, types in info["strategies"].items()),
        "Keys": ", ".join(f"`{key}`" for key in [*own, *entry]),
        "Hooks": ", ".join(
            f"`{hook}`{' (wraps)' if kind == 'wrapper' else ''}" for hook, kind in info["hooks"].items()
        ),
    }
    return f"## {name}\n\n{info['summary']} [README](../plugins/{name}/README.md)\n\n{points(facts)}"


def plugins_page() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    brought = {re.split(r"[<>=]", line)[0].removeprefix("tunesmith-") for line in project["dependencies"]}
    rows = [[f"`{r['plugin']}`", f"`{r['hook']}`", r["replaced_by"] or "nothing"] for r in discovery.defaults()]
    return page(
        "Plugins",
        PLUGINS_HEAD,
        "## Defaults\n\nActive without being named, until something stands in for them:",
        table(["plugin", "for the hook", "replaced by"], rows),
        *(plugin_section(name, info, brought) for name, info in discovery.catalogue().items()),
    )


PAGES = {
    "hooks": hooks_page,
    "config": config_page,
    "keys-from-elsewhere": elsewhere_page,
    "plugins": plugins_page,
    "errors": errors_page,
}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / "docs" / f"{name}.md", make()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(f"docs/{name}.md")
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print("\n".join(stale) or "the pages are in step with the source")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
