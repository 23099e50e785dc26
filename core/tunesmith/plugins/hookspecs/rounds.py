"""Hooks of rounds: what the optimizer steps of a round are taken on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.model.generation import Generator
    from tunesmith_engine.model.policy import Policy
    from tunesmith_engine.rounds.groups import Advantages, Group, Prompt
    from tunesmith_engine.rounds.journal import JournaledGenerator

    from tunesmith.run import Purpose, Run


@spec("keyed", keys="offers.generators")
def build_generator(run: Run, name: str) -> Generator:
    """Return the generator of a name: a server, an inference engine, another model. Raise an error if it can't be used.

    When: once, before the first round, if the method's Rollout names it. "policy" is the policy itself, which needs no
    plugin. The engine calls `push(policy)` before each round and `close()` at the end of the run. Answers: keyed by
    the names in `Plugin(offers={"generators": {name: None}})`.

    Example:
        @hookimpl
        def build_generator(run, name):
            return MyServer(run.settings(Settings).url)
    """


@spec("one", default="rounds.rollout")
def rollout(run: Run, generator: JournaledGenerator, prompts: Sequence[Prompt], purpose: Purpose) -> list[Group]:
    """Return a group for each prompt, in order: the completions of an agent, an environment, or several turns.

    When: in each round, on each process with its share of prompts, and for the held-out prompts of an evaluation.
    Call `generator.generate(requests)` equally often on every process. A completion marks tokens that the model did not
    draw, such as the result of a tool, in `sampled`, and gives them the weight 0. Answers: one; by default each
    completion is one turn.

    Example:
        @hookimpl
        def rollout(run, generator, prompts):
            completions = generator.generate([prompt.request(run.rollout) for prompt in prompts])
            return [Group(prompt.example, answers) for prompt, answers in zip(prompts, completions, strict=True)]
    """


@spec("keyed", keys="offers.rewards")
def score_rewards(
    run: Run, name: str, groups: Sequence[Group], options: Mapping[str, Any]
) -> Sequence[Sequence[float | None]]:
    """Return the scores of a reward: for each group, one number per completion, or None where it does not apply.

    When: after the rollout of a round, on every process with the groups of all of them. For a reward that needs the run
    or a model; a plain function of texts and columns is offered by `Plugin(offers={"rewards": ...})`. `options` are
    those that the YAML gives to the reward. Answers: keyed by the names in `Plugin(offers={"rewards": {name: None}})`.

    Example:
        @hookimpl
        def score_rewards(run, name, groups):
            return [[-float(len(c.tokens)) for c in group.completions] for group in groups]
    """


@spec("one", default="rounds.groups")
def compute_advantages(run: Run, policy: Policy, groups: Sequence[Group]) -> Sequence[Advantages]:
    """Return the advantages of each group: one number per completion [n], or an array [L] per completion.

    When: in each round, after rewards, on every process with all groups. `policy.score(examples, needs)` shares its
    work among processes. The loss reads them in `batch.columns["advantage"]`, and more values that are set in
    `group.columns` by their names. Answers: one, the plugin of an online method; by default the
    reward is the advantage.

    Example:
        @hookimpl
        def compute_advantages(groups):
            return [group.reward - group.reward.mean() for group in groups]
    """


@spec("all")
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add columns or counts to the micro-batches of a step, such as reference log-probabilities or group advantages.

    When: before the first backward pass, without gradients. For statistics over the whole step, reach
    the other processes through `run.world`. Answers: all, in call order.

    Example:
        @hookimpl
        def prepare_step(run, policy, batches):
            for batch in batches:
                with policy.reference() as reference:
                    batch.columns["ref_logps"] = reference(batch).logps
    """
