"""Write the pages of docs/ that are generated from the source (`make docs`); with --check, only compare them.

hooks.md comes from the docstrings of hookspecs/. config.md and plugins.md come from the settings, through
core/tunesmith/data/catalogue.json, which `make metadata` writes. keys-from-elsewhere.md comes from the settings and
refused.json, errors.md from errors.toml, and reference.md from the exported names and their docstrings.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from errors_page import errors_page
from hooks_page import hooks_page
from pictures import PICTURES
from pieces import metadata, page, points, table
from reference_page import reference_page

from tunesmith import resume_rules
from tunesmith.config import keys
from tunesmith.plugins import discovery

ROOT = Path(__file__).resolve().parent.parent
Schema = dict[str, Any]

CONFIG_HEAD = """
This page lists every key of the core and of the plugins in this repository. `tunesmith config-schema` prints the same
for all installed plugins as a JSON schema, for editors.

`null` means that a key is not set. If a key belongs to a plugin that nothing selects, it is an error, and the message
names what would select the plugin.

The column *on resume* shows if the value may differ from the checkpoint that a run resumes from:

- `free`: it may.
- `accept`: it may, if `accept_changes` names the key.
- `by content`: what the key refers to is compared instead, as `data` or `plugins`.
- empty: it may not.

[resume.md](resume.md) has the details.
"""

ELSEWHERE_HEAD = """
These are the keys that Axolotl configs use most often. If a key is supported, the core or a plugin owns it. Its values
can differ from Axolotl's, so the type lists the ones that Tunesmith accepts. A key that is not supported is an error
with the advice in the last column; it is never ignored.
"""

PLUGINS_HEAD = """
These are the plugins of this repository. Each plugin is a separate distribution, and a pip extra with the name of the
plugin: `pip install "tunesmith[lora]"`. `tunesmith[all]` installs all of them, and `tunesmith[dev]` what the tests
need. `tunesmith plugins` lists what is installed.

