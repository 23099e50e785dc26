"""Check the keys of an adapter without peft and torch."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

from tunesmith import EnvironmentProblem
from tunesmith_adapters.settings import REFUSED, TYPES, Saved, options_of

if TYPE_CHECKING:
    from tunesmith import Run

PATTERNS = ("target_modules", "exclude_modules")
"""Options that are a list of names or a regular expression."""


def check(run: Run, settings: Saved) -> None:
    """Raise ConfigError for a type that can't be trained, and for options that are wrong or have no effect."""
    name = run.core.adapter
    if name in REFUSED:
        help = "write adapter: lora, or another type of docs/adapters.md"
        raise run.config.error("adapter", f"{name} can't be trained here: {REFUSED[name]}", help)
    with run.config.checking() as wrong:
        for other in TYPES:
            if getattr(settings, other) is None:
                continue
            if name in TYPES and other != name:
                wrong(other, f"has no effect with adapter: {name}", f"rename it to {name}, or drop it")
            elif settings.adapter_model_dir:
                wrong(other, "has no effect: the adapter in adapter_model_dir has its own options", "drop it")
        if name not in TYPES or settings.adapter_model_dir:
            return
        options = options_of(settings, name)
        required = TYPES[name].get("required")
        if required and not options[required]:
            wrong("adapter", f"{name} needs {name}.{required}", f"write {name}: {{{required}: [...]}}")
        if run.method.exports and "modules_to_save" not in options:
            wrong("adapter", f"{name} can't train the new head of a classifier", "write adapter: lora")
        if name == "adalora" and options["init_r"] <= options["target_r"]:
            wrong(
                "adalora",
                "needs an init_r above its target_r: ranks shrink",
                "write adalora: {init_r: 12, target_r: 8}",
            )
        for key in PATTERNS:
            if isinstance(pattern := options.get(key), str):
                try:
                    re.compile(pattern)
                except re.error as error:
                    wrong((name, key), f"is not a regular expression: {error}", "write a list of names, or fix it")
        if options.get("layers_pattern") and options["layers_to_transform"] is None:
            wrong((name, "layers_pattern"), "has no effect without layers_to_transform", "list the layers, or drop it")


def check_library(run: Run) -> None:
    """Raise EnvironmentProblem if the type needs a library that is not installed."""
    name = str(run.core.adapter)
    library = TYPES.get(name, {}).get("needs")
    if library and importlib.util.find_spec(library) is None:
        message = f"adapter: {name} needs {library}, which is not installed"
        help = f'pip install "tunesmith[{name}]"'
        raise EnvironmentProblem(message, where=run.config.place("adapter"), help=help)
