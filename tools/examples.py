"""Build examples/FAMILY/METHOD.yaml for each family of models, and the pages that list them.

The families are in example_families.toml, and what a method needs is below.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pieces import page, points, table

ROOT = Path(__file__).resolve().parent.parent
FAMILIES: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "tools/example_families.toml").read_text("utf-8"))
CHAT = """\
datasets:
  - path: examples/data/chat.jsonl   # {{"messages": [{{"role": "user", "content": ...}}, ...]}} on each line
    type: chat_template              # rendered with the model's template; only what the assistant says is trained
{template}val_set_size: 0.05
"""
PAIRS = """\
datasets:
  - path: examples/data/pairs.jsonl  # {{"prompt": ..., "chosen": ..., "rejected": ...}} on each line
    type: chat_template
{template}val_set_size: 0.05
"""
LORA = """\
adapter: {adapter}
lora_r: 16
lora_alpha: 32
{targets}"""
SIZES = """\
sequence_len: {length}
micro_batch_size: {batch}
gradient_accumulation_steps: {accumulation}
num_epochs: {epochs}
learning_rate: {rate}
lr_scheduler: cosine
warmup_ratio: 0.05
gradient_checkpointing: true
"""
METHODS: dict[str, dict[str, str]] = {
    "sft-full": {
        "title": "Supervised fine-tuning of all weights on conversations.",
        "model": "chat",
        "data": CHAT,
        "sizes": "2048 1 8 2 1e-5",
    },
    "sft-lora": {
        "title": "Supervised fine-tuning with LoRA: small matrices next to frozen weights are trained.",
        "model": "chat",
        "adapter": "lora",
        "data": CHAT,
        "sizes": "2048 2 4 3 2e-4",
    },
    "sft-qlora": {
        "title": "Supervised fine-tuning with QLoRA: LoRA on a base model with weights of 4 bits.",
        "model": "large",
        "adapter": "qlora",
        "data": CHAT,
        "sizes": "2048 1 8 3 2e-4",
    },
    "dpo": {
        "title": "DPO on pairs of a better and a worse answer; the model without its adapter is the reference.",
        "model": "chat",
        "adapter": "lora",
        "method": """\
rl: dpo
rl_beta: 0.1                     # lower values let the model move further away from the reference
""",
        "data": PAIRS,
        "sizes": "2048 1 8 1 5e-6",
    },
    "orpo": {
        "title": "ORPO on pairs of a better and a worse answer, without a reference.",
        "model": "chat",
        "adapter": "lora",
        "method": """\
rl: orpo
orpo_alpha: 0.1                  # weight of the odds ratio next to the likelihood of the better answer
""",
        "data": PAIRS,
        "sizes": "2048 1 8 1 8e-6",
    },
    "kto": {
        "title": "KTO on single answers, each labeled good or bad.",
        "model": "chat",
        "adapter": "lora",
        "method": "rl: kto\nrl_beta: 0.1\n",
        "data": PAIRS.replace(
            'pairs.jsonl  # {{"prompt": ..., "chosen": ..., "rejected": ...}}',
            'labels.jsonl # {{"prompt": ..., "completion": ..., "label": true}}',
        ),
        "sizes": "2048 2 4 1 5e-6",
    },
    "reward": {
        "title": "A reward model: its head predicts one number at the end of an answer, learned from pairs.",
        "model": "chat",
        "method": "reward_model: true\ncenter_rewards_coefficient: 0.01 # keeps the two rewards of a pair around 0\n",
        "data": PAIRS,
        "sizes": "2048 1 8 1 1e-5",
    },
    "grpo": {
        "title": "GRPO: the model answers each question eight times, and learns from what scores above the mean.",
        "model": "chat",
        "adapter": "lora",
        "method": """\
rl: grpo
rewards:
  - {{name: exact_match, extract: '(\\d+)\\s*$'}}  # the last number of the completion equals the column "answer"
trl:
  num_generations: 8             # completions of each question
  max_completion_length: 256
  temperature: 1.0
""",
        "data": """\
datasets:
  - path: examples/arithmetic/questions.jsonl  # {{"prompt": "47+38:", "answer": "85"}} on each line
    type: chat_template
{template}{variables}""",
        "sizes": "1024 16 4 1 1e-5",
    },
    "pretraining": {
        "title": "Continued pretraining on texts: every token is trained.",
        "model": "base",
        "data": """\
