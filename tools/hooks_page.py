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
 check_row           keyed   the first row of each local dataset
    |                        ... `check` and `hooks` end here
 diagnose            all     only in `doctor`: what the run needs on this machine
 on_progress         all     from here on, whenever people wait: the phase, and how much of it is done
    |
 build_parallelism   one     processes and devices; the engine's own if no plugin answers
 load_tokenizer      one
    |   for each entry of datasets and test_datasets:
 load_rows           keyed   rows
 filter_rows         chain   the rows of all entries together; drops some
 build_dataset       keyed   rows to examples; then sequence_len, held-out split, cache
    |                        ... `preprocess` ends here
 configure           all     classes patched, states registered
 load_model          keyed   the policy
 patch_model         chain   the policy: adapters, kernels, freezing
    |   for the reference, if it is a model of its own, and for each model of run.load_model:
 load_model          keyed   frozen afterwards
 patch_model         chain   kernels
 build_scorer        one     log-probabilities from hidden states; chunks if no plugin answers
    |                        ... `plan` runs these without weights; `verify` then rehearses a step
 saved_parameters    all     every trained parameter must have a plugin that saves it
 learning_rate_factors  all  parts of the model with a learning rate of their own
 build_optimizer     one
 build_scheduler     one
    |   resume_from_checkpoint: everything is restored
 build_generator     keyed   if the method generates completions elsewhere than in the policy
 on_start            all
    |
    |   for each round of an online method, which is one or more optimizer steps:
    |     rollout             one     prompts to groups of completions; by default one turn each
    |     score_rewards       keyed   a score for each completion; dead groups may be drawn again
    |     compute_advantages  one     then packed, and split into minibatches
    |   for each optimizer step:
    |     prepare_step    all     all micro-batches of the step, without gradient
    |       for each micro-batch: one forward pass
    |       compute_loss  one     the terms, and those that wrappers add; then the backward pass
    |     gradients are clipped; if loss and norm are finite, weights are updated
    |     if an evaluation is due: rollout if online, prepare_step and compute_loss on the held-out examples, and then
    |     evaluate        all     your own measurements, with or without held-out examples
    |     on_step         all     add to the record, watch, stop
    |     write_log       all     if the step is logged or evaluated: the record, to be written; on the main process
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
| all | all plugins in call order; what `diagnose` and `evaluate` return is collected |

If no plugin answers `build_parallelism`, `build_scorer`, `rollout` or `compute_advantages`, the engine does. An
implementation lists only the arguments that it uses. The call order is the `plugins:` list, then the other active
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
