"""The policy generates: its samples follow its distribution, their log-probabilities are those of training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from tunesmith_engine.model.chunks import chunks_of
from tunesmith_engine.model.policy_generator import PolicyGenerator

from tests import tiny
from tests.contract.test_sampling import SAMPLINGS, chi_square, kept
from tunesmith import (
    Batch,
    Completion,
    Example,
    Hidden,
    LanguageModel,
    NumericalError,
    PluginError,
    Policy,
    Request,
    Sampling,
    build_policy,
    collate,
)
from tunesmith.api import start
from tunesmith.config.load import load_config

GREEDY = Sampling(temperature=0.0)


class Plain(LanguageModel):
    """A plain torch model of one attention layer, which implements nothing for generation."""

    def __init__(self) -> None:
        self.module = nn.ModuleDict({"tokens": nn.Embedding(320, 16), "positions": nn.Embedding(128, 16)})
        for parameter in self.module.parameters():
            nn.init.normal_(parameter)

    def hidden(self, batch: Batch, layers: Sequence[int], router: bool) -> Hidden:
        x = self.module["tokens"](batch.input_ids[0]) + self.module["positions"](batch.position_ids[0])
        scores = (x @ x.T / 4).masked_fill(~batch.tree_mask.visible(), float("-inf"))
        return Hidden(scores.softmax(-1) @ x + x, {})

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.module["tokens"].weight.T / 2  # type: ignore[operator, no-any-return]

    def plain_logits(self, tokens: Tensor) -> Tensor:
        return self.logits(self.hidden(collate([Example.text(tokens.numpy())]), (), False).last)


def build(folder: Path, plain: bool, **keys: Any) -> Policy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Plain() if plain else None
    path = tiny.sft_config(folder, **keys)
    policy = build_policy(start(load_config(path), tokenizer=tiny.tokenizer(), model=model))
    policy.model.eval()
    return policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return build(tmp_path_factory.mktemp("cached"), plain=False)


@pytest.fixture(scope="module", params=["cached", "plain"])
def any_policy(request: pytest.FixtureRequest, policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy if request.param == "cached" else build(tmp_path_factory.mktemp("plain"), plain=True)


def tokens(completions: Sequence[Completion]) -> list[list[int]]:
    return [completion.tokens.tolist() for completion in completions]


def test_greedy_completions_are_the_likeliest_tokens_of_successive_forwards(any_policy: Policy) -> None:
    prompts = [[5], [40, 41, 42, 43, 44, 45, 46, 47], [7, 8, 9]]
    groups = any_policy.generate([Request(prompt, 6, n=2, sampling=GREEDY) for prompt in prompts])
    for prompt, group in zip(prompts, groups, strict=True):
        assert tokens(group)[0] == tokens(group)[1]
        sequence = list(prompt)
        for token in tokens(group)[0]:
            with torch.no_grad():
                assert int(any_policy.language_model.plain_logits(torch.tensor(sequence))[-1].argmax()) == token
            sequence.append(token)


def test_logps_are_those_of_the_distribution_that_the_training_forward_gives(any_policy: Policy) -> None:
    prompts = [[5], [40, 41, 42, 43, 44, 45, 46, 47], [7, 8, 9], [7, 8, 9]]
    requests = [
        Request(prompt, 4 + number, n=3, sampling=sampling, seed=(number,))
        for number, sampling in enumerate(SAMPLINGS)
        for prompt in prompts
    ]
    language_model = any_policy.language_model
    for request, group in zip(requests, any_policy.generate(requests), strict=True):
        batch = collate([Example.branches(request.prompt, tokens(group))])
        with torch.no_grad():
            logits = language_model.logits(language_model.hidden(batch, (), False).last[batch.score_from])
        expected = kept(logits, request.sampling).gather(-1, batch.target_ids[:, None])[:, 0]
        logps = torch.from_numpy(np.concatenate([completion.logps for completion in group]))
        assert logps.dtype == torch.float32
        assert torch.allclose(logps.double(), expected, atol=1e-5), request.sampling


def test_first_tokens_of_many_samples_follow_the_model(policy: Policy) -> None:
    (group,) = policy.generate([Request([5, 6, 7], 1, n=1500, seed=(3,))])
    with torch.no_grad():
        exact = policy.language_model.plain_logits(torch.tensor([5, 6, 7]))[-1].softmax(-1).double().numpy()
    counts = np.bincount([row[0] for row in tokens(group)], minlength=len(exact))
    common = exact * len(group) > 8
    folded = [np.append(values[common], values[~common].sum()) for values in (counts, exact)]
    assert common.sum() > 5 and chi_square(*folded) < 2.5


def test_random_numbers_belong_to_a_completion_and_not_to_its_batch(policy: Policy) -> None:
    one, other = Request([5, 6, 7], 8, n=3, seed=(7, 1)), Request([9] * 20, 8, n=2, sampling=GREEDY)
    (alone,) = policy.generate([one])
    _, again = policy.generate([other, one])
    (fewer,) = policy.generate([Request([5, 6, 7], 8, n=2, seed=(7, 1))])
    assert tokens(alone) == tokens(again) and tokens(fewer) == tokens(alone)[:2]
    assert len({tuple(row) for row in tokens(alone)}) == 3
    (different,) = policy.generate([Request([5, 6, 7], 8, n=3, seed=(7, 2))])
    assert tokens(different) != tokens(alone)


def test_requests_of_one_batch_have_sampling_and_lengths_of_their_own(policy: Policy) -> None:
    requests = [
        Request([5, 6], 2, sampling=GREEDY), Request([5, 6], 9, sampling=Sampling(top_k=1)),
        Request([5, 6, 7, 8], 5, n=2, sampling=Sampling(3.0)),
    ]  # fmt: skip
    together = policy.generate(requests)
    apart = [policy.generate([request])[0] for request in requests]
    assert [tokens(group) for group in together] == [tokens(group) for group in apart]
    lengths = [[len(row) for row in tokens(group)] for group in together]
    assert lengths[0] == [2] and tokens(together[1])[0][:2] == tokens(together[0])[0]
    for request, group in zip(requests, together, strict=True):
        for completion in group:
            ended = completion.tokens[-1] == tiny.tokenizer().eos_token_id
            assert completion.finish_reason == ("stop" if ended else "length")
            assert ended or len(completion.tokens) == request.max_new_tokens


def test_a_completion_ends_with_the_end_token(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    (group,) = policy.generate([Request([5, 6, 7], 12, n=4, sampling=Sampling(2.0))])
    second = int(group[1].tokens[4])
    monkeypatch.setattr(policy.language_model, "end_tokens", frozenset([second]))
    (shorter,) = policy.generate([Request([5, 6, 7], 12, n=4, sampling=Sampling(2.0))])
    for before, after in zip(tokens(group), tokens(shorter), strict=True):
        assert after == before[: before.index(second) + 1 if second in before else None]
    assert shorter[1].finish_reason == "stop" and tokens(shorter)[1][-1] == second


def test_training_is_not_disturbed(policy: Policy) -> None:
    policy.model.train()
    first = next(module for name, module in policy.model.named_modules() if name.endswith("self_attn"))
    first.eval()
    state = torch.get_rng_state()
    policy.generate([Request([5, 6, 7], 3)])
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    assert policy.model.training and not first.training
    policy.model.eval()


def test_chunks_depend_on_the_requests_alone_and_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith_engine.model.chunks.CHUNK_TOKENS", 100)
    requests = {handle: Request([1] * length, 10, n=n) for handle, (length, n) in enumerate([(20, 3), (5, 1), (20, 4)])}
    for ragged in (True, False):
        chunks = chunks_of(requests, ragged)
        sizes = [max(len(p.request.prompt) for p in c) * len(c) + sum(p.count * 10 for p in c) for c in chunks]
        assert max(sizes) <= 100
        numbers = Counter((p.handle, k) for c in chunks for p in c for k in p.numbers)
        assert numbers == Counter({(h, k): 1 for h, r in requests.items() for k in range(r.n)})
        assert ragged or all(len({len(p.request.prompt) for p in c}) == 1 for c in chunks)
        assert len(chunks) == 2 + (not ragged)
    assert [piece.count for chunk in chunks_of({0: Request([1] * 200, 10, n=2)}, True) for piece in chunk] == [1, 1]


def test_requests_are_collected_chunk_by_chunk_or_aborted(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith_engine.model.chunks.CHUNK_TOKENS", 17)
    generator = PolicyGenerator(policy)
    handles = generator.submit([Request([1, 2] * (number + 1), 8, n=2) for number in range(3)])
    assert list(generator.collect(handles, wait=False)) == []  # the first two chunks have one completion each
    assert generator.push(policy) == 1
    first = generator.collect(handles, wait=False)
    assert list(first) == handles[:1] and len(first[handles[0]]) == 2
    assert [set(c.versions.tolist()) for c in first[handles[0]]] == [{0}, {1}]
    generator.abort(handles[2:])
    rest = generator.collect(handles[1:])
    assert [[c.finish_reason for c in rest[h]] for h in handles[2:]] == [["abort", "abort"]]
    assert all(len(c.tokens) == 0 for c in rest[handles[2]]) and all(len(c.tokens) for c in rest[handles[1]])
    with pytest.raises(PluginError, match="unknown or collected handles"):
        generator.collect(handles)
    assert all(c.weights.all() and c.sampled.all() and len(c.weights) == len(c.tokens) for c in rest[handles[1]])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompt": []}, "an empty prompt"), ({"n": 0}, "n below 1"), ({"max_new_tokens": 0}, "max_new_tokens below 1"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p outside"), ({"stop": ("",)}, "an empty stop string"),
        ({"media": (b"",)}, "media"), ({"sampling": Sampling(-1.0)}, "negative temperature"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_completed_are_refused(policy: Policy, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(PluginError, match=problem):
        policy.generate([Request(**({"prompt": [1], "max_new_tokens": 1} | changes))])


def test_logits_that_are_not_finite_are_an_error(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy.language_model, "logits", lambda hidden: torch.full((len(hidden), 320), float("nan")))
    for sampling in (Sampling(), GREEDY, Sampling(top_p=0.5)):
        with pytest.raises(NumericalError, match="not finite"):
            policy.generate([Request([1], 2, sampling=sampling)])


def test_check_compares_with_the_training_forward(any_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    any_policy.generator.check()
    decoder = any_policy.language_model.decoder

    def wrong(*arguments: Any) -> Any:
        built = decoder(*arguments)
        prefill = built.prefill
        monkeypatch.setattr(built, "prefill", lambda: prefill() * 1.1)
        return built

    monkeypatch.setattr(any_policy.language_model, "decoder", wrong)
    with pytest.raises(PluginError, match="differ from those of training"):
        any_policy.generator.check()


def test_a_completion_ends_with_a_stop_string_and_contains_it(policy: Policy) -> None:
    (group,) = policy.generate([Request([5, 6, 7], 30, n=4, sampling=Sampling(1.5))])
    decode = tiny.tokenizer().decode
    parts = [decode(c.tokens[at : at + 2].tolist()) for c in group for at in range(5, len(c.tokens))]
    stop = next(part for part in parts if part.isascii() and len(part) > 1)
    (stopped,) = policy.generate([Request([5, 6, 7], 30, n=4, sampling=Sampling(1.5), stop=("nothing", stop))])
    reasons = []
    for before, after in zip(group, stopped, strict=True):
        length = len(after.tokens)
        assert after.tokens.tolist() == before.tokens[:length].tolist()
        if stop in decode(before.tokens.tolist()):
            assert stop in decode(after.tokens.tolist()) and stop not in decode(after.tokens[:-1].tolist())
            reasons.append(after.finish_reason)
        else:
            assert length == len(before.tokens)
    assert reasons and set(reasons) == {"stop"}


PLUGIN = """
import json
from tunesmith import Plugin, Request, Sampling, hookimpl
plugin = Plugin()
@hookimpl
def on_start(run, policy):
    prompts = [[5], [40, 41, 42, 43, 44], [7, 8, 9]]
    requests = [Request(p, 4 + 3 * i, 2, Sampling(1.5), seed=(i,)) for i, p in enumerate(prompts)]
    own = requests if run.world.size == 1 else [requests, []][run.world.rank]
    groups = policy.generate(own)
    groups = policy.generate(requests[run.world.rank :: run.world.size] if run.world.size > 1 else requests[:2]), groups
    values = [[[c.tokens.tolist() for c in g] for g in part] for part in groups]
    (run.output_dir / f"groups-{run.world.size}-{run.world.rank}.json").write_text(json.dumps(values))