datasets:
  - path: examples/data/text.jsonl   # {{"text": ...}} on each line
    type: completion
    field: text
val_set_size: 0.05
""",
        "sizes": "4096 1 8 1 2e-5",
    },
}


def example(name: str, method: str) -> str:
    """Return the YAML of a family and a method."""
    family, what = FAMILIES[name], METHODS[method]
    template = f"chat_template: {family['template']}\n" if "template" in family else ""
    targets = "lora_target_linear: true         # all linear layers except the head\n"
    if "targets" in family:
        targets = f"lora_target_modules: [{', '.join(family['targets'])}]\n"
    adapter = what.get("adapter")
    variables = f"chat_template_kwargs: {family['variables']}\n" if "variables" in family else ""
    values = {"template": template, "targets": targets, "adapter": adapter, "variables": variables}
    lengths = dict(zip(("length", "batch", "accumulation", "epochs", "rate"), what["sizes"].split(), strict=True))
    parts = [
        f"# {family['title']}. {what['title']}\n#   tunesmith train examples/{name}/{method}.yaml\n"
        + "".join(f"# {note}\n" for note in family.get("notes", ()))
        + f"base_model: {family[what['model']]}\n",
        what.get("method", "").format(**values),
        LORA.format(**values) if adapter else "",
        what["data"].format(**values),
        SIZES.format(**lengths),
        f"output_dir: outputs/{name}-{method}\n",
    ]
    return "\n".join(part for part in parts if part)


def methods_of(name: str) -> list[str]:
    """Return the methods that a family has examples for."""
    return [method for method in METHODS if method not in FAMILIES[name].get("without", {})]


def readme() -> str:
    """Return the page that lists the examples of families."""
    head = """
Each folder has one YAML for each method, for the models of one family. They train on the small data of this folder, so
they run as they are, after the model is downloaded. Replace `datasets:` with your own. A test trains each of them for
two steps on a small random model of the same architecture.
"""
    rows = [
        [f"[{family['title']}]({name})", *(f"`{family[kind]}`" for kind in ("base", "chat", "large"))]
        for name, family in FAMILIES.items()
    ]
    methods = [[f"`{method}.yaml`", what["title"], what["model"]] for method, what in METHODS.items()]
    families = table(["family", "base", "chat", "large"], rows)
    return page("Examples by family of models", head, table(["file", "what it does", "model"], methods), families)


def families_page() -> str:
    """Return docs/families.md: what is particular to the models of a family."""
    head = """
What differs between families when they are trained. `examples/` has one YAML for each of them and each method
([the list](../examples/README.md)). A test trains each for two steps on a small random model of the same architecture,
and checks for each architecture that packing and shared prompts do not change the result (`tunesmith verify`).

For all families: `tunesmith plan run.yaml` shows how attention is computed and how much memory a step takes, and
`tunesmith preprocess run.yaml --debug` shows the tokens that are trained. A model that is not listed needs nothing if
transformers has its architecture; [new-architecture.md](new-architecture.md) is about those that need something.
"""
    sections = []
    for family in FAMILIES.values():
        template = "that of the tokenizer"
        if "template" in family:
            template = f"`chat_template: {family['template']}` ([what it does](chat-templates.md))"
        facts = {
            "Models": ", ".join(f"`{model}`" for model in dict.fromkeys(family[k] for k in ("base", "chat", "large"))),
            "Architecture of the test": f"`{family['config'][0].removesuffix('Config')}`",
            "Chat template": template,
            "LoRA": f"`lora_target_modules: [{', '.join(family['targets'])}]`" if "targets" in family else "",
            "Without an example": "; ".join(f"{method}: {why}" for method, why in family.get("without", {}).items()),
        }
        notes = "\n".join(
            textwrap.fill(note, 118, initial_indent="- ", subsequent_indent="  ") for note in family["notes"]
        )
        sections.append(f"## {family['title']}\n\n{points(facts)}\n{notes}")
    return page("Families of models", head, *sections)


def files() -> Iterator[tuple[Path, str]]:
    """Yield the path and the content of each generated file."""
    yield ROOT / "examples/README.md", readme()
    for name in FAMILIES:
        for method in methods_of(name):
            yield ROOT / "examples" / name / f"{method}.yaml", example(name, method)
