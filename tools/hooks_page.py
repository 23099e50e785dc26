"""Write docs/hooks.md from the docstrings of hookspecs/."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from pieces import page, points

from tunesmith.plugins.hookspecs import HOOKS

HEAD = """
A *hook* is a named step of a run. A plugin takes part in a run by implementing hooks: a function with the name of the
hook and the decorator `@hookimpl`. A run calls the hooks in this order:

```text
 run.yaml
    |   load_config: keys, types, owners, which plugins; arity of every hook
    v
 validate            all     settings, compared with each other
 inspect             all     files and packages that the run needs
    |                        ... `check` and `hooks` end here
 diagnose            all     only in `doctor`: what the run needs on this machine
    |
 load_tokenizer      one
    |   for each entry of datasets and test_datasets:
 load_rows           keyed   rows
 filter_rows         chain   the rows of all entries together; drops some
 build_dataset       keyed   rows to examples; then sequence_len, held-out split, cache
    |                        ... `preprocess` ends here
 configure           all     load arguments, classes patched, states registered
 load_model          one     role "policy"
 patch_model         chain   adapters, kernels, freezing
 load_model          one     role "reference", if one is needed and no adapter can be switched off
    |                        ... `plan` runs these without weights; `verify` ends here
 build_optimizer     one
 build_scheduler     one
    |   resume_from_checkpoint: everything is restored
 on_start            all
    |
    |   for each optimizer step:
    |     expand          chain   examples of a round to the examples to train on; then packed into batches
    |     prepare_step    all     all micro-batches of the step, without gradient
    |       for each micro-batch: one forward pass
    |       compute_loss  one     the terms, and those that wrappers add; then the backward pass
    |     gradients are clipped; if loss and norm are finite, weights are updated
    |     if an evaluation is due: expand, prepare_step and compute_loss on the held-out examples
    |     on_step         all     log, watch, stop
    |     save_model      all     if a checkpoint is due
    v
 save_model          all     the final model
 on_end              all
```

The *arity* of a hook defines which plugins answer it:

| arity | which plugins answer |
|---|---|
| one | exactly one plugin; two are an error that names both. Wrappers may surround the answer |
| keyed | one plugin for each key; plugins with other keys are not called |
| chain | all plugins in call order; each gets what the one before returned. There are no wrappers |
| all | all plugins in call order; their return values are ignored |

An implementation lists only the arguments that it uses. The call order is the `plugins:` list, then the other active
plugins by name, refined by `after` and `before`; `tunesmith hooks run.yaml` shows it. A misspelled hook, an argument
that the hook does not offer, and a second answer to a hook of arity one are errors before anything is loaded. The types
below are those of `tunesmith`. [write-a-plugin.md](write-a-plugin.md) shows how to use them.

Plugins can declare hooks of their own, which the same rules apply to
([a hook for others](write-a-plugin.md#a-hook-for-others)). [plugins.md](plugins.md) lists them at the plugin that
declares them. Of a plugin that only a `type:` or a `path:` selected, only the hooks of its own data are called.
"""


def hook_section(name: str, function: Any) -> str:
    """Return the section of a hook, from its docstring and signature."""
    text, _, example = inspect.cleandoc(function.__doc__ or "").partition("\nExample:\n")
    text, _, answers = text.partition("Answers: ")
    summary, _, when = text.partition("When: ")
    if not (when and answers and example):
        raise SystemExit(f"the docstring of {name} needs the parts When:, Answers: and Example:")
    signature = inspect.signature(function)
    facts = {
        "Arity": function.arity,
        "Arguments": ", ".join(f"`{p.name}: {p.annotation}`" for p in signature.parameters.values()),
        "Returns": f"`{signature.return_annotation}`",
        "When": when,
        "Answers": answers,
    }
    code = textwrap.dedent(example).strip()
    return f"## {name}\n\n{summary.strip()}\n\n{points(facts)}\n\n```python\n{code}\n```"


def hooks_page() -> str:
    """Return docs/hooks.md."""
    if missing := [name for name in HOOKS if f" {name} " not in HEAD]:
        raise SystemExit(f"missing in the diagram of tools/hooks_page.py: {', '.join(missing)}")
    return page("Hooks", HEAD, *(hook_section(name, function) for name, function in HOOKS.items()))
