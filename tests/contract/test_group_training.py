"""Training on groups: the ledger counts every sequence once, samplers and trainers agree, and a killed run resumes."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from tunesmith_engine.rounds.build import build_rounds
from tunesmith_engine.rounds.ledger import Bucket
from tunesmith_engine.rounds.rollout import Rollouts

from tests import group_steps, one_step, tiny
from tests.contract.fakes import in_fork
from tunesmith import Reward, Run, collate

STALE = Path(__file__).parent / "plugins/stale.py"
SCORES = '''
import zlib
from tunesmith import Plugin, hookimpl
plugin = Plugin(offers={"rewards": {"one": None, "two": None, "rare": None}})
def draw(ids, name):
    """Return a number in [0, 1), the same for the same tokens."""
    return zlib.crc32(f"{name} {list(ids)}".encode()) / 2**32
@hookimpl
def score_rewards(name, groups, options):
    """Return scores, equal ones for a share of the prompts, and None for a share of the completions."""
    return [[score(name, g.prompt.prompt, c.tokens.tolist(), **options) for c in g.completions] for g in groups]
def score(name, prompt, ids, equal=0.0, none=0.0):
    if name == "rare":
        return float(ids[0] % 4 == 0)
    if draw(ids, name + "none") < none:
        return None
    return 0.1 if draw(prompt, name) < equal else round(draw(ids, name), 1)
'''


class Staled:
    """A run whose completions come from the generator of stale.py, and whose rollout a test chooses."""

    def __init__(self, folder: Path):
        (folder / "drawn.py").write_text(SCORES)
        trl = {"loss_type": "bnpo", "num_iterations": 2}
        path = group_steps.config(folder, trl=trl, plugins=["./scores.py", "./drawn.py", str(STALE)])
        self.run, self.policy = one_step.started(path)
        assert self.run.rollout is not None
        self.shares: dict[str, float] = {}  # the options of the rewards, which are read at each call
        rewards = tuple(Reward(name, weight, self.shares) for name, weight in (("one", 0.1), ("two", 0.7)))
        self.spec = dataclasses.replace(self.run.rollout, generator="stale", rewards=rewards)

    def rounds(self, equal: float, none: float, **changes: Any) -> Rollouts:
        """Return rounds in which these shares of prompts and completions have equal rewards and none."""
        self.shares.update(equal=equal, none=none)
        self.spec = dataclasses.replace(self.spec, **changes)
        rounds = build_rounds(self.run, self.policy)
        assert isinstance(rounds, Rollouts)
        return rounds


@pytest.fixture(scope="module")
def staled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staled]:
    staled = Staled(tmp_path_factory.mktemp("stale"))
    declared: Any = Run.rollout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "rollout", property(lambda run: staled.spec if run is staled.run else declared.fget(run)))
        yield staled


def trained_of(round_: Any) -> tuple[int, int]:
    """Return the sequences of a round that are trained on, and those that are in its steps."""
    segments = [s for packs in round_.minibatches for pack in packs for e in pack for s in e.segments[1:]]
    return sum(bool(s.weights.any()) for s in segments), len(segments)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dead=st.sampled_from(["keep", "drop", "redraw"]),
    oversample=st.sampled_from([1.0, 1.5, 2.3]),
    redraws=st.integers(1, 3),
    truncated=st.sampled_from(["train", "mask"]),
    staleness=st.sampled_from([None, 0, 1, 2]),
    size=st.sampled_from([2, 4, 8]),
    shares=st.tuples(st.sampled_from([0.0, 0.4, 0.9, 1.0]), st.sampled_from([0.0, 0.3, 0.8, 1.0])),
)
def test_each_sampled_sequence_is_in_one_bucket(staled: Staled, **case: Any) -> None:
    """Whatever rewards, ends and versions are, and whatever becomes of dead groups; masked ones have no weight."""
    rounds = staled.rounds(
        *case["shares"], dead_groups=case["dead"], oversample=case["oversample"], redraws=case["redraws"],
        truncated=case["truncated"], max_staleness=case["staleness"], completions=case["size"],
    )  # fmt: skip
    before = Counter[str]()
    for _ in range(3):
        with torch.no_grad():
            round_ = rounds.next()
        counts = Counter(dataclasses.asdict(rounds.ledger))
        new = counts - before
        assert rounds.ledger.balanced and new["sequences"] == sum(new[bucket] for bucket in get_args(Bucket))
        assert new["sequences"] == new["prompts"] * case["size"]
        trained, present = trained_of(round_)
        # A completion that was aborted before its first token is trained on, and has none.
        empty = sum(len(s.tokens) == 0 for p in round_.minibatches for b in p for e in b for s in e.segments[1:])
        assert trained <= new["trained"] <= trained + empty
        kept_dead = new["dead"] if case["dead"] == "drop" else 0
        assert 16 - kept_dead <= present <= 16
        assert case["dead"] == "drop" or new["trained"] + new["truncated"] + new["abstained"] + new["stale"] == 16
        assert case["dead"] == "redraw" or case["oversample"] > 1 or not new["over_budget"]
        assert case["dead"] != "keep" or not new["dead"]
        check_masked(round_)
        before = counts


def check_masked(round_: Any) -> None:
    """Check that no scored token of a step is of a masked completion, and that all values are finite."""
    for packs in round_.minibatches:
        for pack in packs:
            batch = collate(pack)
            weights = [s.weights for e in pack for s in e.segments[1:]]
            assert batch.counts["tokens"] == sum(np.count_nonzero(w) for w in weights)
            assert all(bool(batch.columns[name].isfinite().all()) for name in ("advantage", "old_logps"))


def test_each_bucket_is_reached(staled: Staled) -> None:
    """Otherwise, the property above would hold for nothing."""
    rounds = staled.rounds(
        0.4, 0.4, dead_groups="redraw", oversample=2.0, truncated="mask", max_staleness=1, completions=4, redraws=2
    )
    with torch.no_grad():
        for _ in range(6):
            rounds.next()
    assert all(getattr(rounds.ledger, bucket) > 0 for bucket in get_args(Bucket))


def test_masked_completions_have_no_gradient(tmp_path: Path) -> None:
    """Other tokens in a masked completion change no gradient; in one that is trained on, they do."""
    gradients = {}
    for name, index, mask in (("as it is", None, True), ("masked", 0, True), ("trained", 0, False)):
        trl = {"mask_truncated_completions": mask, "scale_rewards": "none", "beta": 0.1}
        run, policy = one_step.started(group_steps.config(tmp_path, trl=trl))
        groups = group_steps.groups_of(run)
        ends = [c.finish_reason for c in groups[0].completions]
        assert {*ends} == {"length", "stop"}
        if index is not None:
            tokens = groups[0].completions[ends.index("length")].tokens
            tokens[[0, 2]] = tokens[[2, 0]]  # the reward is a function of their sum
        gradients[name] = group_steps.step(run, policy, group_steps.steps_of(run, policy, groups)[0])[1]
    assert one_step.largest_difference(gradients["masked"], gradients["as it is"]) < 1e-6
    assert one_step.largest_difference(gradients["trained"], gradients["as it is"]) > 1e-3


SAMPLINGS = {
    "temperature": {"temperature": 0.7}, "hot": {"temperature": 1.6}, "top_p": {"top_p": 0.8},
    "top_k": {"top_k": 5, "temperature": 0.9}, "min_p": {"min_p": 0.1},
    "all": {"temperature": 1.3, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
}  # fmt: skip


def renormalized(logits: Tensor, trl: dict[str, Any]) -> Tensor:
    """Return log-probabilities [n, V] at the temperature, over the tokens that top_k, top_p and min_p keep."""
    values, ids = (logits / trl.get("temperature", 1.0)).sort(dim=-1, descending=True, stable=True)
    values[:, trl.get("top_k") or values.shape[-1] :] = float("-inf")
    mass = values.softmax(-1)
    dropped = (mass.cumsum(-1) - mass >= trl.get("top_p", 1.0)) | (mass < trl.get("min_p", 0.0) * mass[:, :1])
    values = values.masked_fill(dropped, float("-inf"))
    return torch.empty_like(values).scatter_(-1, ids, values).log_softmax(-1)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_log_probabilities_of_the_sampler_are_those_of_the_trainer(name: str, tmp_path: Path) -> None:
    """The trainer's are at the same temperature. Where a part of the vocabulary is kept, they are renormalized here."""
    trl = SAMPLINGS[name]
    run, policy = one_step.started(group_steps.config(tmp_path, trl={"num_iterations": 2, **trl}))
    rounds = build_rounds(run, policy)
    with torch.no_grad():
        round_ = rounds.next()
        for pack in (pack for packs in round_.minibatches for pack in packs):
            batch = collate(pack)
            out = policy(batch)
            sampled, old = batch.columns["sampler_logps"], batch.columns["old_logps"]
            assert (out.logps - old).abs().max() < 1e-5
            hidden = policy.language_model.hidden(batch, (), False).last[batch.score_from]
            logps = renormalized(policy.language_model.logits(hidden).double(), trl)
            drawn = logps.gather(-1, batch.target_ids[:, None])[:, 0]
            assert (drawn - sampled).abs().max() < 1e-5
            cut = trl.keys() - {"temperature"}
            assert (float((out.logps - sampled).abs().max()) < 1e-5) == (not cut)


