"""Read optim_args, and compute the arguments of an optimizer from the settings. This file imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.spelling import suggestion
from tunesmith_optimizers.recipes import CHOICES, NEGATIVE, Recipe

if TYPE_CHECKING:
    from tunesmith_optimizers import OptimizerSettings

KINDS: dict[type, str] = {
    int: "a whole number above 0", float: "a number of at least 0", bool: "true or false", str: "a text",
}  # fmt: skip
EFFECTS = {"adam_beta1", "adam_beta2", "adam_beta3", "adam_epsilon", "adam_epsilon2", "optim_target_modules"}
"""Keys that some optimizers do not read."""


def read(options: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return optim_args as a mapping. A text is "name=value, name=value", as in transformers."""
    if not isinstance(options, str):
        return dict(options or {})
    values: dict[str, Any] = {}
    for part in filter(None, map(str.strip, options.split(","))):
        name, _, value = part.partition("=")
        values[name.strip()] = _number(value.strip())
    return values


def _number(text: str) -> Any:
    """Return the number or the truth value that a text is, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def problems(recipe: Recipe, name: str, settings: OptimizerSettings) -> Iterator[tuple[str, str, str]]:
    """Yield (key, message, help) for each setting without effect, and for each wrong option."""
    used = set(recipe.keys) | ({"optim_target_modules"} if recipe.kind == "projected" else set())
    for key in sorted(settings.model_fields_set & (EFFECTS - used)):
        if getattr(settings, key) is not None:
            yield key, f"has no effect with optimizer: {name}", "drop it"
    for option, value in read(settings.optim_args).items():
        kind = recipe.options.get(option)
        if kind is None:
            known = suggestion(option, recipe.options, "the README of tunesmith-optimizers")
            yield "optim_args", f"has an unknown option for optimizer: {name}: {option}", known
        elif option in CHOICES and value not in CHOICES[option]:
            yield "optim_args", f"has {option}: {value!r}", f"write one of {', '.join(CHOICES[option])}"
        elif option in NEGATIVE:
            if isinstance(value, bool | str) or not value < 0:
                yield "optim_args", f"has {option}: {value!r}, which is not a number below 0", "write a negative number"
        elif not _fits(value, kind):
            yield "optim_args", f"has {option}: {value!r}, which is not {KINDS[kind]}", f"write {KINDS[kind]}"


def _fits(value: Any, kind: type) -> bool:
    """Return True for a value of the kind. Whole numbers are numbers, and truth values are not."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is str:
        return isinstance(value, str)
    return isinstance(value, int if kind is int else int | float) and value >= (1 if kind is int else 0)


def arguments(recipe: Recipe, settings: OptimizerSettings) -> dict[str, Any]:
    """Return the arguments of the library's class, beside the groups and the learning rate."""
    values = {key: default if (own := getattr(settings, key)) is None else own for key, default in recipe.keys.items()}
    result: dict[str, Any] = {**recipe.fixed}
    if betas := tuple(values[key] for key in ("adam_beta1", "adam_beta2", "adam_beta3") if key in values):
        result["betas"] = betas
    epsilons = tuple(values[key] for key in ("adam_epsilon", "adam_epsilon2") if key in values)
    if len(recipe.epsilon) == len(epsilons):
        result |= zip(recipe.epsilon, epsilons, strict=True)
    elif epsilons:
        result[recipe.epsilon[0]] = epsilons
    return result | read(settings.optim_args)
