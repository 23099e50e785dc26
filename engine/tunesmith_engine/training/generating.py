"""Complete prompts that are given as texts or messages, and return texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.errors import PluginError
from tunesmith_engine.data.prompts import Messages, prompt_tokens
from tunesmith_engine.model.generation import Request, Sampling
from tunesmith_engine.model.policy import Policy

Prompts = str | Messages | Sequence[str] | Sequence[Messages]
"""A prompt or a list of prompts; a prompt is a text or a list of messages."""


def generate_texts(
    policy: Policy,
    prompts: Prompts,
    *,
    max_new_tokens: int = 256,
    n: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    stop: str | Sequence[str] = (),
    seed: int = 0,
    variables: Mapping[str, Any] | None = None,
) -> Any:
    """Return completions of a policy as texts.

    Args:
        policy: the model.
        prompts: a prompt, or a list of prompts. A prompt is a text or a list of messages. With a chat template, a
            text is the message of a user; without one, the text that the model continues.
        max_new_tokens: the longest completion.
        n: completions of each prompt, which is computed once for all of them.
        temperature: 0 takes the likeliest token.
        top_p: sample from the smallest set of tokens with this probability.
        top_k: sample from so many tokens, 0 for all.
        min_p: sample from the tokens with at least this share of the likeliest one's probability.
        stop: strings that end a completion.
        seed: equal seeds give equal completions.
        variables: passed to the chat template, such as {"enable_thinking": False}.

    Returns a text for one prompt, a list of n texts if n > 1, and a list of these for a list of prompts. Raises
    PluginError for a model that does not predict tokens.
    """
    run = policy.run
    if run.method.exports is not None:
        message = f"a model that is exported as a {run.method.exports} does not generate text"
        raise PluginError(message, help="its score is computed with transformers: see docs/choose-a-method.md")
    alone = isinstance(prompts, str) or (bool(prompts) and isinstance(prompts[0], Mapping))
    wanted: Sequence[Any] = [prompts] if alone else prompts
    sampling = Sampling(temperature, top_p, top_k, min_p)
    ends = (stop,) if isinstance(stop, str) else tuple(stop)
    requests = [
        Request(prompt_tokens(run, prompt, variables), max_new_tokens, n, sampling, ends, (seed, number))
        for number, prompt in enumerate(wanted)
    ]
    texts = [
        [str(run.tokenizer.decode(one.tokens.tolist(), skip_special_tokens=True)) for one in completions]
        for completions in policy.generate(requests)
    ]
    answers = texts if n > 1 else [one for (one,) in texts]
    return answers[0] if alone else answers
