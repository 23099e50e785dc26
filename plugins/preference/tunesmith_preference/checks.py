"""What of an entry can be checked before any row is read."""

from __future__ import annotations

from tunesmith import ConfigError, DatasetSpec, Problem, Run
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
"""What can stand in the format of each part of a row."""


def check_entries(run: Run) -> None:
    """Raises ConfigError with every key that has no effect and every format that can't be filled in."""
    problems: list[Problem] = []
    for spec in run.config.entries:
        if isinstance(spec.options, PreferenceDataset):
            problems += _problems(run, spec, spec.options)
    if problems:
        raise ConfigError(problems)


def _problems(run: Run, spec: DatasetSpec, options: PreferenceDataset) -> list[Problem]:
    found: list[Problem] = []
    place: KeyPath = (spec.group, spec.index)
    if spec.type == "user_defined":
        place += ("type",)
    works = keys_of(spec.row_kind, spec.type)
    for key in sorted(options.model_fields_set):
        if key not in works:
            message = f"has no effect with type: {spec.type} and {spec.row_kind} rows"
            help = f"this type reads {', '.join(sorted(works)) or 'no key of its own'}"
            found += run.config.error((*place, key), message, help).problems
        elif key.endswith("_format") and (wrong := _flaw(key, getattr(options, key))):
            found += run.config.error((*place, key), wrong).problems
    if "field_system" in options.model_fields_set & works and reads_no_system(spec, options):
        message = "has no effect: no {system} stands in prompt_format"
        help = 'write prompt_format: "{system} {prompt}", as it should be'
        found += run.config.error((*place, "field_system"), message, help).problems
    return found


def keys_of(kind: str, type_name: str) -> set[str]:
    """The keys of an entry that have an effect with this type."""
    form = FORMATS[kind][type_name]
    keys = {f"field_{name}" for name in form.fields} | ({"field_label"} if kind == "labelled" else set())
    if form.markup is None:
        keys |= {f"{name}_format" for name in ("prompt", *form.answers)}
    return keys | ({"nectar_pair"} if form.ranked else set())


def reads_no_system(spec: DatasetSpec, options: PreferenceDataset) -> bool:
    """Whether texts stand as the entry's formats write them, and these have no place for a system prompt."""
    return FORMATS[spec.row_kind][spec.type].markup is None and "{system}" not in options.prompt_format


def _flaw(key: str, text: str) -> str | None:
    part = key.removesuffix("_format")
    try:
        template = Template(text, NAMES[part])
    except ValueError as error:
        return str(error)
    return None if part in template.names else f"has no {{{part}}}: every row would read the same"