"""


@pytest.mark.slow
def test_processes_with_unequal_requests_generate_what_one_process_does(tmp_path: Path) -> None:
    """With data parallelism and with sharding, where every process has to run the same number of forwards."""
    (tmp_path / "writes.py").write_text(PLUGIN)
    keys: dict[str, Any] = {"plugins": ["./writes.py"], "max_steps": 1, "gradient_accumulation_steps": 2}
    half = keys | {"gradient_accumulation_steps": 1}
    tiny.train(tiny.sft_config(tmp_path, name="one.yaml", **keys, output_dir=str(tmp_path / "one")))
    ways = {"parallel": {}, "sharded": {"fsdp_config": {}}}
    paths = [
        tiny.sft_config(tmp_path, name=f"{way}.yaml", **half, **more, output_dir=str(tmp_path / way))
        for way, more in ways.items()
    ]
    tiny.torchrun(2, *paths)
    _, every = json.loads((tmp_path / "one/groups-1-0.json").read_text())
    losses = {way: tiny.metrics(tmp_path / way)[0]["loss"] for way in ("one", *ways)}
    for way in ways:
        (own, first), (others, none) = (
            json.loads((tmp_path / way / f"groups-2-{rank}.json").read_text()) for rank in (0, 1)
        )
        assert first == every and none == [], way
        assert own == every[::2] and others == every[1::2], way
        assert losses[way] == pytest.approx(losses["one"], abs=1e-5)