KILLED: dict[str, Any] = {
    "loss_type": "dapo", "num_iterations": 2, "steps_per_generation": 4, "beta": 0.1, "sync_ref_model": True,
    "ref_model_sync_steps": 2, "use_adaptive_entropy": True, "entropy_target": 5.738, "entropy_coef": 0.1,
    "dead_groups": "redraw", "oversample": 1.5, "reward_funcs": ["rare"], "temperature": 1.5, "epsilon": 0.1,
}  # fmt: skip
KINDS = ("generating", "scoring", "training", "saving")


def train_until(path: Path, event: int, log: Path) -> None:
    """Train, and die at an event: the draw of a token, a reward, the loss of a micro-batch, the rename of a file."""
    from tunesmith_engine.model.sampling import Sampler
    from tunesmith_engine.rounds import rewards
    from tunesmith_engine.training import loop

    events: list[str] = []

    def counted(kind: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            events.append(kind)
            if len(events) == event:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    Sampler.draw = counted("generating", Sampler.draw)  # type: ignore[method-assign]
    rewards.score = counted("scoring", rewards.score)
    loop.combine = counted("training", loop.combine)
    os.replace = counted("saving", os.replace)
    tiny.train(path, "resume_from_checkpoint=auto")
    log.write_text(" ".join(events))


def lines_of(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the numbers of each step, without speeds and without what was read from the journal."""
    apart = ("speed/", "tokens_per_second", "rollout/kept", "time", "memory")
    return {
        line["step"]: {name: value for name, value in line.items() if not name.startswith(apart)}
        for line in tiny.metrics(folder)
    }


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_ends_with_the_same_weights_and_ledger(tmp_path: Path) -> None:
    """12 random instants, three of each kind: weights, losses and ledger are equal bit for bit."""
    tiny.model_folder(tmp_path / "model")
    folder = tmp_path / "reference"
    folder.mkdir()
    (folder / "drawn.py").write_text(SCORES)
    keys = {"plugins": ["./scores.py", "./drawn.py"], "max_steps": 10, "save_steps": 3}
    path = group_steps.config(folder, trl=KILLED, **keys)
    assert in_fork(lambda: train_until(path, 0, folder / "events")) == 0
    expected, lines = tiny.weights(folder / "out"), lines_of(folder / "out")
    last = lines[10]
    assert len(lines) == 10 and last["rollout/dead"] > 0 and last["rollout/over_budget"] > 0
    assert {line.get("entropy_bonus", 0.0) != 0.0 for line in lines.values()} == {True, False}
    assert any(line["clip_ratio/region_mean"] > 0 for line in lines.values())
    events = (folder / "events").read_text().split()
    draw = random.Random(5)
    for kind in KINDS:
        places = [number for number, own in enumerate(events, 1) if own == kind]
        for event in draw.sample(places[1:], 3):
            resumed = tmp_path / f"{kind}-{event}"
            own = group_steps.config(folder, f"{kind}-{event}", trl=KILLED, **keys)
            values = yaml.safe_load(own.read_text()) | {"output_dir": str(resumed)}
            own.write_text(yaml.safe_dump(values))
            assert in_fork(lambda: train_until(own, event, folder / "again")) == -signal.SIGKILL  # noqa: B023
            assert in_fork(lambda: train_until(own, 0, folder / "again")) == 0  # noqa: B023
            result = tiny.weights(resumed)
            assert all(torch.equal(result[name], value) for name, value in expected.items()), (kind, event)
            assert lines_of(resumed) == lines, (kind, event)
