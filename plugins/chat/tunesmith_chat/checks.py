"""What can be known to be wrong before a row is read: keys that do not go together, templates that do not exist."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import ConfigError, ModelError, Problem
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.roles import BUILT_IN, role_names
from tunesmith_chat.sources import KNOWN, read_template, stored_templates

if TYPE_CHECKING:
    from tunesmith import Run
    from tunesmith_chat.renderer import Renderer

Place = tuple[str | int, ...]


def check_settings(run: Run) -> None:
    """Raise ConfigError with every problem of the chat keys that needs no file."""
    top = run.settings(ChatSettings)
    problems = list(_template_keys(run, top, ()))
    for path, entry in _entries(run):
        problems += _template_keys(run, entry, path, top)
        problems += _roles(run, entry, path)
    if problems:
        raise ConfigError(problems)


def read_templates(run: Run) -> None:
    """Check every template, and put the text of an entry's own file in place of its path.

    So it is read once, and prepared data depends on what it says (the run's own one is part of its tokenizer).
    Raises ConfigError for a template of the YAML, ModelError for one of the tokenizer, that is absent or no Jinja.
    """
    from tunesmith_chat.renderer import Renderer

    top = run.settings(ChatSettings)
    with Renderer() as renderer:
        problems = _own(run, renderer, top, ())
        from_tokenizer = False
        for path, entry in _entries(run):
            problems += _own(run, renderer, entry, path)
            from_tokenizer = from_tokenizer or not (entry.chat_template_jinja or top.chat_template_jinja)
        if problems:
            raise ConfigError(problems)
        folder = Path(run.core.tokenizer_path)
        if from_tokenizer and folder.is_dir():
            _check_folder(renderer, folder)
    for specs in (run.config.datasets, run.config.pretraining):
        for index, spec in enumerate(specs):
            if isinstance(spec.options, ChatDataset) and spec.options.chat_template_jinja:
                text = read_template(spec.options.chat_template_jinja, run.config.base)
                options = spec.options.model_copy(update={"chat_template_jinja": text})
                specs[index] = dataclasses.replace(spec, options=options)


def _entries(run: Run) -> Iterator[tuple[Place, ChatDataset]]:
    for group, specs in (("datasets", run.config.datasets), ("pretraining_dataset", run.config.pretraining)):
        for index, spec in enumerate(specs):
            if isinstance(spec.options, ChatDataset):
                yield (group, index), spec.options


def _template_keys(
    run: Run, settings: ChatSettings | ChatDataset, path: Place, top: ChatSettings | None = None
) -> list[Problem]:
    name, own = settings.chat_template, settings.chat_template_jinja
    key, other = (*path, "chat_template"), (*path, "chat_template_jinja")
    if name is not None and name not in KNOWN:
        message = f"is {name!r}; known: {', '.join(KNOWN)}"
        help = "tokenizer_default takes the model's own template; for another one write jinja, and chat_template_jinja"
        return run.config.error(key, message, help).problems
    if name == "jinja" and not own and not (top and top.chat_template_jinja):
        help = "write chat_template_jinja: the path of a .jinja file, or the template itself"
        return run.config.error(key, "is jinja, and chat_template_jinja gives no template", help).problems
    if name == "tokenizer_default" and own:
        return run.config.error(other, "has no effect with chat_template: tokenizer_default", "drop one").problems
    if name == "tokenizer_default" and top and top.chat_template_jinja:
        # The tokenizer is saved with the run's template, so its former one is no longer its default
        help = "drop the entry's chat_template, or give each entry its own chat_template_jinja"
        return run.config.error(key, "goes against the template that the run gives its tokenizer", help).problems
    return []


def _roles(run: Run, entry: ChatDataset, path: Place) -> list[Problem]:
    names = role_names(entry.roles)
    problems: list[Problem] = []
    if not entry.roles_to_train:
        problems += run.config.error((*path, "roles_to_train"), "names no role", "write [assistant]").problems
    for index, role in enumerate(entry.roles_to_train):
        known = {*BUILT_IN, *entry.roles}
        if role not in known:
            close = names.get(role) or next(iter(difflib.get_close_matches(role, sorted(known), 1)), None)
            help = f"did you mean {close!r}?" if close else "name it in roles: too"
            message = f"is {role!r}; roles: {', '.join(sorted(known))}"
            problems += run.config.error((*path, "roles_to_train", index), message, help).problems
    owner: dict[str, str] = {}
    for role, aliases in entry.roles.items():
        for alias in aliases:
            if owner.setdefault(alias, role) != role:
                message = f"gives the name {alias!r} to both {owner[alias]} and {role}"
                problems += run.config.error((*path, "roles", role), message).problems
    return problems


def _own(run: Run, renderer: Renderer, settings: ChatSettings | ChatDataset, path: Place) -> list[Problem]:
    """Problems of a template that the YAML gives."""
    from tunesmith_chat.renderer import BadTemplate, Form

    key = (*path, "chat_template_jinja")
    if not settings.chat_template_jinja:
        return []
    try:
        template = read_template(settings.chat_template_jinja, run.config.base)
        renderer.open(Form(template))
    except (OSError, UnicodeDecodeError) as error:
        help = f"the path is relative to the folder of the YAML, {run.config.base}; or write the template itself"
        return run.config.error(key, f"can't be read: {error}", help).problems
    except BadTemplate as bad:
        return run.config.error(key, str(bad), bad.help).problems
    return [] if "{" in template else run.config.error(key, "is a file without any Jinja in it").problems


def _check_folder(renderer: Renderer, folder: Path) -> None:
    from tunesmith_chat.renderer import BadTemplate, Form

    try:
        templates = stored_templates(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the tokenizer's chat template can't be read: {error}", where=str(folder)) from error
    for text in templates.values():
        try:
            renderer.open(Form(text))
        except BadTemplate as bad:
            message = f"the tokenizer's chat template {bad}"
            raise ModelError(message, where=str(folder), code=bad.code, help=bad.help) from bad
    if not templates:
        raise no_template(str(folder))


def no_template(where: str) -> ModelError:
    """The error for a tokenizer without a template."""
    help = "write chat_template: jinja and chat_template_jinja: ./chat.jinja with a template of the model's family"
    return ModelError("the tokenizer has no chat template", where=where, help=help, code="chat-template")
