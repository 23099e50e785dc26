"""What can be known to be wrong from the YAML alone: keys that do not go together, or have no effect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesmith import ConfigError, DatasetSpec, ModelError, Problem
from tunesmith.spelling import nearest
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.formats import FORMATS
from tunesmith_chat.roles import BUILT_IN, REASONING_NAMES, role_names
from tunesmith_chat.sources import DEFAULT, FALLBACK, JINJA, fallback_name, known, name_of

if TYPE_CHECKING:
    from tunesmith import Run

Place = tuple[str | int, ...]
_TRAINING = {
    "roles_to_train",
    "train_on_eos",
    "train_on_eot",
    "message_field_training",
    "message_field_training_detail",
}
_COLUMNS = {"pair": {"field_chosen", "field_rejected"}, "labelled": {"field_completion", "field_label"}}
_ANY_COLUMN = {key for keys in _COLUMNS.values() for key in keys}
_PROPERTIES = ("role", "content", "tool_calls")
_RESERVED = ("messages", "tools", "add_generation_prompt")


def check_settings(run: Run) -> None:
    """Raise ConfigError with every problem of the chat keys that needs no file."""
    top = run.settings(ChatSettings)
    problems = list(_template_keys(run, top, ()))
    problems += _kwargs(run, top, ())
    for spec in run.config.entries:
        if isinstance(spec.options, ChatDataset):
            problems += _entry(run, spec, spec.options, top)
    if not any(chats(run)):
        for key in sorted(top.model_fields_set - {"chat_template", "chat_template_jinja"}):
            problems += run.config.error(key, "has no effect: no dataset goes through a chat template").problems
    if problems:
        raise ConfigError(problems)


def chats(run: Run) -> Iterator[tuple[Place, ChatDataset]]:
    """The entries that go through a chat template, with their place."""
    for spec in run.config.entries:
        if isinstance(spec.options, ChatDataset) and spec.type not in FORMATS:
            yield (spec.group, spec.index), spec.options


def _entry(run: Run, spec: DatasetSpec, entry: ChatDataset, top: ChatSettings) -> list[Problem]:
    path: Place = (spec.group, spec.index)
    problems: list[Problem] = []
    for key in sorted(entry.model_fields_set & _idle(spec)):
        message = f"has no effect with type: {spec.type} and a method that trains on {spec.row_kind} rows"
        problems += run.config.error((*path, key), message, "drop it").problems
    if problems:
        return problems
    problems += _template_keys(run, entry, path, top)
    problems += _kwargs(run, entry, path)
    problems += _roles(run, entry, path)
    problems += _properties(run, entry, path)
    if entry.train_on_eot is not None and not top.eot_tokens and not (name_of(entry) or name_of(top)):
        message = "has no effect without eot_tokens, the tokens that it is about"
        problems += run.config.error(
            (*path, "train_on_eot"), message, "write eot_tokens: [...] at the top level"
        ).problems
    return problems


def _idle(spec: DatasetSpec) -> set[str]:
    """Keys that say nothing to the type and the row kind of an entry."""
    if spec.type in FORMATS:
        return set(ChatDataset.model_fields) - FORMATS[spec.type].keys
    idle = _ANY_COLUMN - _COLUMNS.get(spec.row_kind, set())
    if spec.row_kind != "conversation":
        idle |= _TRAINING
    if spec.type.startswith("bradley_terry."):
        idle |= {"field_messages"}
    return idle


def _template_keys(
    run: Run, settings: ChatSettings | ChatDataset, path: Place, top: ChatSettings | None = None
) -> list[Problem]:
    name, own = settings.chat_template, settings.chat_template_jinja
    key, other = (*path, "chat_template"), (*path, "chat_template_jinja")
    if name is not None and name not in known():
        close = nearest(name, list(known()))
        help = f"did you mean {close!r}? " if close else ""
        help += "tokenizer_default is the model's own template; jinja is that of chat_template_jinja"
        shown = [one for one in known() if not one.startswith(FALLBACK)]
        message = f"is {name!r}; known: {', '.join(shown)}, {FALLBACK}<name>"
        return run.config.error(key, message, help).problems
    if name == JINJA and not own and not (top and top.chat_template_jinja):
        help = "write chat_template_jinja: the path of a .jinja file, or the template itself"
        return run.config.error(key, "is jinja, and chat_template_jinja gives no template", help).problems
    if name not in (None, JINJA) and own:
        return run.config.error(other, f"has no effect with chat_template: {name}", "drop one").problems
    brought = top and (top.chat_template_jinja or top.chat_template not in (None, DEFAULT))
    if (name == DEFAULT or fallback_name(settings)) and brought:
        # The tokenizer is saved with the run's template, so its former one is no longer its default
        help = "drop the entry's chat_template, or give each entry its own"
        return run.config.error(key, "goes against the template that the run gives its tokenizer", help).problems
    return []


def _kwargs(run: Run, settings: ChatSettings | ChatDataset, path: Place) -> list[Problem]:
    problems: list[Problem] = []
    for name, value in settings.chat_template_kwargs.items():
        key = (*path, "chat_template_kwargs", name)
        if name in _RESERVED:
            message = "is given to the template by the row, and can't be set"
            problems += run.config.error(key, message, "drop it").problems
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            problems += run.config.error(key, f"is no JSON value: {error}").problems
    return problems


def _properties(run: Run, entry: ChatDataset, path: Place) -> list[Problem]:
    """Problems of keys that name properties of messages: one name with two meanings."""
    problems: list[Problem] = []
    sources = {"role": "role", "content": "content"} | entry.message_property_mappings
    taken = {source: f"message_property_mappings.{target}" for target, source in sources.items()}
    for key in ("field_thinking", "message_field_training", "message_field_training_detail"):
        name = getattr(entry, key)
        if name is None:
            continue
        if name in taken:
            message = f"is {name!r}, which {taken[name]} names too"
            problems += run.config.error((*path, key), message).problems
        taken.setdefault(name, key)
    if entry.template_thinking_key in (*_PROPERTIES, *REASONING_NAMES[:2]):
        message = f"is {entry.template_thinking_key!r}"
        message += ", which every template is given" if entry.template_thinking_key in REASONING_NAMES else ""
        help = "name the property that the template reads reasoning from"
        problems += run.config.error((*path, "template_thinking_key"), message, help).problems
    return problems


def _roles(run: Run, entry: ChatDataset, path: Place) -> list[Problem]:
    names = role_names(entry.roles)
    problems: list[Problem] = []
    if not entry.roles_to_train and not entry.message_field_training and not entry.message_field_training_detail:
        problems += run.config.error((*path, "roles_to_train"), "names no role", "write [assistant]").problems
    for index, role in enumerate(entry.roles_to_train):
        roles = {*BUILT_IN, *entry.roles}
        if role not in roles:
            close = names.get(role) or nearest(role, roles)
            help = f"did you mean {close!r}?" if close else "name it in roles: too"
            message = f"is {role!r}; roles: {', '.join(sorted(roles))}"
            problems += run.config.error((*path, "roles_to_train", index), message, help).problems
    owner: dict[str, str] = {}
    for role, aliases in entry.roles.items():
        for alias in aliases:
            if owner.setdefault(alias, role) != role:
                message = f"gives the name {alias!r} to both {owner[alias]} and {role}"
                problems += run.config.error((*path, "roles", role), message).problems
    return problems


def unread(run: Run, settings: ChatSettings | ChatDataset, path: Place, variables: frozenset[str]) -> list[Problem]:
    """Problems of variables that these settings give to templates, which read only `variables`."""
    problems: list[Problem] = []
    for name in settings.chat_template_kwargs.keys() - variables:
        close = nearest(name, set(variables))
        help = f"did you mean {close!r}?" if close else f"it reads {', '.join(sorted(variables))}"
        message = "has no effect: the chat template reads no such variable"
        problems += run.config.error((*path, "chat_template_kwargs", name), message, help).problems
    return problems


def no_template(where: str) -> ModelError:
    """The error for a tokenizer without a template."""
    help = (
        "write chat_template: with the name of its family (chatml, llama3, ...), or jinja and chat_template_jinja: FILE"
    )
    return ModelError("the tokenizer has no chat template", where=where, help=help, code="chat-template")
