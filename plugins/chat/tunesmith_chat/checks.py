"""Check the chat keys of the YAML: keys that contradict each other or have no effect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesmith import ConfigError, DatasetSpec, ModelError, Problem
from tunesmith.spelling import nearest
from tunesmith_chat import COMPLETION, DIALOGUE, EXCHANGES, ChatDataset, ChatSettings
from tunesmith_chat.formats import FORMATS
from tunesmith_chat.roles import BUILT_IN, role_names
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
_COLUMNS = {
    "pair": {"field_chosen", "field_rejected", "field_ranked", "field_better"},
    "labelled": {"field_completion", "field_label", "label_threshold"},
}
_TYPES = {
    DIALOGUE: {"turn_markers", "turn_end"},
    EXCHANGES: {"exchange_turns"},
    COMPLETION: {"field_completion", "field_tool_calls"},
}
"""Type -> its own keys."""
_ANY_COLUMN = {key for keys in _COLUMNS.values() for key in keys}
_PROPERTIES = ("role", "content", "tool_calls")
_RESERVED = ("messages", "tools", "add_generation_prompt")


def check_settings(run: Run) -> None:
    """Raise ConfigError with all problems of the chat keys that can be found without reading files."""
    top = run.settings(ChatSettings)
    problems = list(_template_keys(run, top, ()))
    problems += _kwargs(run, top, ())
    for spec in run.config.entries:
        if isinstance(spec.options, ChatDataset):
            problems += _entry(run, spec, spec.options, top)
    if not any(chats(run)):
        for key in sorted(top.model_fields_set - {"chat_template", "chat_template_jinja"}):
            problems += run.config.error(key, "has no effect: no dataset uses a chat template").problems
    if problems:
        raise ConfigError(problems)


def chats(run: Run) -> Iterator[tuple[Place, ChatDataset]]:
    """Yield the entries that use a chat template, with their place."""
    for spec in run.config.entries:
        if isinstance(spec.options, ChatDataset) and spec.type not in FORMATS:
            yield (spec.group, spec.index), spec.options


def _entry(run: Run, spec: DatasetSpec, entry: ChatDataset, top: ChatSettings) -> list[Problem]:
    path: Place = (spec.group, spec.index)
    problems: list[Problem] = []
    for key in sorted(entry.model_fields_set & _unused_keys(spec)):
        message = f"has no effect with type: {spec.type} and a method that trains on {spec.row_kind} rows"
        problems += run.config.error((*path, key), message, "drop it").problems
    if problems:
        return problems
    problems += _template_keys(run, entry, path, top)
    problems += _kwargs(run, entry, path)
    problems += _roles(run, entry, path)
    problems += _properties(run, entry, path)
    if entry.train_on_eot is not None and not top.eot_tokens and not (name_of(entry) or name_of(top)):
        help = "write eot_tokens: [...] at the top level"
        problems += run.config.error((*path, "train_on_eot"), "has no effect without eot_tokens", help).problems
    return problems


def _unused_keys(spec: DatasetSpec) -> set[str]:
    """Return the keys that have no effect with the type and the row kind of an entry."""
    if spec.type in FORMATS:
        return set(ChatDataset.model_fields) - FORMATS[spec.type].keys
    unused = _ANY_COLUMN - _COLUMNS.get(spec.row_kind, set())
    if spec.row_kind != "conversation":
        unused |= _TRAINING
    own = _TYPES.get(spec.type, set())
    unused = (unused | {key for keys in _TYPES.values() for key in keys - _ANY_COLUMN}) - own
    if spec.type == COMPLETION:  # the completion is trained, and nothing of the prompt
        unused |= _TRAINING - {"train_on_eos", "train_on_eot"}
    if spec.row_kind == "pair" and isinstance(spec.options, ChatDataset) and spec.options.field_ranked is not None:
        unused |= {"field_better", "field_chosen", "field_rejected"}
    if spec.type.startswith("bradley_terry."):
        unused |= {"field_messages"}
    return unused


def _template_keys(
    run: Run, settings: ChatSettings | ChatDataset, path: Place, top: ChatSettings | None = None
) -> list[Problem]:
    name, own = settings.chat_template, settings.chat_template_jinja
    key, jinja_key = (*path, "chat_template"), (*path, "chat_template_jinja")
    if name is not None and name not in known():
        close = nearest(name, list(known()))
        help = f"did you mean {close!r}? " if close else ""
        help += "tokenizer_default is the model's own template; jinja is the one in chat_template_jinja"
        shown = [value for value in known() if not value.startswith(FALLBACK)]
        message = f"unknown value {name!r}; known: {', '.join(shown)}, {FALLBACK}<name>"
        return run.config.error(key, message, help).problems
    if name == JINJA and not own and not (top and top.chat_template_jinja):
        help = "write chat_template_jinja: PATH of a .jinja file, or the template itself"
        return run.config.error(key, "is jinja, but chat_template_jinja is not set", help).problems
    if name not in (None, JINJA) and own:
        return run.config.error(jinja_key, f"has no effect with chat_template: {name}", "drop one of them").problems
    run_has_template = top and (top.chat_template_jinja or top.chat_template not in (None, DEFAULT))
    if (name == DEFAULT or fallback_name(settings)) and run_has_template:
        # The run's template replaces that of the tokenizer, so the tokenizer's original one is no longer its default
        help = "drop chat_template from the entry, or set it only in entries"
        return run.config.error(key, "contradicts the top-level template, which replaces this one", help).problems
    return []


def _kwargs(run: Run, settings: ChatSettings | ChatDataset, path: Place) -> list[Problem]:
    problems: list[Problem] = []
    for name, value in settings.chat_template_kwargs.items():
        key = (*path, "chat_template_kwargs", name)
        if name in _RESERVED:
            message = "can't be set: its value comes from the row"
            problems += run.config.error(key, message, "drop it").problems
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            problems += run.config.error(key, f"is not a JSON value: {error}").problems
    return problems


def _properties(run: Run, entry: ChatDataset, path: Place) -> list[Problem]:
    """Return the problems of keys that name properties of messages: a name with two meanings."""
    problems: list[Problem] = []
    sources = {"role": "role", "content": "content"} | entry.message_property_mappings
    owners = {source: f"message_property_mappings.{target}" for target, source in sources.items()}
    if unknown := sorted(role for role in entry.turn_markers if role not in {*BUILT_IN, *entry.roles}):
        problems += run.config.error(
            (*path, "turn_markers", unknown[0]), "is an unknown role", "add it to roles:"
        ).problems
    if unknown := sorted(role for role in entry.exchange_turns if role not in {*BUILT_IN, *entry.roles}):
        problems += run.config.error(
            (*path, "exchange_turns", unknown[0]), "is an unknown role", "add it to roles:"
        ).problems
    if not entry.exchange_turns:
        help = "write {user: input, assistant: output}"
        problems += run.config.error((*path, "exchange_turns"), "is empty", help).problems
    if not entry.turn_markers or not all(marker.strip() for marker in entry.turn_markers.values()):
        help = 'write {user: "\\n\\nHuman:", assistant: "\\n\\nAssistant:"}'
        problems += run.config.error(
            (*path, "turn_markers"), "needs a text before the turns of each role", help
        ).problems
    for key in ("field_thinking", "message_field_training", "message_field_training_detail"):
        name = getattr(entry, key)
        if name is None:
            continue
        if name in owners:
            message = f"is {name!r}, which is also the value of {owners[name]}"
            problems += run.config.error((*path, key), message).problems
        owners.setdefault(name, key)
    if entry.template_thinking_key in _PROPERTIES:
        message = f"is {entry.template_thinking_key!r}"
        help = "write the name of the property from which the template reads the reasoning"
        problems += run.config.error((*path, "template_thinking_key"), message, help).problems
    return problems


def _roles(run: Run, entry: ChatDataset, path: Place) -> list[Problem]:
    names = role_names(entry.roles)
    problems: list[Problem] = []
    if not entry.roles_to_train and not entry.message_field_training and not entry.message_field_training_detail:
        problems += run.config.error((*path, "roles_to_train"), "is empty", "write [assistant]").problems
    for index, role in enumerate(entry.roles_to_train):
        roles = {*BUILT_IN, *entry.roles}
        if role not in roles:
            close = names.get(role) or nearest(role, roles)
            help = f"did you mean {close!r}?" if close else "add it to roles: too"
            message = f"unknown role {role!r}; roles: {', '.join(sorted(roles))}"
            problems += run.config.error((*path, "roles_to_train", index), message, help).problems
    owner: dict[str, str] = {}
    for role, aliases in entry.roles.items():
        for alias in aliases:
            if owner.setdefault(alias, role) != role:
                message = f"maps the name {alias!r} to both {owner[alias]} and {role}"
                problems += run.config.error((*path, "roles", role), message).problems
    return problems


def unread(run: Run, settings: ChatSettings | ChatDataset, path: Place, variables: frozenset[str]) -> list[Problem]:
    """Return the problems of template variables in these settings that are not in `variables`, those that are read."""
    problems: list[Problem] = []
    for name in settings.chat_template_kwargs.keys() - variables:
        close = nearest(name, set(variables))
        help = f"did you mean {close!r}?" if close else f"the template reads {', '.join(sorted(variables))}"
        message = "has no effect: the chat template does not read this variable"
        problems += run.config.error((*path, "chat_template_kwargs", name), message, help).problems
    return problems


def no_template(where: str) -> ModelError:
    """Return the error for a tokenizer without a template."""
    help = "write chat_template: with the name of its family (chatml, llama3, ...), or set chat_template_jinja: FILE"
    return ModelError("the tokenizer has no chat template", where=where, help=help, code="chat-template")