Some extras install only libraries: `hub` (datasets on the hub), `http`, `s3`, `gcs`, `azure` and `oci` (files on other
systems), and `cut-cross-entropy` (GPU kernels). The packages in `contrib/` are not extras. They show what a third party
publishes. A plugin can also declare hooks and offer functions for others
([write-a-plugin.md](write-a-plugin.md#a-hook-for-others)).
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


ON_RESUME: dict[str, str] = {
    **resume_rules.rules(()),
    **{key: rule for info in metadata().values() for key, rule in info["on_resume"].items()},
    **dict.fromkeys(resume_rules.BY_CONTENT, "by content"),
}
WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true, false", "object": "mapping"}
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}


def resolve(root: Schema, schema: Schema) -> Schema:
    """Return the schema that a $ref points to, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    target: Schema = root["$defs"][name] if name else schema
    return target


def type_of(root: Schema, schema: Schema) -> str:
    """Return the type that a JSON schema describes, in words."""
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
    """Return the default value of a key, in words."""
    value = schema.get("default")
    if value in (None, {}) or "properties" in resolve(root, schema):
        return "not set"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def key_rows(root: Schema, group: Schema, above: str = "") -> Iterator[list[str]]:
    """Yield a row (key, type, default, on resume, meaning) for each property; those of a group follow the group."""
    for name, schema in group.get("properties", {}).items():
        default = "required" if name in group.get("required", []) else default_of(root, schema)
        rule = ON_RESUME.get((above + name).partition(".")[0], "")
        yield [f"`{above}{name}`", type_of(root, schema), default, rule, schema.get("description", "")]
        for option in schema.get("anyOf", [schema]):
            yield from key_rows(root, resolve(root, option), f"{above}{name}.")


def keys_table(schema: Schema) -> str:
    return table(["key", "type", "default", "on resume", "meaning"], list(key_rows(schema, schema)))


def either(values: Iterable[str]) -> str:
    """Return the different values as a list in words: "a, b or c"."""
    *first, last = dict.fromkeys(values)
    return f"{', '.join(first)} or {last}" if first else last


def entry_types(info: Schema) -> str:
    """Return the values of `type:` that select a plugin, in words."""
    return f"`type:` {either(f'`{name}`' for names in info['strategies'].values() for name in names)}"


def ways(info: Schema) -> str:
    """Return what selects a plugin, in words."""
    selectors = [f"`{key}: {value}`" for key, values in info["answers"].items() for value in values]
    selectors += [entry_types(info)] if info["strategies"] else []
    selectors += [f"a `path:` to {either(f'`{source}`' for source in info['sources'])}"] if info["sources"] else []
    selectors += [f"`{switch}:`" for switch in info["switches"]]
    default = any(row["plugin"] == info["name"] for row in discovery.defaults())
    return "; ".join([*selectors, f"`plugins: [{info['name']}]`"]) + ("; active by default" if default else "")


def config_page() -> str:
    entries = (
        "Keys of an entry of `datasets:` or `pretraining_dataset:`. Its `type` adds the keys that are listed below."
    )
    parts = [f"## Core\n\n{keys_table(keys.core_schema())}"]
    parts += [f"## Entries of datasets\n\n{entries}\n\n{keys_table(keys.dataset_schema())}"]
    for name, info in metadata().items():
        own, entry = info["schema"], info["dataset_schema"]
        if own or entry:
            parts += [f"## {name}\n\n{info['summary']}\n\n{points({'Selected by': ways(info)})}"]
            parts += [keys_table(own)] if own else []
            parts += [f"In an entry with {entry_types(info)}:\n\n{keys_table(entry)}"] if entry else []
    return page("Config reference", CONFIG_HEAD, *parts)


def elsewhere_row(key: str, owned: dict[str, tuple[str, Schema]]) -> list[str]:
    """Return the row of a key of another tool. Raise SystemExit if it is neither supported nor refused."""
    if key in owned:
        owner, root = owned[key]
        schema = root["properties"][key]
        return [f"`{key}`", owner, type_of(root, schema), schema.get("description", "")]
    if key not in keys.refused():
        raise SystemExit(f"{key} is common, but neither a key nor in core/tunesmith/data/refused.json")
    entry = keys.refused()[key]
    return [f"`{key}`", "not supported", "", f"{entry['reason']}; instead: {entry['write']}"]


def elsewhere_page() -> str:
    plugins = {name: info["schema"] for name, info in metadata().items()}
    schemas = {**plugins, "core": keys.core_schema()}
    owned = {key: (name, schema) for name, schema in schemas.items() for key in schema.get("properties", {})}
    head = ["key", "owner", "type", "meaning, or what to write instead"]
    most, others = MOST_USED.split(), sorted(set(keys.refused()) - set(MOST_USED.split()))
    return page(
        "Keys from elsewhere",
        ELSEWHERE_HEAD,
        table(head, [elsewhere_row(key, owned) for key in most]),
        "These keys are also refused, with advice:",
        table(head, [elsewhere_row(key, {}) for key in others]),
        "Any other unknown key is an error too, with the nearest spelling. [config.md](config.md) lists all keys.",
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
        "Declares hooks": "; ".join(
            f"`{hook}({', '.join(one['parameters'])})`, {one['arity']}: {one['summary']}"
            for hook, one in info["hookspecs"].items()
        ),
        "Offers": "; ".join(f"{kind}: {', '.join(names)}" for kind, names in info["offers"].items()),
    }
    return f"## {name}\n\n{info['summary']} [README](../plugins/{name}/README.md)\n\n{points(facts)}"


def plugins_page() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    brought = {re.split(r"[<>=]", line)[0].removeprefix("tunesmith-") for line in project["dependencies"]}
    rows = [[f"`{r['plugin']}`", f"`{r['hook']}`", r["replaced_by"] or "nothing"] for r in discovery.defaults()]
    return page(
        "Plugins",
        PLUGINS_HEAD,
        "## Defaults\n\nThese plugins are active by default, unless something replaces them. "
        "`plugins: [-console]` switches off a default that nothing has to replace:",
        table(["plugin", "for the hook", "replaced by"], rows),
        *(plugin_section(name, info, brought) for name, info in metadata().items()),
    )


PAGES = {
    "hooks": hooks_page,
    "config": config_page,
    "keys-from-elsewhere": elsewhere_page,
    "plugins": plugins_page,
    "errors": errors_page,
    "reference": reference_page,
}


def main() -> int:
    stale = []
    builders = {f"{name}.md": build for name, build in PAGES.items()}
    builders |= {f"{name}.svg": build for name, build in PICTURES.items()}
    for name, build in builders.items():
        path, text = ROOT / "docs" / name, build()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(f"docs/{name}")
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    print("\n".join(stale) or "the pages are up to date with the source")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
