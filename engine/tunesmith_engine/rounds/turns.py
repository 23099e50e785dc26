"""Complete prompts in several turns: the model answers, a tool or an environment replies, the model goes on.

Tokens are appended and never tokenized again: the text of a completion may have other tokens than the ones that were
sampled, and log-probabilities belong to tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tunesmith.errors import PluginError
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.model.generation import Completion, Request
from tunesmith_engine.rounds.groups import Group, Prompt
from tunesmith_engine.rounds.journal import JournaledGenerator

Reply = Callable[[Example, Completion], Sequence[int] | None]
"""A function of the prompt and the completion so far, which ends with a turn of the model. It returns the tokens of the
reply, or None if the completion is finished."""


def append_tokens(completion: Completion, tokens: Sequence[int]) -> Completion:
    """Return a completion with tokens that the model did not draw: they have weight 0, and no gradient."""
    number = len(tokens)
    if not number:
        return completion
    version = completion.versions[-1] if len(completion.versions) else 0
    return replace(
        completion,
        tokens=np.concatenate([completion.tokens, np.array(tokens, np.int32)]),
        logps=np.concatenate([completion.logps, np.zeros(number, np.float32)]),
        weights=np.concatenate([completion.weights, np.zeros(number, np.float32)]),
        sampled=np.concatenate([completion.sampled, np.zeros(number, np.bool_)]),
        versions=np.concatenate([completion.versions, np.full(number, version, np.int32)]),
    )


def append_turn(completion: Completion, turn: Completion) -> Completion:
    """Return a completion with a further turn, which the model generated after it; it ends for the turn's reason."""
    names = ("tokens", "logps", "weights", "sampled", "versions")
    joined: dict[str, Any] = {name: np.concatenate([getattr(completion, name), getattr(turn, name)]) for name in names}
    return replace(turn, **joined)


def continue_request(request: Request, completion: Completion, number: int, turn: int) -> Request | None:
    """Return the request for the next turn of a completion, or None if max_new_tokens leaves no room for a token.

    request: that of the prompt. number: of the completion in its group. turn: the number of the turn, from 1 on; each
    has random numbers of its own.
    """
    left = request.max_new_tokens - len(completion.tokens)
    if left < 1:
        return None
    prompt = [*map(int, request.prompt), *completion.tokens.tolist()]
    return replace(request, prompt=prompt, max_new_tokens=left, n=1, seed=(*request.seed, number, turn))


def roll_out_turns(
    run: Run, generator: JournaledGenerator, prompts: Sequence[Prompt], reply: Reply, turns: int
) -> list[Group]:
    """Return a group for each prompt, with completions of at most `turns` turns of the model. Answers `rollout`.

    After each turn but the last, `reply` is asked for the tokens to append. A turn that ended at max_new_tokens, which
    limits a completion as a whole, gets no reply. A completion ends with "length" if a reply leaves no room for an
    answer; that reply is not appended. All processes generate `turns` times, so replies may differ between them. Raises
    PluginError if `turns` is below 1.
    """
    if turns < 1:
        raise PluginError(f"a completion can't have {turns} turns", help="write at least 1")
    assert run.rollout is not None
    requests = [prompt.request(run.rollout) for prompt in prompts]
    groups = generator.generate(requests)
    going = [(g, k) for g, group in enumerate(groups) for k in range(len(group))]
    for turn in range(1, turns):
        waiting: list[tuple[int, int]] = []
        more: list[Request] = []
        for g, k in going:
            completion = groups[g][k]
            if completion.finish_reason != "stop" or (added := reply(prompts[g].example, completion)) is None:
                continue
            longer = append_tokens(completion, added)
            request = continue_request(requests[g], longer, k, turn)
            if request is None:
                groups[g][k] = replace(completion, finish_reason="length")
                continue
            groups[g][k] = longer
            waiting.append((g, k))
            more.append(request)
        for (g, k), (answer,) in zip(waiting, generator.generate(more), strict=True):
            groups[g][k] = append_turn(groups[g][k], answer)
        going = waiting
    return [
        Group(prompt.example, answers, temperature=request.sampling.temperature)
        for prompt, request, answers in zip(prompts, requests, groups, strict=True)
    ]
