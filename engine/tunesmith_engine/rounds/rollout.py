"""Rounds of an online method: draw prompts, generate groups, score them, redraw dead ones, split into minibatches."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tunesmith.errors import PluginError
from tunesmith.plugins.plugin import Needs
from tunesmith.plugins.rollout import Rollout
from tunesmith.run import Purpose, Run
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.model.generation import Completion, Generator
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.rounds import rewards
from tunesmith_engine.rounds.constant import Constants
from tunesmith_engine.rounds.groups import Group, Prompt, sampling_of, set_advantages
from tunesmith_engine.rounds.journal import JournaledGenerator
from tunesmith_engine.rounds.ledger import Ledger
from tunesmith_engine.rounds.minibatches import prompts_per_round, split
from tunesmith_engine.rounds.rounds import Round, Rounds
from tunesmith_engine.rounds.statistics import statistics, table
from tunesmith_engine.rounds.stored import StoredRounds
from tunesmith_engine.rounds.streamed import StreamedRounds

HELD_OUT = 2**31
"""A number in the seed of held-out prompts, where prompts that are trained on have their epoch."""


class Rollouts(Rounds):
    """The rounds of an online method.

    All processes draw the same prompts, each generates its share of the groups, and then all have all groups. What a
    step trains on is distributed by length, however long the completions are.
    """

    def __init__(self, run: Run, policy: Policy | None, spec: Rollout):
        super().__init__(run)
        assert run.data is not None
        self.policy, self.spec, self.steps = policy, spec, spec.steps
        self.prompts_per_round = prompts_per_round(run, spec)
        self.source: StoredRounds | StreamedRounds
        if run.data.train is not None:
            self.source = StoredRounds(run, run.data.train, packed=False)
            self.per_epoch = math.ceil(len(self.source.packs_of(0)) / self.prompts_per_round)
            for fields in run.data.train.fields or ():
                sampling_of(fields)
        else:
            self.source = StreamedRounds(run, packed=False)
        self.drawn = 0
        self.ledger = Ledger()
        self.constants = Constants()
        self.watch = Stopwatch()
        self._over = 0  # rounds before this number are over in the newest checkpoint
        if policy is not None:
            self.generator = build_generator(run, policy, spec)

    def next(self) -> Round:
        """Generate the next round. Raises PluginError for answers of plugins that have a wrong shape."""
        run, spec, ledger = self.run, self.spec, self.ledger
        assert self.policy is not None
        started = time.perf_counter()
        if run.world.main:
            self.generator.journal.forget(self._over)
        self.generator.begin(self.number)
        self.watch.clear()
        version = self.generator.generator.push(self.policy)
        groups = self.groups(self.draw(math.ceil(self.prompts_per_round * spec.oversample)))
        chosen, dead = self.choose(groups)
        self.constants.see(run, spec, groups + dead)
        mask(spec, chosen, version)
        ledger.kept += int(run.world.sums({"kept": float(self.generator.kept)}, axis="data")["kept"])
        with self.watch.of("scoring"):
            prepare(run, self.policy, spec, chosen)
        dropped = [spec.dead_groups == "drop" and group.dead for group in chosen]
        for group, drop in zip(chosen, dropped, strict=True):
            ledger.count(["dead"] * len(group.completions) if drop else group.buckets)
        minibatches = split(run, spec, chosen, dropped)
        if not ledger.balanced:
            message = f"sampled sequences and their buckets differ: {ledger}"
            raise PluginError(message, help="rollout has to return each sampled completion once")
        self.number += 1
        metrics = statistics(groups + dead) | ledger.metrics() | self.watch.metrics()
        seconds = time.perf_counter() - started
        return Round(minibatches, chosen[0].example(), spec.iterations, metrics, 1, table(run, chosen), seconds)

    def choose(self, groups: list[Group]) -> tuple[list[Group], list[Group]]:
        """Return the groups to train on, and those that were drawn beside `groups`. Counts all that are left out."""
        spec, wanted = self.spec, self.prompts_per_round
        further: list[Group] = []
        for _ in range(spec.redraws if spec.dead_groups == "redraw" else 0):
            if (missing := wanted - sum(not group.dead for group in [*groups, *further])) <= 0:
                break
            further += self.groups(self.draw(math.ceil(missing * spec.oversample)))
        everyone = [*groups, *further]
        alive = everyone if spec.dead_groups == "keep" else [group for group in everyone if not group.dead]
        # Dead groups fill what is missing, so that a step has its number of completions; "drop" leaves them out later.
        filling = [group for group in everyone if group.dead][: max(0, wanted - len(alive))]
        chosen = [*alive[:wanted], *filling]
        used, living = set(map(id, chosen)), set(map(id, alive))
        for group in everyone:
            if id(group) not in used:
                self.ledger.count(["over_budget" if id(group) in living else "dead"] * len(group.completions))
        return chosen, further

    def draw(self, number: int) -> list[Prompt]:
        """Return the next prompts, the same on all processes."""
        seed, first = self.run.core.seed, self.drawn
        self.drawn += number
        self.ledger.prompts += number
        if isinstance(self.source, StreamedRounds):
            packs = self.source.take(number)
            return [Prompt(pack[0], (seed, 0, first + i)) for i, pack in enumerate(packs)]
        # Epochs follow each other without a gap, so that a round always has its number of prompts.
        per_epoch = len(self.source.packs_of(0))
        places = [divmod(place, per_epoch) for place in range(first, first + number)]
        read, packs_of = self.source.read, self.source.packs_of
        return [Prompt(read(packs_of(epoch)[index])[0], (seed, epoch, index)) for epoch, index in places]

    def groups(self, prompts: Sequence[Prompt]) -> list[Group]:
        """Return a scored group for each prompt."""
        groups = roll_out(self.run, self.generator, self.spec, prompts, "train", self.watch)
        self.ledger.sequences += sum(len(group.completions) for group in groups)
        self.ledger.tokens += sum(len(c.tokens) for group in groups for c in group.completions)
        return groups

    def evaluate(self, held: Sequence[Example]) -> tuple[list[Example], dict[str, float]]:
        """Return examples of groups for held-out prompts, and the numbers about them, by name."""
        assert self.policy is not None
        prompts = [Prompt(example, (self.run.core.seed, HELD_OUT, *example.origin)) for example in held]
        self.generator.begin(None)
        groups = roll_out(self.run, self.generator, self.spec, prompts, "eval", Stopwatch())
        mask(self.spec, groups, None)
        prepare(self.run, self.policy, self.spec, groups)
        return [group.example() for group in groups], statistics(groups)

    def plan(self, steps: int) -> dict[str, Any]:
        """Return what a run of so many steps generates, for `plan`. Redrawn groups come on top."""
        spec = self.spec
        rounds = math.ceil(steps / spec.steps)
        sequences = rounds * math.ceil(self.prompts_per_round * spec.oversample) * spec.completions
        return {
            "rounds": rounds,
            "steps_per_round": spec.steps,
            "prompts_per_round": self.prompts_per_round,
            "completions": sequences,
            "tokens_at_most": sequences * spec.max_new_tokens,
            "generator": spec.generator,
            "rewards": [reward.label for reward in spec.scored],
        }

    def widest(self, size: int) -> list[Example]:
        """Return the examples of a micro-batch of `size` completions of full length, for counting memory."""
        spec, limit = self.spec, self.run.core.sequence_len
        prompt = [0] * max(1, limit - spec.max_new_tokens)
        if isinstance(self.source, StoredRounds):
            prompt = [0] * int(self.source.store.widths.max())
        zeros = np.zeros(spec.max_new_tokens, np.float32)
        ids = zeros.astype(np.int32)
        completion = Completion(ids, zeros, zeros + 1, zeros == 0, "length", ids)
        n = spec.completions
        columns = {"old_logps": [zeros] * n} if spec.old_logps else {}
        group = Group(Example([segment(prompt)]), [completion] * n, advantages=np.zeros(n), columns=columns)
        full, rest = divmod(size, n)
        return [*[group.example()] * full, *([group.example(range(rest))] if rest else [])]

    def state_dict(self) -> dict[str, Any]:
        self._over = self.number
        state = {"number": self.number, "drawn": self.drawn, "ledger": asdict(self.ledger)}
        return state | {"source": self.source.state_dict(), "constants": self.constants.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.drawn = state["number"], state["drawn"]
        self.ledger = Ledger(**state["ledger"])
        self.source.load_state_dict(state["source"])
        self.constants.load_state_dict(state["constants"])


def build_generator(run: Run, policy: Policy, spec: Rollout) -> JournaledGenerator:
    """Return the generator that a method names. The run closes it at its end."""
    if spec.generator == "policy":
        generator: Generator = policy.generator
    else:
        generator = run.hooks.build_generator(run, spec.generator)
        run.closing.append(generator.close)
    generator.check()
    return JournaledGenerator(run, policy, spec.generator, generator, spec.sequences_per_chunk)


def roll_out(
    run: Run,
    generator: JournaledGenerator,
    spec: Rollout,
    prompts: Sequence[Prompt],
    purpose: Purpose,
    watch: Stopwatch,
) -> list[Group]:
    """Return a scored group for each prompt. Each process generates its share; all get all groups."""
    data = run.world.data
    own = list(prompts[data.rank :: data.size])
    with watch.of("generating"):
        groups = run.hooks.rollout(run, generator, own, purpose)
        if len(groups) != len(own):
            raise PluginError(f"rollout returned {len(groups)} groups for {len(own)} prompts")
        shares = run.world.gather_data(groups)
    everyone = [shares[i % data.size][i // data.size] for i in range(len(prompts))]
    watch.tokens += sum(len(c.tokens) for group in everyone for c in group.completions)
    with watch.of("scoring"):
        rewards.score(run, spec, everyone, prompts[0].seed if prompts else ())
    return everyone


def rollout(run: Run, generator: JournaledGenerator, prompts: Sequence[Prompt], purpose: Purpose) -> list[Group]:
    """Return a group for each prompt: the completions of one turn. This is the default answer to `rollout`."""
    assert run.rollout is not None
    requests = [prompt.request(run.rollout) for prompt in prompts]
    completions = generator.generate(requests)
    return [
        Group(prompt.example, answers, temperature=request.sampling.temperature)
        for prompt, request, answers in zip(prompts, requests, completions, strict=True)
    ]


def mask(spec: Rollout, groups: Sequence[Group], version: int | None) -> None:
    """Put the completions that are not trained on into their buckets. `version`: that of the current weights."""
    for group in groups:
        for k, completion in enumerate(group.completions):
            old = version is not None and spec.max_staleness is not None and len(completion.versions)
            if old and version - int(completion.versions.min()) > spec.max_staleness:  # type: ignore[operator]
                group.buckets[k] = "stale"
            elif spec.truncated == "mask" and completion.finish_reason == "length":
                group.buckets[k] = "truncated"
            elif np.isnan(group.reward[k]):
                group.buckets[k] = "abstained"


def prepare(run: Run, policy: Policy, spec: Rollout, groups: Sequence[Group]) -> None:
    """Set the advantages of groups, and the log-probabilities that a clipped loss compares with."""
    set_advantages(groups, run.hooks.compute_advantages(run, policy, groups))
    if spec.old_logps:
        needs = Needs(logps=True, temperature=run.needs.temperature)
        scores = policy.score([group.example() for group in groups], needs)
        for group, segments in zip(groups, scores, strict=True):
            group.columns["old_logps"] = [values["logps"] for values in segments]


class Stopwatch:
    """The seconds of the parts of a round, and the tokens that were sampled in it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tokens = 0

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started

    def metrics(self) -> dict[str, float]:
        """Return sampled tokens per second of each part, and its seconds."""
        numbers = {f"speed/{part}_seconds": seconds for part, seconds in self.seconds.items()}
        rates = {part: self.tokens / max(self.seconds.get(part, 0.0), 1e-9) for part in ("generating", "scoring")}
        return numbers | {f"speed/{part}_tokens_per_second": rate for part, rate in rates.items()}
