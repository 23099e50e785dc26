"""Causal language models of transformers as the engine calls them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig
from transformers.utils import logging

from tunesmith import Backbone, Batch, EnvironmentProblem, Hidden, ModelError, Run, TunesmithError
from tunesmith_hf import HFSettings, attention, embeddings, loaded
from tunesmith_hf.source import Source, model_source, unreadable


def load(run: Run, role: str, settings: HFSettings) -> Backbone:
    """Load base_model for a role, from safetensors only; on the meta device while `run.abstract`."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if run.given_model is not None:
        model = _without_weights(run.given_model) if run.abstract else run.given_model
        module = model.module if isinstance(model, Backbone) else model
        if any(".base_layer." in name for name, _ in module.named_parameters()):
            help = "give a fresh model, or merge the adapter first: model.merge_and_unload() of peft"
            raise ModelError("the given model has an adapter in its layers already", help=help)
        if isinstance(model, Backbone):
            return model
        embeddings.grow(run, model, settings)
        return HFBackbone(run, model)
    where = run.config.document.where(("base_model",), value=True)
    source = model_source(run, settings, weights=not (run.abstract or settings.reinit_weights))
    try:
        with source.modules():
            model = _read(run, role, settings, source)
    except (TunesmithError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # config.json may say anything, and the library raises anything for it
        help = "a folder or a hub id with config.json and .safetensors weights"
        raise unreadable(f"base_model {source.name}", error, where, help) from error
    embeddings.grow(run, model, settings)
    return HFBackbone(run, model)


def _read(run: Run, role: str, settings: HFSettings, source: Source) -> Any:
    options = source.options
    kind: Any = AutoModelForCausalLM
    if run.method.head == "score" and role in ("policy", "reward"):
        kind, options["num_labels"] = AutoModelForSequenceClassification, run.method.num_labels
    if not source.runs_code:
        loaded.check_kind(source.folder, source.name, run.config.document.where(("base_model",), value=True))
    config = AutoConfig.from_pretrained(source.folder, **options)
    options.pop("num_labels", None)
    config._attn_implementation = None  # the library's own choice: a file may not name one
    # weights that are trained stay in float32; a base under an adapter is frozen, so half its memory will do
    half = run.world.half and (run.core.adapter is not None or role != "policy")
    options |= {"dtype": torch.bfloat16 if half else torch.float32}
    if run.abstract or settings.reinit_weights:
        with torch.device("meta" if run.abstract else "cpu"):
            model = kind.from_config(config, **options)
    else:
        options |= {"use_safetensors": True, **run.load_arguments}
        with loaded.unreported():
            model, found = kind.from_pretrained(source.folder, config=config, **loaded.REPORT, **options)
        loaded.check(run, found, source.name)
    model.config.name_or_path = model.name_or_path = source.name  # an adapter is saved with it
    return model


def _without_weights(model: Any) -> Any:
    """A copy whose parameters are on the meta device: what counting may change, and costs no memory."""
    module: nn.Module = model.module if isinstance(model, Backbone) else model
    meta = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(model, meta)


class HFBackbone(Backbone):
    """A transformers model: its body with the engine's attention, its head on chosen positions."""

    def __init__(self, run: Run, model: nn.Module):
        self.module = model
        self.run = run
        self.config: Any = model.config.get_text_config()  # type: ignore[operator,union-attr]
        branches = run.hooks.method.rows[0] not in ("text", "conversation")
        self.attention = attention.choose(run.core.attn_implementation, run.device, branches)
        if self.attention in ("flex", "varlen") and run.device.type == "cpu":
            where = run.config.document.where(("attn_implementation",), value=True)
            message, help = f"attn_implementation: {self.attention} needs a GPU", "write attn_implementation: auto"
            raise EnvironmentProblem(message, where=where, help=help)
        self.check_architecture(model)
        self.check_vocabulary()
        attention.register()
        before = self.config._attn_implementation
        run.closing.append(lambda: model.set_attn_implementation(before))  # type: ignore[operator]
        if run.core.gradient_checkpointing:
            options = run.core.gradient_checkpointing_kwargs.model_dump()
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)  # type: ignore[operator]
            if options["use_reentrant"]:
                model.enable_input_require_grads()  # type: ignore[operator]

    def check_vocabulary(self) -> None:
        """Raises ModelError if the tokenizer has ids that the embedding has not."""
        rows = self.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
        tokenizer = self.run.tokenizer
        if tokenizer is None:
            return
        tokens = max(len(tokenizer), *(number + 1 for number in getattr(tokenizer, "all_special_ids", ())), 0)
        if tokens > rows:
            help = "the tokenizer is that of another model: tokenizer_config, or base_model, is wrong"
            key = "tokenizer_config" if self.run.core.tokenizer_config else "base_model"
            where = self.run.config.document.where((key,), value=True)
            message = f"the tokenizer has {tokens:,} tokens, the model {rows:,}"
            raise ModelError(message, where=where, help=help, code="tokenizer")

    def check_architecture(self, model: nn.Module) -> None:
        """Raises ModelError for a model whose layers would carry one packed example over into the next."""
        where = self.run.config.document.where(("base_model",), value=True)
        layers = set(getattr(self.config, "layer_types", None) or ())
        foreign = layers - {"full_attention", "sliding_attention"}
        if foreign or getattr(model, "_is_stateful", False):
            what = ", ".join(sorted(foreign)) or "recurrent"
            help = "packed rows are kept apart by attention; models with other layers are not trained yet"
            message = f"{type(model).__name__} has {what} layers"
            raise ModelError(message, where=where, code="architecture", help=help)
        if not getattr(model, "_supports_attention_backend", False) and self.attention != "dense":
            help = "write attn_implementation: dense, and let tunesmith verify tell whether that is right for it"
            message = f"{type(model).__name__} takes no attention from outside"
            raise ModelError(message, where=where, code="architecture", help=help)

    @contextlib.contextmanager
    def attending(self, name: str) -> Iterator[None]:
        """Within the block, the model computes attention by the implementation of this name."""
        before = self.config._attn_implementation
        if before == name:
            yield
            return
        self.module.set_attn_implementation(name)  # type: ignore[operator]
        try:
            yield
        finally:
            self.module.set_attn_implementation(before)  # type: ignore[operator]

    def hidden(self, batch: Batch, layers: Sequence[int], router: bool) -> Hidden:
        extra: dict[str, Any] = {"layout": batch.layout, "backend": self.attention}
        name = attention.NAME
        if self.attention == "dense":
            extra = {"attention_mask": attention.dense_masks(batch.layout, self.windows(), self.module.dtype)}  # type: ignore[arg-type]
            name = "eager"
        if layers:
            extra["output_hidden_states"] = True
        if router:
            extra["output_router_logits"] = True
        if self.config._attn_implementation != name:
            self.module.set_attn_implementation(name)  # type: ignore[operator]
        body: Any = self.module.base_model
        out = body(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **batch.inputs, **extra)
        states = {layer: out.hidden_states[layer][0] for layer in layers}
        routed = [r.reshape(-1, r.shape[-1]) for r in out.router_logits] if router else []
        return Hidden(out.last_hidden_state[0], states, routed, getattr(self.config, "num_experts_per_tok", 0))

    def windows(self) -> dict[str, int | None]:
        """Sliding window of each kind of layer, None where all is seen."""
        window = getattr(self.config, "sliding_window", None)
        window = window if getattr(self.config, "use_sliding_window", True) else None
        alone = "sliding_attention" if window else "full_attention"  # all layers alike
        kinds = set(getattr(self.config, "layer_types", None) or [alone])
        return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}

    def logits(self, hidden: Tensor) -> Tensor:
        head: Any = self.module.get_output_embeddings()  # type: ignore[operator]
        logits: Tensor = head(hidden)
        if scale := getattr(self.config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if divisor := getattr(self.config, "logits_scaling", None):  # Granite
            logits = logits / divisor
        if cap := getattr(self.config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        return logits

    def scores(self, hidden: Tensor) -> Tensor:
        head = getattr(self.module, "score", None)
        return head(hidden) if head is not None else super().scores(hidden)

    def plain_logits(self, tokens: Tensor) -> Tensor:
        with self.attending("sdpa" if getattr(self.module, "_supports_sdpa", False) else "eager"):
            return self.module(input_ids=tokens[None], use_cache=False).logits[0]  # type: ignore[no-any-return]

    def generate(self, prompts: list[list[int]], **params: Any) -> list[list[int]]:
        """Sample for all prompts in one left-padded batch, by what is said here alone: not the model's own defaults."""
        unknown = set(params) - {"max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"}
        if unknown:
            raise TypeError(f"generate knows no {', '.join(sorted(unknown))}")
        tokenizer = self.run.tokenizer
        end = tokenizer.eos_token_id
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
        width = max(1, *map(len, prompts)) if prompts else 1
        filled = [p or [end] for p in prompts] or [[end]]  # an empty one starts from the end token, as a text does
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in filled], device=self.run.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in filled], device=self.run.device)
        sampling = {k: v for k, v in params.items() if k not in ("max_new_tokens", "temperature", "top_p", "top_k")}
        if params["temperature"] > 0:
            sampling |= {"do_sample": True, **{k: params[k] for k in ("temperature", "top_p", "top_k")}}
        tokens = {"max_new_tokens": params["max_new_tokens"], "eos_token_id": end, "pad_token_id": pad}
        options = GenerationConfig(**tokens, **{"do_sample": False, **sampling})
        model: Any = self.module
        own, model.generation_config = model.generation_config, GenerationConfig()  # it fills what options leave open
        try:
            with self.attending("sdpa" if getattr(model, "_supports_sdpa", False) else "eager"):
                out = model.generate(
                    input_ids=ids, attention_mask=mask, generation_config=options, synced_gpus=self.run.world.sharded
                )
        finally:
            model.generation_config = own
        return [_until_end(row, end) for row in out[:, width:].tolist()][: len(prompts)]


def _until_end(tokens: list[int], end: int) -> list[int]:
    """The tokens up to and with the end token; what follows is padding."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens
