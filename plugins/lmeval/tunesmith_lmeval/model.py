"""A model for lm-eval that computes with the engine: scores are packed with shared prompts, texts are generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from tunesmith import ConfigError, Example, Needs, Policy, Request, Sampling, render_prompt

MAX_NEW_TOKENS = 256
"""The length of a completion if the task does not set it, as in lm-eval."""
POSITIONS = ("n_positions", "max_position_embeddings", "n_ctx")
"""Names of the longest sequence in the config of a model."""
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the length of a completion, in order of precedence."""
KNOWN = {*LIMITS, "until", "do_sample", "temperature", "top_p", "top_k", "min_p"}
GROUP = 512
"""Prompts that are scored between two reports of progress."""
Scored = tuple[float, bool]
"""The log-probability of a continuation, and True if each of its tokens is the likeliest one."""


class EngineLM(TemplateLM):
    """The policy of a run. Every process answers all requests; the engine distributes the work."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy, self.tokenizer = policy, policy.run.tokenizer
        self.asked = 0

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def max_length(self) -> int:
        """The longest sequence, from the model's config or the tokenizer."""
        config = getattr(self.policy.model, "config", None)
        values = [getattr(config, name, None) for name in POSITIONS] + [self.tokenizer.model_max_length]
        return next((int(value) for value in values if isinstance(value, int) and 0 < value < 10**9), 2048)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the token ids of a text. A text that begins with the begin token gets no other one."""
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode([self.prefix_token_id])):
            options = {"add_special_tokens": False}
        return list(self.tokenizer.encode(string, **options))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return render_prompt(self.tokenizer, chat_history, continued=not add_generation_prompt)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Scored]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the log-probability of each text, in windows of the longest sequence."""
        windows: list[tuple[Any, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            parts = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
            )
            for part in map(make_disjoint_window, parts):
                windows.append((None, *part))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (logp, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += logp
        return totals

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[Scored]:
        """Score continuations. Those of one context are branches of one example, which computes the context once."""
        branches: dict[tuple[int, ...], list[int]] = {}
        continuations: list[list[int]] = []
        for number, (_, context, continuation) in enumerate(requests):
            # As in lm-eval, what is too long loses its beginning; the last token is predicted and not read.
            tokens = [*context, *continuation][-(self.max_length + 1) :]
            prompt = tuple(tokens[: len(tokens) - len(continuation)])
            branches.setdefault(prompt, []).append(number)
            continuations.append(list(continuation))
        results: list[Scored] = [(0.0, False)] * len(requests)
        members = [
            (prompt, part)
            for prompt, numbers in branches.items()
            for part in self._parts(prompt, numbers, continuations)
        ]
        for first in range(0, len(members), GROUP):
            self.policy.run.progress("lm-eval: scoring prompts", first, len(members))
            group = members[first : first + GROUP]
            examples = [Example.branches(prompt, [continuations[n] for n in numbers]) for prompt, numbers in group]
            scored = self.policy.score(examples, Needs(logps=True, topk=1))
            for (_, numbers), segments in zip(group, scored, strict=True):
                for number, values in zip(numbers, segments, strict=True):
                    likeliest = values["topk_ids"][:, 0] == np.array(continuations[number])
                    results[number] = float(values["logps"].astype(np.float64).sum()), bool(likeliest.all())
        return results

    def _parts(self, prompt: Sequence[int], numbers: list[int], continuations: Sequence[list[int]]) -> list[list[int]]:
        """Split the continuations of a context so that they fit into a pack with it, as far as possible."""
        room = self.policy.run.core.sequence_len - len(prompt)
        parts: list[list[int]] = []
        used = 0
        for number in numbers:
            length = len(continuations[number])
            if not parts or used + length > room:
                parts.append([])
                used = 0
            parts[-1].append(number)
            used += length
        return parts

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Return completions up to the stop strings of each request."""
        run = self.policy.run
        data = run.world.data
        run.progress("lm-eval: generating", 0, len(requests))
        wanted = [self._request(*request.args, number) for number, request in enumerate(requests)]
        own = self.policy.generate(wanted[data.rank :: data.size])
        texts = [self.tokenizer.decode(completion.tokens.tolist(), skip_special_tokens=True) for (completion,) in own]
        answers = [""] * len(requests)
        for rank, share in enumerate(run.world.gather(texts, axis="data")):
            answers[rank :: data.size] = share
        return [_before(text, request.stop) for text, request in zip(answers, wanted, strict=True)]

    def _request(self, context: str, options: Mapping[str, Any], number: int) -> Request:
        if unknown := sorted(options.keys() - KNOWN):
            message = f"a task generates with {', '.join(unknown)}, which the engine does not do"
            raise ConfigError(message, where=self.policy.run.config.place("lm_eval_tasks"), code="task")
        limit = next((int(options[name]) for name in LIMITS if options.get(name) is not None), MAX_NEW_TOKENS)
        until = options.get("until") or ()
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        prompt = self.tok_encode(context)[-(self.max_length - limit) :] if limit < self.max_length else []
        if not prompt:
            message = f"a task generates {limit:,} tokens, and the model has {self.max_length:,} positions"
            raise ConfigError(message, where=self.policy.run.config.place("lm_eval_tasks"), code="task")
        # Each repetition of a request draws its own numbers.
        return Request(prompt, limit, 1, _sampling(options), stop, (self.policy.run.core.seed, number))


def _sampling(options: Mapping[str, Any]) -> Sampling:
    """Return how a task draws tokens. Without do_sample and temperature, the likeliest token is taken."""
    temperature = float(options.get("temperature") or 0.0)
    if options.get("do_sample") is False or (not options.get("do_sample") and not temperature):
        return Sampling(0.0)
    names = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
    return Sampling(temperature or 1.0, **{name: options.get(name) or default for name, default in names.items()})


def _before(text: str, stop: Sequence[str]) -> str:
    for one in stop:
        text = text.split(one, maxsplit=1)[0]
    return text
