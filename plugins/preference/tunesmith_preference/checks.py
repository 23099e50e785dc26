"""Check the entries before any row is read: keys without effect and invalid formats."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith import DatasetSpec, Run
from tunesmith.config.yamlfile import KeyPath
from tunesmith_preference import PreferenceDataset
from tunesmith_preference.formats import FORMATS
from tunesmith_preference.template import Template

NAMES = {
    "prompt": ("prompt", "system"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "completion": ("completion",),
}
"""Part of a row -> names that its format may have."""


def check_entries(run: Run) -> None:
    """Raise ConfigError with every key that has no effect and every invalid format."""
    with run.config.checking() as wrong:
        for spec in run.config.entries:
            if isinstance(spec.options, PreferenceDataset):
                for mistake in _mistakes(spec, spec.options):
                    wrong(*mistake)


def _mistakes(spec: DatasetSpec, options: PreferenceDataset) -> Iterator[tuple[KeyPath, str, str | None]]:
    """Yield key, message and help of each mistake of an entry."""
    entry: KeyPath = (spec.group, spec.index)
    if spec.type == "user_defined":
        entry += ("type",)
    effective = keys_of(spec.row_kind, spec.type)
    for key in sorted(options.model_fields_set):
        if key not in effective:
            message = f"has no effect with type: {spec.type} and {spec.row_kind} rows"
            yield (*entry, key), message, f"this type reads {', '.join(sorted(effective)) or 'no keys of its own'}"
        elif key.endswith("_format") and (problem := _why_invalid(key, getattr(options, key))):
            yield (*entry, key), problem, None
    if "field_system" in options.model_fields_set & effective and reads_no_system(spec, options):
        message = "has no effect: prompt_format does not have {system}"
        yield (*entry, "field_system"), message, 'for example, write prompt_format: "{system} {prompt}"'


def keys_of(kind: str, type_name: str) -> set[str]:
    """Return the keys of an entry that have an effect with this type."""
    form = FORMATS[kind][type_name]
    keys = {f"field_{name}" for name in form.fields} | ({"field_label"} if kind == "labelled" else set())
    if form.markup is None:
        keys |= {f"{name}_format" for name in ("prompt", *form.answers)}
    return keys | ({"nectar_pair"} if form.ranked else set())


def reads_no_system(spec: DatasetSpec, options: PreferenceDataset) -> bool:
    """Return True if the entry's own formats write its texts, and they have no place for a system prompt."""
    return FORMATS[spec.row_kind][spec.type].markup is None and "{system}" not in options.prompt_format


def _why_invalid(key: str, text: str) -> str | None:
    part = key.removesuffix("_format")
    try:
        template = Template(text, NAMES[part])
    except ValueError as error:
        return str(error)
    return None if part in template.names else f"must have {{{part}}}, or every row would have the same text"
