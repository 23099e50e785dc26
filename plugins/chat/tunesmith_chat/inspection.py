"""Check chat templates before rows are read: they exist, compile, and read the variables passed to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import ConfigError, ModelError, Problem
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.checks import Place, chats, no_template, unread
from tunesmith_chat.renderer import BadTemplate, Renderer, TemplateSpec
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
    """Check every template, and store the text of an entry's template in its options.

    Each file is thus read once, and the fingerprint of prepared data includes the text. The run's template is part of
    its tokenizer. Raise ConfigError for a missing or invalid template of the YAML, ModelError for one of the tokenizer.
    """
    top, base = run.settings(ChatSettings), run.config.base
    folder = Path(run.core.tokenizer_path)
    entries = list(chats(run))
    with Renderer() as renderer:
        problems = _yaml_template(run, renderer, top, ())
        for path, entry in entries:
            problems += _yaml_template(run, renderer, entry, path)
        if problems:
            raise ConfigError(problems)
        theirs: Templates | None = None
        if folder.is_dir() and not all(own_template(entry, base) or own_template(top, base) for _, entry in entries):
            fallback = fallback_name(top) or all(fallback_name(entry) for _, entry in entries)
            theirs = _stored(renderer, folder, required=not fallback)
        problems = _variables(run, renderer, entries, theirs)
        if problems:
            raise ConfigError(problems)
    run.config.replace_entries(lambda spec: _with_text(run, spec))


def _with_text(run: Run, spec: DatasetSpec) -> DatasetSpec:
    """Return the entry with the text of its template in place of a path or name."""
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


def _yaml_template(run: Run, renderer: Renderer, settings: ChatSettings | ChatDataset, path: Place) -> list[Problem]:
    """Return the problems of the chat_template_jinja of the run or of an entry."""
    key = (*path, "chat_template_jinja")
    if not settings.chat_template_jinja:
        return []
    try:
        template = read_template(settings.chat_template_jinja, run.config.base)
        renderer.open(TemplateSpec(template))
    except (OSError, UnicodeDecodeError) as error:
        help = f"write a path relative to the folder of the YAML, {run.config.base}, or the template itself"
        return run.config.error(key, f"can't be read: {error}", help).problems
    except BadTemplate as bad:
        return run.config.error(key, str(bad), bad.help).problems
    return [] if "{" in template else run.config.error(key, "is a file that contains no Jinja").problems


def _variables(
    run: Run, renderer: Renderer, entries: list[tuple[Place, ChatDataset]], theirs: Templates | None
) -> list[Problem]:
    """Return the problems of variables that no template reads, for templates that are known at this point."""
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
            specs = [TemplateSpec(text, kwargs=kwargs) for text in templates.values()]
            read = frozenset(name for spec in specs for name in renderer.open(spec).variables)
            problems += unread(run, entry, path, read)
            by_any |= read
    return problems + (unread(run, top, (), by_any) if all_known and entries else [])


def _stored(renderer: Renderer, folder: Path, required: bool) -> Templates:
    """Return the templates of a tokenizer's folder. Raise ModelError if one can't be read or does not compile."""
    try:
        templates = stored_templates(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the tokenizer's chat template can't be read: {error}", where=str(folder)) from error
    for text in templates.values():
        try:
            renderer.open(TemplateSpec(text))
        except BadTemplate as bad:
            message = f"the tokenizer's chat template {bad}"
            raise ModelError(message, where=str(folder), code=bad.code, help=bad.help) from bad
    if not templates and required:
        raise no_template(str(folder))
    return templates
