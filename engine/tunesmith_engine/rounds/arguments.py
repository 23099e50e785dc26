"""Arguments of reward functions: what a function that scores the completions of groups is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tunesmith.run import Run
from tunesmith_engine.rounds.groups import Group


def columns_of(
    run: Run, groups: Sequence[Group], signature: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return the arguments that a function takes, as in TRL: lists with one item per completion, and others.

    prompts and completions are texts; those of a row whose prompt is a list of messages are lists of messages.
    completion_ids are token ids. Each column of the rows is a list of its values. `step` is passed if it is named.
    """
    names, everything = set(signature["names"]), signature["any"]
    columns: dict[str, list[Any]] = {}

    def add(name: str, value: Callable[[Group], Iterator[Any]]) -> None:
        if everything or name in names:
            columns[name] = [item for group in groups for item in value(group)]

    add("prompts", lambda group: iter([_prompt(run, group)] * len(group.completions)))
    add("completions", lambda group: _completions(run, group))
    add("completion_ids", lambda group: (completion.tokens.tolist() for completion in group.completions))
    fields = {name for group in groups for name in group.prompt.fields} - columns.keys()
    for field in sorted(fields - ({"prompt"} - names)):
        add(field, lambda group, field=field: iter([group.prompt.fields.get(field)] * len(group.completions)))  # type: ignore[misc]
    return columns, {"step": run.step} if "step" in names and "step" not in columns else {}


def _prompt(run: Run, group: Group) -> Any:
    own = group.prompt.fields.get("prompt")
    return own if isinstance(own, str) or _is_conversation(own) else run.tokenizer.decode(group.prompt.prompt)


def _completions(run: Run, group: Group) -> Iterator[Any]:
    messages = _is_conversation(group.prompt.fields.get("prompt"))
    for completion in group.completions:
        text = run.tokenizer.decode(completion.tokens.tolist(), skip_special_tokens=True)
        yield [{"role": "assistant", "content": text}] if messages else text


def _is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(isinstance(m, dict) and "role" in m for m in prompt)
