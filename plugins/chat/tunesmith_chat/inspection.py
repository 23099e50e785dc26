"""Templates before a row is read: they exist, they compile, and they read the variables that they are given."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import ConfigError, ModelError, Problem
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.checks import Place, chats, no_template, unread
from tunesmith_chat.renderer import BadTemplate, Form, Renderer
from tunesmith_chat.sources import (
    Templates,
    fallback_name,
    name_of,
    own_template,
    read_named,
    read_template,
    stored_templates,
    templates_for,
)  # fmt: skip

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run


def read_templates(run: Run) -> None:
    """Check every template, and put the text of an entry's own one in its options.

    So it is read once, and prepared data depends on what it says (the run's own one is part of its tokenizer).
    Raises ConfigError for a template of the YAML, ModelError for one of the tokenizer, that is absent or no Jinja.
    """
    top, base = run.settings(ChatSettings), run.config.base
    folder = Path(run.core.tokenizer_path)
    entries = list(chats(run))
    with Renderer() as renderer:
        problems = _own(run, renderer, top, ())
        for path, entry in entries:
            problems += _own(run, renderer, entry, path)
        if problems:
            raise ConfigError(problems)
        theirs: Templates | None = None
        if folder.is_dir() and not all(own_template(one, base) or own_template(top, base) for _, one in entries):
            fallback = fallback_name(top) or all(fallback_name(entry) for _, entry in entries)
            theirs = _stored(renderer, folder, required=not fallback)
        problems = _variables(run, renderer, entries, theirs)
        if problems:
            raise ConfigError(problems)
    run.config.replace_entries(lambda spec: _with_text(run, spec))


def _with_text(run: Run, spec: DatasetSpec) -> DatasetSpec:
    """The entry with the text of its template in place of a path or name."""
    options = spec.options
    if not isinstance(options, ChatDataset):
        return spec
    if options.chat_template_jinja:
        text = read_template(options.chat_template_jinja, run.config.base)
    elif name := name_of(options):
        text = read_named(name)
    else:
        return spec
    return dataclasses.replace(spec, options=options.model_copy(update={"chat_template_jinja": text}))


def _own(run: Run, renderer: Renderer, settings: ChatSettings | ChatDataset, path: Place) -> list[Problem]:
    """Problems of a template that the YAML gives."""
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


def _variables(
    run: Run, renderer: Renderer, entries: list[tuple[Place, ChatDataset]], theirs: Templates | None
) -> list[Problem]:
    """Problems of variables that no template reads, as far as the templates are known yet."""
    top = run.settings(ChatSettings)
    problems: list[Problem] = []
    by_any: frozenset[str] = frozenset()
    all_known = True
    for path, entry in entries:
        kwargs = top.chat_template_kwargs | entry.chat_template_kwargs
        templates = templates_for(entry, top, theirs or {}, run.config.base)
        if not templates or (theirs is None and (fallback_name(entry) or fallback_name(top))):
            all_known = False
        elif kwargs:
            forms = [Form(text, kwargs=kwargs) for text in templates.values()]
            read = frozenset(name for form in forms for name in renderer.open(form).variables)
            problems += unread(run, entry, path, read)
            by_any |= read
    return problems + (unread(run, top, (), by_any) if all_known and entries else [])


def _stored(renderer: Renderer, folder: Path, required: bool) -> Templates:
    """The templates of a tokenizer's folder, which compile. Raises ModelError."""
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
    if not templates and required:
        raise no_template(str(folder))
    return templates
