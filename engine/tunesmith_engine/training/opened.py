"""Open a saved model to use it: generate, score, compute logits. Nothing is trained and no file is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tunesmith.files.untrusted import leads_out
from tunesmith.run import Run
from tunesmith.saved import SavedModel
from tunesmith_engine.data.prompts import Messages, prompt_tokens, turn_ends
from tunesmith_engine.model.build import build_policy
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.training.generating import Prompts, generate_texts

TEMPLATE = "chat_template.jinja"


@dataclass
class OpenModel:
    """A model that is ready to use.

    Args:
        saved: where it comes from.
        policy: the model as hooks get it, in evaluation mode.
        variables: what the run passed to the chat template.
        stop: strings that end a turn of the chat template; `generate` stops at them.
    """

    saved: SavedModel
    policy: Policy = field(repr=False)
    variables: Mapping[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()

    @property
    def run(self) -> Run:
        """The run that loads the model; it has no data."""
        return self.policy.run

    @property
    def model(self) -> nn.Module:
        """The module: with an adapter, the base model with the adapter in its layers."""
        return self.policy.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, with the chat template that the model was trained with."""
        return self.run.tokenizer

    def prompt_tokens(self, prompt: str | Messages) -> list[int]:
        """Return the token ids of a prompt, as the model was trained to get it: a text or a list of messages."""
        return prompt_tokens(self.run, prompt, self.variables)

    def generate(self, prompts: Prompts, **options: Any) -> Any:
        """Return completions as texts. Prompts, options, result and errors are those of `generate_texts`."""
        stop = options.pop("stop", ())
        own = (stop,) if isinstance(stop, str) else tuple(stop)
        variables = {**self.variables, **(options.pop("variables", None) or {})}
        return generate_texts(self.policy, prompts, stop=(*own, *self.stop), variables=variables, **options)


@contextlib.contextmanager
def opened(run: Run, saved: SavedModel) -> Iterator[OpenModel]:
    """Load the model of a started run without training, and close the run at the end of the block."""
    with run.alive():
        run.trains = False
        run.tokenizer = run.hooks.load_tokenizer(run)
        template = saved.folder / TEMPLATE
        if template.is_file() and not leads_out(saved.folder, template):
            run.tokenizer.chat_template = template.read_text("utf-8")
        policy = build_policy(run)
        policy.model.eval()
        variables = saved.get("chat_template_kwargs") or {}
        yield OpenModel(saved, policy, variables, turn_ends(run.tokenizer, variables))
