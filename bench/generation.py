"""Compare generation with transformers' generate: 8 samples of 64 tokens for a prompt of 256, 256 x 4 with 4 heads.

Both draw from the full distribution, from the 50 likeliest tokens, and from a nucleus. The *bound* counts only the head
and the draw, which no scheme avoids: it is the ratio that would be reached if all else took no time. The decoder that
repeats the prompt's keys for each row, which models with recurrent layers use, is measured as well.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import GenerationConfig

from bench.pairs import in_turn, ratio
from tests import tiny
from tunesmith import Policy, Request, Sampling, build_policy

PROMPT, COMPLETION, SAMPLES = 256, 64, 8
SIZES = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "head_dim": 64, "num_key_value_heads": 4}
SAMPLINGS = {"full": Sampling(), "top_k 50": Sampling(top_k=50), "top_p 0.95": Sampling(top_p=0.95)}
BARS = {4096: "bar 1.5", 50_304: "no bar"}


def build(folder: Path, vocabulary: int) -> Policy:
    """Return a policy without an end token, so that all completions have the same length."""
    model = tiny.model_folder(folder / f"model-{vocabulary}", "llama", vocab_size=vocabulary, **SIZES)
    data = tiny.write_rows(folder / "data.jsonl", tiny.rows("conversation", 4))
    datasets = [{"path": str(data), "type": "chat_template"}]
    run = tiny.start(
        tiny.write_config(folder, base_model=str(model), datasets=datasets, output_dir=str(folder / "out"))
    )
    policy = build_policy(run)
    run.tokenizer = SimpleNamespace(eos_token_id=None)
    policy.language_model.end_tokens = frozenset()
    policy.model.eval()
    return policy


def prompts(vocabulary: int) -> Callable[[], list[int]]:
    """Return a function that returns another prompt each time."""
    draw = random.Random(0)
    return lambda: [draw.randrange(vocabulary) for _ in range(PROMPT)]


def timed(call: Callable[[], Any]) -> float:
    started = time.process_time()
    with torch.no_grad():
        call()
    return time.process_time() - started


def competitors(policy: Policy, vocabulary: int, sampling: Sampling) -> dict[str, Callable[[], float]]:
    """Return functions that generate once and return the CPU seconds: ours, both decoders, transformers', the draw."""
    model: Any = policy.model
    language_model: Any = policy.language_model
    prompt = prompts(vocabulary)
    options = GenerationConfig(
        do_sample=True, max_new_tokens=COMPLETION, num_return_sequences=SAMPLES, temperature=sampling.temperature,
        top_k=sampling.top_k, top_p=sampling.top_p, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip

    def ours(ragged: bool) -> None:
        language_model.ragged_prompts = ragged
        ((first, *_),) = policy.generate([Request(prompt(), COMPLETION, SAMPLES, sampling)])
        assert len(first.tokens) == COMPLETION

    def theirs() -> None:
        ids = torch.tensor([prompt()])
        model.generation_config = GenerationConfig()
        with language_model.attending(language_model.own_attention):
            out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        assert out.shape == (SAMPLES, PROMPT + COMPLETION)

    def draws() -> None:
        from tunesmith_engine.model.sampling import Sampler

        hidden, sampler = torch.randn(SAMPLES, SIZES["hidden_size"]), Sampler([sampling] * SAMPLES, policy.run.device)
        for _ in range(COMPLETION):
            sampler.draw(language_model.logits(hidden), torch.rand(SAMPLES, dtype=torch.float64))

    calls = {"ours": partial(ours, True), "repeating": partial(ours, False), "transformers": theirs, "draws": draws}
    return {name: partial(timed, call) for name, call in calls.items()}


def main(rounds: int = 7) -> None:
    with tempfile.TemporaryDirectory() as name:
        for vocabulary, bar in BARS.items():
            policy = build(Path(name), vocabulary)
            for kind, sampling in SAMPLINGS.items():
                seconds = in_turn(competitors(policy, vocabulary, sampling), rounds)
                own, draws, theirs = (statistics.median(seconds[n]) for n in ("ours", "draws", "transformers"))
                print(f"vocabulary {vocabulary:,}, {kind}: {own:.3f} s against {theirs:.3f} s of transformers")
                for other, goal in (("transformers", bar), ("repeating", "no bar")):
                    median, low, high = ratio(seconds[other], seconds["ours"])
                    print(f"  {other} / ours {median:.2f} [{low:.2f}, {high:.2f}] ({goal})")
                print(
                    f"  head and draws {draws:.3f} s: bound {theirs / draws:.2f}, share {draws / own:.2f}", flush=True
                )
