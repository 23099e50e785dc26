"""Score the completions of groups with a reward model: the value of its head at the last token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tunesmith import DataError, Example, Group, ModelError, Needs, Run, collate, segment
from tunesmith_rewardmodel.models import model_name

MESSAGES = "prompt"
"""The field of a prompt that contains its messages, if it is a conversation."""


class OwnTokenizers:
    """The tokenizers of reward models whose tokens are not those of the policy, by path and revision."""

    def __init__(self, run: Run) -> None:
        self.loaded: dict[tuple[str, str | None], Any] = {}

    def of(self, path: str, revision: str | None) -> Any:
        """Return a tokenizer. Raise ModelError if it can't be loaded."""
        from transformers import AutoTokenizer

        if (path, revision) not in self.loaded:
            try:
                self.loaded[path, revision] = AutoTokenizer.from_pretrained(path, revision=revision)
            except Exception as error:  # the files are untrusted, and the libraries may raise anything for them
                message = f"the tokenizer of the reward model {path} can't be loaded: {error}"
                raise ModelError(message, help="write tokenizer: policy, or another path") from error
        return self.loaded[path, revision]


def scores(run: Run, groups: Sequence[Group], options: Mapping[str, Any]) -> list[list[float | None]]:
    """Return the score of each completion. Call it on all processes with the same groups; they share the work.

    A completion without tokens abstains.
    """
    policy, data = run.models[model_name(run, options)], run.world.data
    share = policy.language_model.shares_prompts
    results: list[list[float | None]] = [[None] * len(group.completions) for group in groups]
    own_tokens = options.get("tokenizer") == "own"
    tokenizer = run.owned(OwnTokenizers).of(options["path"], options.get("revision")) if own_tokens else None
    per_batch = run.core.eval_batch_size or run.core.micro_batch_size
    parts = list(_parts(groups, per_batch))
    own: list[tuple[int, list[int], list[float]]] = []
    training = policy.model.training
    policy.model.eval()
    with torch.no_grad():
        for first in range(0, len(parts), data.size):
            # A process without a part runs another one again, because a forward under sharding needs every process.
            has_part = first + data.rank < len(parts)
            number, indices = parts[first + data.rank if has_part else first]
            group = groups[number]
            example = _retokenized(run, tokenizer, group, indices) if tokenizer else _example(group, indices)
            out = policy(collate([example], share=share).to(run.device), Needs(heads=("score",)))
            if has_part:
                own.append((number, indices, out.heads["score"][:, 0].float().tolist()))
    policy.reshard()
    policy.model.train(training)
    for from_process in run.world.gather(own, axis="data"):
        for number, indices, values in from_process:
            for index, value in zip(indices, values, strict=True):
                results[number][index] = value
    return results


def _parts(groups: Sequence[Group], size: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the completions of a forward: the number of their group, and their own numbers."""
    for number, group in enumerate(groups):
        indices = [index for index, completion in enumerate(group.completions) if len(completion.tokens)]
        for start in range(0, len(indices), size):
            yield number, indices[start : start + size]


def _example(group: Group, indices: Sequence[int]) -> Example:
    """Return the prompt with a branch for each completion: their tokens follow those of the prompt."""
    prompt = group.prompt.prompt
    branches = [segment(group.completions[index].tokens, fork=len(prompt)) for index in indices]
    return Example([segment(prompt), *branches])


def _retokenized(run: Run, tokenizer: Any, group: Group, indices: Sequence[int]) -> Example:
    """Return the same texts in the tokens of the reward model.

    A conversation is written with its chat template; a completion that continues its last message becomes part of that.
    A text is followed by its end token. Raises DataError if the template refuses a conversation.
    """
    messages = _conversation(group.prompt.fields.get(MESSAGES))
    prompt = "" if messages else run.tokenizer.decode(group.prompt.prompt, skip_special_tokens=True)
    sequences = []
    for index in indices:
        answer = run.tokenizer.decode(group.completions[index].tokens.tolist(), skip_special_tokens=True)
        if messages is None:
            tokens, end = list(tokenizer(prompt + answer).input_ids), tokenizer.eos_token_id
            if end is not None and tokens[-1:] != [end]:  # some tokenizers append it
                tokens.append(end)
        else:
            try:
                text = tokenizer.apply_chat_template(_answered(messages, answer), tokenize=False)
            except Exception as error:  # templates raise what they like
                message = f"the chat template of the reward model refuses {json.dumps(messages)[:200]}: {error}"
                raise DataError(message, help="write tokenizer: policy, or another reward model") from error
            tokens = tokenizer(text.rstrip("\n"), add_special_tokens=False).input_ids
        sequences.append(segment(np.array(tokens, np.int32)))
    return Example([segment([]), *sequences])


def _answered(messages: Sequence[dict[str, Any]], answer: str) -> list[dict[str, Any]]:
    """Return a conversation with its answer, which continues a message of the assistant at its end."""
    *before, last = messages
    if last["role"] == "assistant":
        return [*before, {**last, "content": f"{last['content']}{answer}"}]
    return [*messages, {"role": "assistant", "content": answer}]


def _conversation(value: Any) -> list[dict[str, Any]] | None:
    """Return a column's value if it is a list of messages."""
    right = isinstance(value, list) and all(isinstance(m, dict) and "role" in m and "content" in m for m in value)
    return value if right and value else None
