"""Load models and tokenizers with transformers, and rows of datasets on the hub.

This is the default plugin for load_tokenizer and load_model. It also writes the model folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from tunesmith import Plugin, Settings, hookimpl
from tunesmith.optional import hide
from tunesmith_hf.quiet import PROBED, be_quiet
from tunesmith_hf.trust import RemoteCode, check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from tunesmith import DatasetSpec, Finding, LanguageModel, ModelSpec, Policy, Row, Run


def _string_keys(value: Any) -> Any:
    """Convert keys to strings, as they are in YAML. On the command line, a numeric key is an int."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


class HFSettings(Settings):
    """Keys of the hf plugin."""

    reinit_weights: bool = False
    """Train from scratch: start the model of config.json with random weights. No weight files are needed."""
    revision_of_model: str | None = None
    """Revision of base_model on the hub: a branch, tag or commit."""
    trust_remote_code: bool | RemoteCode = False
    """Code of base_model that may run, given as name, commit and hash. `true` alone is refused."""
    model_type: str | None = None
    """Class of the model, such as LlamaForCausalLM, to compare with config.json, which determines the class."""
    tokenizer_type: str | None = None
    """Class of the tokenizer, such as GPT2Tokenizer, to compare with tokenizer_config.json, which determines it."""
    tokens: list[str] = []
    """Tokens to add to the vocabulary. Tokens in special_tokens need not be listed here."""
    added_tokens_overrides: Annotated[dict[str, str], BeforeValidator(_string_keys)] = {}
    """New texts for added tokens, by id: {128002: "<|turn|>"} renames a reserved token. The model keeps its size."""
    resize_token_embeddings_to_32x: bool = False
    """Round the number of embedding rows up to a multiple of 32. Embeddings grow for added tokens and never shrink."""

    @property
    def remote_code(self) -> RemoteCode | None:
        return self.trust_remote_code if isinstance(self.trust_remote_code, RemoteCode) else None


plugin = Plugin(
    settings=HFSettings,
    sources=("hub",),
    models=("folder", "hub"),
    offers={"saved_models": {"models of transformers": "tunesmith_hf.opening:keys"}},
    on_resume=dict.fromkeys(("trust_remote_code", "revision_of_model", "model_type", "tokenizer_type"), "accept"),
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_hf import named

    be_quiet()  # here, in the first hook of every command: the libraries read the variables when they are imported
    settings = run.settings(HFSettings)
    if run.hooks.loader_of(run.policy_spec) != "hf":
        unused = settings.model_fields_set & {"reinit_weights", "revision_of_model", "trust_remote_code"}
        for key in sorted(unused):
            raise run.config.error(
                key, f"has no effect: base_model {run.core.base_model} is not loaded by hf", "drop it"
            )
    check(run, settings.trust_remote_code)
    named.check(run, settings)


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith_hf.files import inspect_all

    inspect_all(run, run.settings(HFSettings))


@hookimpl
def diagnose(run: Run) -> Iterable[Finding]:
    from tunesmith_hf.hub import findings

    return findings(run, run.settings(HFSettings))


@hookimpl
def load_rows(spec: DatasetSpec) -> Iterable[Row]:
    from tunesmith_hf.rows import HubRows

    return HubRows(spec)


@hookimpl
def load_tokenizer(run: Run) -> Any:
    hide(*PROBED)  # before the first import of transformers
    from tunesmith_hf.tokenizer import load

    return load(run, run.settings(HFSettings))


@hookimpl
def load_model(run: Run, spec: ModelSpec) -> LanguageModel:
    from tunesmith_hf.load import load

    return load(run, spec, run.settings(HFSettings))


@hookimpl(trylast=True)
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    """Check that the rows of new tokens are trained, after adapters are in place. The model is not changed."""
    from tunesmith_hf.embeddings import check_trained

    if name == "policy":
        check_trained(run, model)
    return model


@hookimpl
def saved_parameters(run: Run, policy: Policy) -> Iterable[str]:
    """Return the parameters that the model was loaded with: transformers does not read what a plugin has added."""
    return _names(policy) if run.adapter is None and run.hooks.loader_of(run.policy_spec) == "hf" else ()


@hookimpl
def save_model(run: Run, policy: Policy, path: Path) -> None:
    """Write what is of transformers: the tokenizer and, unless an adapter is saved instead, the model."""
    from transformers import PreTrainedTokenizerBase

    from tunesmith import write_card

    if run.adapter is None and run.hooks.loader_of(run.policy_spec) == "hf":
        names = _names(policy)
        if run.world.sharded:
            from tunesmith_hf.streamed import save

            save(run, policy, names, path)
        else:
            state = {name: value for name, value in policy.state_dict().items() if name in names}
            if run.world.main:
                policy.model.save_pretrained(path, state_dict=state)  # type: ignore[operator]
        if run.world.main:
            usage = f"from transformers import AutoTokenizer, {type(policy.model).__name__}\n\n"
            usage += f'model = {type(policy.model).__name__}.from_pretrained("FOLDER")\n'
            usage += 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
            write_card(run, path, "all weights", usage, ["transformers"])
    if run.world.main and isinstance(run.tokenizer, PreTrainedTokenizerBase):
        run.tokenizer.save_pretrained(path)


def _names(policy: Policy) -> frozenset[str]:
    """Return the parameters and buffers that the model was loaded with, without what plugins have added."""
    names: frozenset[str] = policy.language_model.names  # type: ignore[attr-defined]
    return names
