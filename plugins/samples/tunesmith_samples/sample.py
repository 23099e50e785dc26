"""Which prompts are sampled, what their rows answer, and one round of completions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunesmith_samples.lines import append

if TYPE_CHECKING:
    from tunesmith import Example, Policy, Run, Segment
    from tunesmith_samples import SampleSettings

PATH = "samples.jsonl"
LOOKED_AT = 1000  # examples searched for prompts: data without any (plain text) may have millions


class Asked(NamedTuple):
    """A prompt as token ids, and what samples.jsonl has of the row beside the completion."""

    prompt: list[int]
    row: dict[str, Any]


def asked(run: Run, settings: SampleSettings) -> list[Asked]:
    """The prompts, the same in every process and every round; none is empty, and none is there twice."""
    if settings.sample_prompts:
        return [Asked(_tokens(run, text), {}) for text in settings.sample_prompts]
    for examples in (run.data.eval, run.data.train) if run.data else ():
        found: dict[tuple[int, ...], Example] = {}
        for example in itertools.islice(examples or (), LOOKED_AT):
            if prompt := example.prompt:
                found.setdefault(tuple(prompt), example)  # several pairs may have one prompt
            if len(found) == settings.num_generation_samples:
                break
        if found:
            return [Asked(list(prompt), _row(run, example)) for prompt, example in found.items()]
    return []


def _row(run: Run, example: Example) -> dict[str, Any]:
    """What the row of an example answers: chosen and rejected of a pair, or the answer that has a label."""
    kind = run.config.entries[example.origin[0]].row_kind
    if kind == "pair" and len(example.segments) == 3:
        chosen, rejected = (_said(run, segment) for segment in example.segments[1:])
        return {"chosen": chosen, "rejected": rejected}
    if kind == "labelled" and "label" in example.columns:
        return {"answer": _said(run, example.segments[1]), "label": bool(example.columns["label"])}
    return {}


def _said(run: Run, segment: Segment) -> str:
    """The text of a completion from its first trained token on."""
    trained = np.flatnonzero(segment.weights)
    first = trained[0] if len(trained) else len(segment.tokens)
    return str(run.tokenizer.decode(segment.tokens[first:].tolist(), skip_special_tokens=True))


def _tokens(run: Run, text: str) -> list[int]:
    """A text as a user's turn where the tokenizer has a chat template, with the variables that training gave it."""
    if not getattr(run.tokenizer, "chat_template", None):
        return list(run.tokenizer(text).input_ids)
    turns = [{"role": "user", "content": text}]
    shape: dict[str, Any] = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
    return list(run.tokenizer.apply_chat_template(turns, **(variables(run) | shape)))


def variables(run: Run) -> dict[str, Any]:
    """The chat_template_kwargs of the YAML, and over them those of the first entry: as the rows of it are rendered."""
    given = run.config.document.values.get("chat_template_kwargs") or {}
    entries = run.config.entries
    return {**given, **(getattr(entries[0].options, "chat_template_kwargs", {}) if entries else {})}


def sample(run: Run, policy: Policy, settings: SampleSettings, when: str, step: int) -> None:
    """Generate one completion for each prompt, on all processes, and write them down on the main one.

    Every round has the seed of the run, so what differs between rounds is the model.
    """
    questions = asked(run, settings)
    if not questions:
        run.note("samples", "none: no example has a prompt; write sample_prompts: [...]")
        return
    completions = policy.generate(
        [question.prompt for question in questions],
        seed=run.core.seed,
        max_new_tokens=settings.generation_max_new_tokens,
        temperature=settings.generation_temperature,
        top_p=settings.generation_top_p,
    )
    if run.world.main:
        decode = run.tokenizer.decode
        rounds = zip(questions, completions, strict=True)
        said = [(decode(q.prompt), decode(c, skip_special_tokens=True), q.row) for q, c in rounds]
        lines = ({"when": when, "step": step, "prompt": p, "completion": c, **row} for p, c, row in said)
        append(run.output_dir / PATH, lines)
