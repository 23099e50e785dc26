"""Rounds of an online method: draw prompts, generate groups, score them, redraw dead ones, split into minibatches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tunesmith.errors import PluginError
from tunesmith.plugins.plugin import Needs
from tunesmith.plugins.rollout import Rollout
from tunesmith.run import Purpose, Run
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.data.batches import repack
from tunesmith_engine.model.generation import Completion, Generator
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.rounds import rewards
from tunesmith_engine.rounds.groups import Group, Prompt, set_advantages, statistics
from tunesmith_engine.rounds.ledger import JournaledGenerator, Ledger
from tunesmith_engine.rounds.rounds import Round, Rounds
from tunesmith_engine.rounds.stored import StoredRounds
from tunesmith_engine.rounds.streamed import StreamedRounds

HELD_OUT = 2**31
"""A number in the seed of held-out prompts, where prompts that are trained on have their epoch."""


class Rollouts(Rounds):
    """The rounds of an online method.

    All processes draw the same prompts, each generates its share of the groups, and then all have all groups. What a
    step trains on is distributed by packs, as prepared data is, however long the completions are.
    """

    def __init__(self, run: Run, policy: Policy | None, spec: Rollout):
        super().__init__(run)
        assert run.data is not None
        self.policy, self.spec, self.steps = policy, spec, spec.steps
        self.prompts_per_round = self.packs_per_step * spec.minibatches
        self.source: StoredRounds | StreamedRounds
        if run.data.train is not None:
            self.source = StoredRounds(run, run.data.train, packed=False)
            self.per_epoch = math.ceil(len(self.source.packs_of(0)) / self.prompts_per_round)
        else:
            self.source = StreamedRounds(run, packed=False)
        self.drawn = 0
        self.ledger = Ledger()
        self._over = 0  # rounds before this number are over in the newest checkpoint
        if policy is not None:
            self.generator = build_generator(run, policy, spec)

    def next(self) -> Round:
        """Generate the next round. Raises PluginError for answers of plugins that have a wrong shape."""
        run, spec = self.run, self.spec
        assert self.policy is not None
        if run.world.main:
            self.generator.journal.forget(self._over)
        self.generator.begin(self.number)
        self.generator.generator.push(self.policy)
        groups = self.groups(self.draw(self.prompts_per_round))
        for _ in range(spec.redraws if spec.dead_groups == "redraw" else 0):
            if not (dead := [i for i, group in enumerate(groups) if group.dead]):
                break
            self.ledger.redrawn += len(dead) * spec.completions
            for i, group in zip(dead, self.groups(self.draw(len(dead))), strict=True):
                groups[i] = group
        self.ledger.kept += int(run.world.sums({"kept": float(self.generator.kept)}, axis="data")["kept"])
        metrics = statistics(groups)
        examples = examples_of(run, self.policy, self.spec, groups)
        dropped = [spec.dead_groups == "drop" and group.dead for group in groups]
        self.ledger.dropped += sum(dropped) * spec.completions
        self.ledger.trained += (len(groups) - sum(dropped)) * spec.completions
        size = self.packs_per_step
        minibatches = [
            repack(run, [examples[i] for i in range(start, min(start + size, len(examples))) if not dropped[i]])
            for start in range(0, len(examples), size)
        ]
        self.number += 1
        return Round(minibatches, examples[0], spec.iterations, metrics | self.ledger.metrics())

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
        groups = roll_out(self.run, self.generator, self.spec, prompts, "train")
        self.ledger.sequences += sum(len(group.completions) for group in groups)
        self.ledger.tokens += sum(len(c.tokens) for group in groups for c in group.completions)
        return groups

    def evaluate(self, held: Sequence[Example]) -> tuple[list[Example], dict[str, float]]:
        """Return examples of groups for held-out prompts, and the numbers about them, by name."""
        assert self.policy is not None
        prompts = [Prompt(example, (self.run.core.seed, HELD_OUT, *example.origin)) for example in held]
        self.generator.begin(None)
        groups = roll_out(self.run, self.generator, self.spec, prompts, "eval")
        return examples_of(self.run, self.policy, self.spec, groups), statistics(groups)

    def plan(self, steps: int) -> dict[str, Any]:
        """Return what a run of so many steps generates, for `plan`. Redrawn groups come on top."""
        spec = self.spec
        rounds = math.ceil(steps / spec.steps)
        sequences = rounds * self.prompts_per_round * spec.completions
        return {
            "rounds": rounds,
            "steps_per_round": spec.steps,
            "prompts_per_round": self.prompts_per_round,
            "completions": sequences,
            "tokens_at_most": sequences * spec.max_new_tokens,
            "generator": spec.generator,
            "rewards": list(spec.rewards),
        }

    def widest(self, packs: int) -> list[Example]:
        """Return the examples of so many full packs, with completions of full length, for counting memory."""
        spec, limit = self.spec, self.run.core.sequence_len
        prompt = [0] * max(1, limit - spec.completions * spec.max_new_tokens)
        if isinstance(self.source, StoredRounds):
            prompt = [0] * int(self.source.store.widths.max())
        zeros = np.zeros(spec.max_new_tokens, np.float32)
        ids = zeros.astype(np.int32)
        completion = Completion(ids, zeros, zeros + 1, zeros == 0, "length", ids)
        n = spec.completions
        columns = {"old_logps": [zeros] * n} if spec.old_logps else {}
        example = Group(Example([segment(prompt)]), [completion] * n, advantages=np.zeros(n), columns=columns).example()
        return [example] * (packs * max(1, limit // example.width))

    def state_dict(self) -> dict[str, Any]:
        self._over = self.number
        state = {"number": self.number, "drawn": self.drawn, "ledger": asdict(self.ledger)}
        return state | {"source": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.drawn = state["number"], state["drawn"]
        self.ledger = Ledger(**state["ledger"])
        self.source.load_state_dict(state["source"])


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
    run: Run, generator: JournaledGenerator, spec: Rollout, prompts: Sequence[Prompt], purpose: Purpose
) -> list[Group]:
    """Return a scored group for each prompt. Each process generates its share; all get all groups."""
    data = run.world.data
    own = list(prompts[data.rank :: data.size])
    groups = run.hooks.rollout(run, generator, own, purpose)
    if len(groups) != len(own):
        raise PluginError(f"rollout returned {len(groups)} groups for {len(own)} prompts")
    shares = run.world.gather(groups, axis="data")
    everyone = [shares[i % data.size][i // data.size] for i in range(len(prompts))]
    rewards.score(run, spec, everyone)
    return everyone


def rollout(run: Run, generator: JournaledGenerator, prompts: Sequence[Prompt], purpose: Purpose) -> list[Group]:
    """Return a group for each prompt: the completions of one turn. This is the default answer to `rollout`."""
    assert run.rollout is not None
    completions = generator.generate([prompt.request(run.rollout) for prompt in prompts])
    return [Group(prompt.example, answers) for prompt, answers in zip(prompts, completions, strict=True)]


def examples_of(run: Run, policy: Policy, spec: Rollout, groups: Sequence[Group]) -> list[Example]:
    """Return the example of each group, with its advantages and what else its loss reads."""
    set_advantages(groups, run.hooks.compute_advantages(run, policy, groups))
    examples = [group.example() for group in groups]
    if spec.old_logps:
        for example, segments in zip(examples, policy.score(examples, Needs(logps=True)), strict=True):
            for completion, values in zip(example.segments[1:], segments, strict=True):
                completion.columns["old_logps"] = values["logps"]
    return examples
