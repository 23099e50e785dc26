"""The run's tokenizer: gets the run's template, and is asked whether a model could learn where a turn ends."""

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
"""End tokens, each with the option that says which of them are trained, and its value."""


def prepare(run: Run, tokenizer: Any) -> None:
    """Give the tokenizer the run's template, and check its end tokens. Raises ConfigError."""
    top = run.settings(ChatSettings)
    _note_templates(run, tokenizer, top)
    template, fallback = own_template(top, run.config.base), fallback_name(top)
    if fallback and not _own_templates(tokenizer):
        template = read_named(fallback)
    if template is not None:
        tokenizer.chat_template = template
    problems = _eot_tokens(run, tokenizer, top)
    said: list[tuple[Place, ChatSettings | ChatDataset]] = [((), top), *chats(run)]
    for path, settings in said:
        problems += _named_ends(run, tokenizer, top, settings, path)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def end_tokens(tokenizer: Any, top: ChatSettings, entry: ChatDataset) -> Ends:
    """What may end a turn under the template of an entry."""
    eos = tokenizer.eos_token
    ends: Ends = [(eos or "", "train_on_eos", entry.train_on_eos)]
    own = top.eot_tokens or [token for token in _ends_of(entry, top) if is_token(tokenizer, token)]
    mode = entry.train_on_eot or entry.train_on_eos
    return ends + [(token, "train_on_eot", mode) for token in own if token != eos]


def is_token(tokenizer: Any, text: str) -> bool:
    """Whether a text is one token of the vocabulary."""
    return text in tokenizer.get_added_vocab() or len(tokenizer.encode(text, add_special_tokens=False)) == 1


def _ends_of(*settings: ChatSettings | ChatDataset) -> tuple[str, ...]:
    """Of the first of these settings that says anything of templates: the end tokens of the one of ours that it names.

    () where it names none, or one that ends turns with the tokenizer's own end token.
    """
    for one in settings:
        if one.chat_template is not None or one.chat_template_jinja is not None:
            name = name_of(one)
            return named.END_TOKENS[name] if name else ()
    return ()


def _eot_tokens(run: Run, tokenizer: Any, top: ChatSettings) -> list[Problem]:
    problems: list[Problem] = []
    for index, token in enumerate(top.eot_tokens):
        if not is_token(tokenizer, token):
            close = nearest(token, set(tokenizer.get_added_vocab()))
            help = f"did you mean {close!r}?" if close else f"add it: tokens: [{token!r}]"
            message = f"{token!r} is no token of the vocabulary"
            problems += run.config.error(("eot_tokens", index), message, help).problems
    for path, entry in chats(run):
        both = entry.train_on_eot not in (None, entry.train_on_eos) and tokenizer.eos_token in top.eot_tokens
        if both:
            message = f"goes against train_on_eos: {entry.train_on_eos}: {tokenizer.eos_token!r} is in eot_tokens too"
            problems += run.config.error((*path, "train_on_eot"), message, "drop it from eot_tokens").problems
    return problems


def _named_ends(
    run: Run, tokenizer: Any, top: ChatSettings, settings: ChatSettings | ChatDataset, path: Place
) -> list[Problem]:
    """Problems of a named template whose end tokens a model with this tokenizer could not learn."""
    name, key = name_of(settings), (*path, "chat_template")
    ends = _ends_of(settings)
    if not name or (
        fallback_name(settings) and _own_templates(tokenizer).get("default") not in (None, read_named(name))
    ):
        return []
    shown, eos = " or ".join(map(repr, ends)), tokenizer.eos_token
    if ends and eos not in ends and not any(is_token(tokenizer, token) for token in ends):
        message = f"is {name}, which ends a turn with {shown}: no token of the vocabulary, so it could not be learned"
        help = f"add it: tokens: [{ends[0]!r}], special_tokens: {{eos_token: {ends[0]!r}}}; or take another template"
        return run.config.error(key, message, help).problems
    warnings = []
    if ends and eos not in ends:
        warnings.append(
            f"{name} ends a turn with {shown}, and the tokenizer's end token is {eos!r}: who generates has to stop at "
            f"the former; write special_tokens: {{eos_token: {ends[0]!r}}}"
        )
    if lacking := named.lacking(name, tokenizer.get_vocab()):
        warnings.append(
            f"{name} writes {', '.join(map(repr, lacking))}, which the vocabulary does not have: it becomes several "
            "tokens; take the template of the model's family, or write tokens: [...]"
        )
    if warnings:
        run.warn(key, "; ".join(warnings))
    return []


def _own_templates(tokenizer: Any) -> Templates:
    return by_name(getattr(tokenizer, "chat_template", None))


def _note_templates(run: Run, tokenizer: Any, top: ChatSettings) -> None:
    """Say in the summary where a template of the YAML is another than the tokenizer's, each by its hash."""
    theirs = _own_templates(tokenizer)
    brought = own_template(top, run.config.base) is not None or fallback_name(top) is not None
    said: list[tuple[str, ChatSettings | ChatDataset]] = [("chat template", top)]
    for spec in run.config.entries:
        if isinstance(spec.options, ChatDataset):
            said.append((f"chat template ({spec.where})", spec.options))
    for key, settings in said:
        own, fallback = own_template(settings, run.config.base), fallback_name(settings)
        if fallback:
            run.note(key, f"the tokenizer's own, not {fallback}" if theirs else f"{fallback}; the tokenizer has none")
        elif own is not None and own != theirs.get("default"):
            what = f"{settings.chat_template if name_of(settings) else 'of chat_template_jinja'}, {_hash(own)}"
            if theirs:
                hashed = _hash(theirs["default"]) if "default" in theirs else ", ".join(theirs)
                run.note(key, f"{what}; the tokenizer's own is {hashed}")
            elif settings is not top and not brought:
                run.note(
                    key, f"{what}; the tokenizer has none and is saved so: chat_template at the top level gives it one"
                )


def _hash(template: str) -> str:
    return f"sha256 {hashlib.sha256(template.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
