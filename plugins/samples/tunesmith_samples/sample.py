"""Which prompts are sampled, and one round of completions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from tunesmith_samples.lines import append

if TYPE_CHECKING:
    from tunesmith import Policy, Run
    from tunesmith_samples import SampleSettings

PATH = "samples.jsonl"
LOOKED_AT = 1000  # examples searched for prompts: data without any (plain text) may have millions


def prompts(run: Run, settings: SampleSettings) -> list[list[int]]:
    """The prompts as token ids, the same in every process and every round; none are empty."""
    if settings.sample_prompts:
        return [_tokens(run.tokenizer, text) for text in settings.sample_prompts]
    for examples in (run.data.eval, run.data.train) if run.data else ():
        found = (example.prompt for example in itertools.islice(examples or (), LOOKED_AT))
        chosen = list(itertools.islice(filter(None, found), settings.num_generation_samples))
        if chosen:
            return chosen
    return []


def _tokens(tokenizer: Any, text: str) -> list[int]:
    if getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": text}]
        return list(tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True, return_dict=False))
    return list(tokenizer(text).input_ids)


def sample(run: Run, policy: Policy, settings: SampleSettings, when: str, step: int) -> None:
    """Generate one completion for each prompt, on all processes, and write them down on the main one.

    Every round has the seed of the run, so what differs between rounds is the model.
    """
    asked = prompts(run, settings)
    if not asked:
        run.note("samples", "none: no example has a prompt; write sample_prompts: [...]")
        return
    completions = policy.generate(
        asked,
        seed=run.core.seed,
        max_new_tokens=settings.generation_max_new_tokens,
        temperature=settings.generation_temperature,
        top_p=settings.generation_top_p,
    )
    if run.world.main:
        decode = run.tokenizer.decode
        append(
            run.output_dir / PATH,
            [
                {"when": when, "step": step, "prompt": decode(p), "completion": decode(c, skip_special_tokens=True)}
                for p, c in zip(asked, completions, strict=True)
            ],
        )
