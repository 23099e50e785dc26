"""Set the run's template on its tokenizer, and check that a model can learn the end of a turn."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tunesmith import ConfigError, Problem
from tunesmith.spelling import nearest
from tunesmith_chat import ChatDataset, ChatSettings, named
from tunesmith_chat.checks import Place, chats
from tunesmith_chat.sources import Templates, by_name, fallback_name, name_of, own_template, read_named

if TYPE_CHECKING:
    from tunesmith import Run

Ends = list[tuple[str, str, str]]
"""For each end token: its text, the option that applies to it, and the value of that option."""


def prepare(run: Run, tokenizer: Any) -> None:
    """Set the run's template on the tokenizer, and check the end tokens. Raise ConfigError."""
    top = run.settings(ChatSettings)
    _note_templates(run, tokenizer, top)
    template, fallback = own_template(top, run.config.base), fallback_name(top)
    if fallback and not _own_templates(tokenizer):
        template = read_named(fallback)
    if template is not None:
        tokenizer.chat_template = template
    problems = _eot_tokens(run, tokenizer, top)
    sources: list[tuple[Place, ChatSettings | ChatDataset]] = [((), top), *chats(run)]
    for path, settings in sources:
        problems += _named_ends(run, tokenizer, top, settings, path)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def end_tokens(tokenizer: Any, top: ChatSettings, entry: ChatDataset) -> Ends:
    """Return the tokens that may end a turn under the template of an entry."""
    eos = tokenizer.eos_token
    ends: Ends = [(eos or "", "train_on_eos", entry.train_on_eos)]
    own = top.eot_tokens or [token for token in _ends_of(entry, top) if is_token(tokenizer, token)]
    mode = entry.train_on_eot or entry.train_on_eos
    return ends + [(token, "train_on_eot", mode) for token in own if token != eos]


def is_token(tokenizer: Any, text: str) -> bool:
    """Return True if a text is a single token of the vocabulary."""
    return text in tokenizer.get_added_vocab() or len(tokenizer.encode(text, add_special_tokens=False)) == 1


def _ends_of(*settings: ChatSettings | ChatDataset) -> tuple[str, ...]:
    """Return the end tokens of the built-in template named by the first settings that set a template.

    The result is () if they name no built-in template, or one that ends turns with the tokenizer's end token.
    """
    for source in settings:
        if source.chat_template is not None or source.chat_template_jinja is not None:
            name = name_of(source)
            return named.END_TOKENS[name] if name else ()
    return ()


def _eot_tokens(run: Run, tokenizer: Any, top: ChatSettings) -> list[Problem]:
    problems: list[Problem] = []
    for index, token in enumerate(top.eot_tokens):
        if not is_token(tokenizer, token):
            close = nearest(token, set(tokenizer.get_added_vocab()))
            help = f"did you mean {close!r}?" if close else f"add it: tokens: [{token!r}]"
            message = f"{token!r} is not a token of the vocabulary"
            problems += run.config.error(("eot_tokens", index), message, help).problems
    for path, entry in chats(run):
        if entry.train_on_eot not in (None, entry.train_on_eos) and tokenizer.eos_token in top.eot_tokens:
            message = f"contradicts train_on_eos: {entry.train_on_eos}, as eot_tokens contains {tokenizer.eos_token!r}"
            problems += run.config.error((*path, "train_on_eot"), message, "drop it from eot_tokens").problems
    return problems


def _named_ends(
    run: Run, tokenizer: Any, top: ChatSettings, settings: ChatSettings | ChatDataset, path: Place
) -> list[Problem]:
    """Return the problems of a named template whose end tokens can't be learned. Warn about other missing tokens."""
    name, key = name_of(settings), (*path, "chat_template")
    ends = _ends_of(settings)
    if not name or (
        fallback_name(settings) and _own_templates(tokenizer).get("default") not in (None, read_named(name))
    ):
        return []
    shown, eos = " or ".join(map(repr, ends)), tokenizer.eos_token
    if ends and eos not in ends and not any(is_token(tokenizer, token) for token in ends):
        message = f"is {name}, which ends a turn with {shown}; that is not in the vocabulary, so it can't be learned"
        help = f"add it: tokens: [{ends[0]!r}], special_tokens: {{eos_token: {ends[0]!r}}}; or use another template"
        return run.config.error(key, message, help).problems
    warnings = []
    if ends and eos not in ends:
        warnings.append(
            f"{name} ends a turn with {shown}, but the tokenizer's end token is {eos!r}, so generation would not stop "
            f"at the end of a turn; write special_tokens: {{eos_token: {ends[0]!r}}}"
        )
    if missing := named.missing_tokens(name, tokenizer.get_vocab()):
        warnings.append(
            f"{name} writes {', '.join(map(repr, missing))}, which the vocabulary does not have, so it is split into "
            "several tokens; use the template of the model's family, or write tokens: [...]"
        )
    if warnings:
        run.warn(key, "; ".join(warnings))
    return []


def _own_templates(tokenizer: Any) -> Templates:
    return by_name(getattr(tokenizer, "chat_template", None))


def _note_templates(run: Run, tokenizer: Any, top: ChatSettings) -> None:
    """Note in the summary each template of the YAML that differs from the tokenizer's, with both hashes."""
    theirs = _own_templates(tokenizer)
    run_has_template = own_template(top, run.config.base) is not None or fallback_name(top) is not None
    sources: list[tuple[str, ChatSettings | ChatDataset]] = [("chat template", top)]
    for spec in run.config.entries:
        if isinstance(spec.options, ChatDataset):
            sources.append((f"chat template ({spec.where})", spec.options))
    for key, settings in sources:
        own, fallback = own_template(settings, run.config.base), fallback_name(settings)
        if fallback:
            run.note(key, f"the tokenizer's own, not {fallback}" if theirs else f"{fallback}; the tokenizer has none")
        elif own is not None and own != theirs.get("default"):
            used = f"{settings.chat_template if name_of(settings) else 'from chat_template_jinja'}, {_hash(own)}"
            if theirs:
                stored = _hash(theirs["default"]) if "default" in theirs else ", ".join(theirs)
                run.note(key, f"{used}; the tokenizer's own is {stored}")
            elif settings is not top and not run_has_template:
                hint = "the tokenizer is saved without a template; to save one, set chat_template at the top level"
                run.note(key, f"{used}; {hint}")


def _hash(template: str) -> str:
    return f"sha256 {hashlib.sha256(template.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
