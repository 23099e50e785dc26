"""Choose prompts and generate one round of completions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunesmith_samples.lines import append
from tunesmith_samples.readable import markers_of, readable

if TYPE_CHECKING:
    from tunesmith import Example, Policy, Run, Segment
    from tunesmith_samples import SampleSettings

PATH = "samples.jsonl"
SEARCHED = 1000  # examples searched for prompts, because plain text may have millions without any


class Question(NamedTuple):
    """A prompt as token ids, and the answers in its row, which samples.jsonl has in addition to the completion."""

    prompt: list[int]
    answers: dict[str, Any]


def questions_of(run: Run, settings: SampleSettings) -> list[Question]:
    """Return the prompts, which are the same in every process and every round.

    Prompts taken from examples are distinct and not empty.
    """
    if settings.sample_prompts:
        from tunesmith import prompt_tokens

        return [Question(prompt_tokens(run, text), {}) for text in settings.sample_prompts]
    for examples in (run.data.eval, run.data.train) if run.data else ():
        by_prompt: dict[tuple[int, ...], Example] = {}
        for example in itertools.islice(examples or (), SEARCHED):
            if prompt := example.prompt:
                by_prompt.setdefault(tuple(prompt), example)  # several pairs may share a prompt
            if len(by_prompt) == settings.num_generation_samples:
                break
        if by_prompt:
            return [Question(list(prompt), _answers(run, example)) for prompt, example in by_prompt.items()]
    return []


def _answers(run: Run, example: Example) -> dict[str, Any]:
    """Return the answers in the row of an example: chosen and rejected of a pair, or a labelled answer."""
    kind = run.config.entries[example.origin[0]].row_kind
    if kind == "pair" and len(example.segments) == 3:
        chosen, rejected = (_answer_text(run, segment) for segment in example.segments[1:])
        return {"chosen": chosen, "rejected": rejected}
    if kind == "labelled" and "label" in example.columns:
        return {"answer": _answer_text(run, example.segments[1]), "label": bool(example.columns["label"])}
    return {}


def _answer_text(run: Run, segment: Segment) -> str:
    """Return the text of a completion, starting at its first trained token."""
    trained = np.flatnonzero(segment.weights)
    first = trained[0] if len(trained) else len(segment.tokens)
    return str(run.tokenizer.decode(segment.tokens[first:].tolist(), skip_special_tokens=True))


def sample(run: Run, policy: Policy, settings: SampleSettings, when: str, step: int) -> list[dict[str, Any]]:
    """Generate one completion per prompt on all processes. The main one writes them to samples.jsonl and returns them.

    Each round uses the seed of the run, so rounds differ only because of the model.
    """
    questions = questions_of(run, settings)
    if not questions:
        run.note("samples", "none, because no example has a prompt; write sample_prompts: [...]")
        return []
    from tunesmith import Request, Sampling

    sampling = Sampling(settings.generation_temperature, settings.generation_top_p)
    requests = [
        Request(q.prompt, settings.generation_max_new_tokens, sampling=sampling, seed=(run.core.seed, number))
        for number, q in enumerate(questions)
    ]
    run.progress("generating samples")
    completions = policy.generate(requests)
    run.progress("")
    if not run.world.main:
        return []
    decode, markers = run.tokenizer.decode, markers_of(run.tokenizer)
    prompts = [decode(question.prompt) for question in questions]
    lines = [
        {
            "when": when,
            "step": step,
            "prompt": prompt,
            "text": readable(prompt, markers),
            "completion": decode(completion.tokens.tolist(), skip_special_tokens=True),
            **question.answers,
        }
        for prompt, question, (completion,) in zip(prompts, questions, completions, strict=True)
    ]
    append(run.output_dir / PATH, lines)
    return lines
