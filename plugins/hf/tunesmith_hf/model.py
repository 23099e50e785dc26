"""Wrap causal language models of transformers for the engine."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig
from transformers.utils import logging

from tunesmith import (
    Batch,
    EnvironmentProblem,
    Head,
    Hidden,
    LanguageModel,
    ModelError,
    PluginError,
    Run,
    TunesmithError,
)
from tunesmith_hf import HFSettings, attention, embeddings, loaded, padded
from tunesmith_hf.source import Source, model_source, unreadable

ROLES = ("policy", "reference")
FACTORS = ("logit_scale", "lm_head_multiplier", "logits_scaling")  # Cohere; Falcon H1; Granite and HyperCLOVA
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma; RecurrentGemma; xLSTM


def load(run: Run, role: str, settings: HFSettings) -> LanguageModel:
    """Load base_model for a role, from safetensors only. While `run.abstract` is set, load it on the meta device.

    Raise PluginError for a role other than policy and reference, because there is one base_model.
    """
    if role not in ROLES:
        message = f"load_model: unsupported role {role!r}; supported: {', '.join(ROLES)}"
        raise PluginError(message, help=f"implement load_model for role {role!r} in a plugin")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if run.given_model is not None:
        model = _without_weights(run.given_model) if run.abstract else run.given_model
        module = model.module if isinstance(model, LanguageModel) else model
        if any(".base_layer." in name for name, _ in module.named_parameters()):
            help = "pass a model without an adapter, or merge it first with peft's model.merge_and_unload()"
            raise ModelError("the given model already has an adapter in its layers", help=help)
        if isinstance(model, LanguageModel):
            return model
        embeddings.grow(run, model, settings)
        return HFLanguageModel(run, model)
    where = run.config.place("base_model")
    source = model_source(run, settings, weights=not (run.abstract or settings.reinit_weights))
    try:
        with source.modules():
            model = _read(run, role, settings, source)
    except (TunesmithError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # config.json is untrusted, and transformers may raise anything for it
        help = "name a folder or a hub id that has config.json and .safetensors weights"
        raise unreadable(f"base_model {source.name}", error, where, help) from error
    embeddings.grow(run, model, settings)
    return HFLanguageModel(run, model)


def _read(run: Run, role: str, settings: HFSettings, source: Source) -> Any:
    options = source.options
    kind: Any = AutoModelForCausalLM
    if run.method.head == "score" and role == "policy":
        kind, options["num_labels"] = AutoModelForSequenceClassification, run.method.num_labels
    if not source.runs_code:
        loaded.check_kind(source.folder, source.name, run.config.place("base_model"))
    config = AutoConfig.from_pretrained(source.folder, **options)
    options.pop("num_labels", None)
    config._attn_implementation = None  # let transformers choose: the file must not name an implementation
    # Trained weights stay in float32. Frozen weights (under an adapter, or of another role) take half the memory.
    half = run.world.half and (run.core.adapter is not None or role != "policy")
    options |= {"dtype": torch.bfloat16 if half else torch.float32}
    if run.abstract or settings.reinit_weights:
        with torch.device("meta" if run.abstract else "cpu"):
            model = kind.from_config(config, **options)
    else:
        options |= {"use_safetensors": True, **run.load_arguments}
        with loaded.quiet_report():
            model, report = kind.from_pretrained(source.folder, config=config, **loaded.REPORT, **options)
        loaded.check(run, report, source.name)
    model.config.name_or_path = model.name_or_path = source.name  # peft saves it in adapter_config.json
    return model


def _without_weights(model: Any) -> Any:
    """Return a copy of a model with its parameters on the meta device. It takes no memory, and `plan` may change it."""
    module: nn.Module = model.module if isinstance(model, LanguageModel) else model
    meta = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(model, meta)


class HFLanguageModel(LanguageModel):
    """A transformers model whose body uses the engine's attention and whose head runs on selected positions."""

    def __init__(self, run: Run, model: nn.Module):
        self.module = model
        self.run = run
        self.config: Any = model.config.get_text_config()  # type: ignore[operator,union-attr]
        unsupported = padded.why_unsupported(model, self.config)
        self.backends = attention.choose(run.core.attn_implementation, run.device, takes_mask=unsupported is None)
        self.attention, self.forked_attention = self.backends
        if self.attention in ("flex", "varlen") and run.device.type == "cpu":
            where = run.config.place("attn_implementation")
            message, help = f"attn_implementation: {self.attention} needs a GPU", "write attn_implementation: auto"
            raise EnvironmentProblem(message, where=where, help=help)
        self.check_architecture(unsupported)
        self.shares_prompts = self.attention != "padded"
        self.padding = padded.PaddingCount(run)
        self.check_vocabulary()
        self.check_head()
        attention.register()
        before = self.config._attn_implementation
        run.closing.append(lambda: model.set_attn_implementation(before))  # type: ignore[operator]
        if run.core.gradient_checkpointing:
            options = run.core.gradient_checkpointing_kwargs.model_dump()
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)  # type: ignore[operator]
            if options["use_reentrant"]:
                model.enable_input_require_grads()  # type: ignore[operator]

    def check_vocabulary(self) -> None:
        """Raise ModelError if the tokenizer has ids without an embedding row."""
        rows = self.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
        tokenizer = self.run.tokenizer
        if tokenizer is None:
            return
        tokens = max(len(tokenizer), *(number + 1 for number in getattr(tokenizer, "all_special_ids", ())), 0)
        if tokens > rows:
            help = "the tokenizer belongs to another model: fix tokenizer_config or base_model"
            key = "tokenizer_config" if self.run.core.tokenizer_config else "base_model"
            where = self.run.config.place(key)
            message = f"the tokenizer has {tokens:,} tokens, but the model has {rows:,} embedding rows"
            raise ModelError(message, where=where, help=help, code="tokenizer")

    def check_head(self) -> None:
        """Raise ModelError for a head of several layers, because transformers returns only the last of them."""
        head = self.module.get_output_embeddings()  # type: ignore[operator]
        name = next((name for name, module in self.module.named_modules() if module is head), "")
        if "." in name:
            where = self.run.config.place("base_model")
            message = f"the head of {type(self.module).__name__} has more layers than {name}"
            raise ModelError(message, where=where, code="architecture", help="choose a model with a single-layer head")

    def check_architecture(self, unsupported: padded.Unsupported | None) -> None:
        """Raise ModelError if the chosen attention can't keep the sequences of a pack apart in this model."""
        if unsupported is None or self.attention == "padded":
            return
        if self.attention == "dense" and not unsupported.mixes:
            return
        where = self.run.config.place("attn_implementation")
        help = "write attn_implementation: auto, which pads the sequences of such a model"
        message = f"{unsupported.reason}, which attn_implementation: {self.attention} does not support"
        raise ModelError(message, where=where, code="architecture", help=help)

    @contextlib.contextmanager
    def attending(self, name: str) -> Iterator[None]:
        """Compute attention with the named implementation within the block."""
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
        extra: dict[str, Any] = {"position_ids": batch.position_ids}
        ids, name = batch.input_ids, attention.NAME
        lines = padded.lines(batch.tree_mask) if self.attention == "padded" else None
        if lines is not None:  # no position_ids: each line is one sequence, which transformers counts from 0
            ids, extra, name = lines.spread(ids[0]), {"attention_mask": lines.attention_mask}, self.own_attention
            self.padding.add(lines)
        elif self.attention == "dense":
            extra["attention_mask"] = attention.dense_masks(batch.tree_mask, self.windows(), self.module.dtype)  # type: ignore[arg-type]
            name = "eager"
        else:
            extra |= {"tree_mask": batch.tree_mask, "backend": self.backends.of(batch.tree_mask)}
        if layers:
            extra["output_hidden_states"] = True
        if router:
            extra["output_router_logits"] = True
        if self.config._attn_implementation != name:
            self.module.set_attn_implementation(name)  # type: ignore[operator]
        with padded.OperationLimit() if self.run.abstract and lines is not None else contextlib.nullcontext():
            out = self.body(input_ids=ids, use_cache=False, **batch.inputs, **extra)
        to_tokens = padded.flatten if lines is None else lines.gather
        states = {layer: to_tokens(out.hidden_states[layer]) for layer in layers}
        router_logits = [to_tokens(logits) for logits in out.router_logits] if router else []
        experts = getattr(self.config, "num_experts_per_tok", 0)
        return Hidden(to_tokens(out.last_hidden_state), states, router_logits, experts)

    @property
    def own_attention(self) -> str:
        """The attention implementation of transformers that the model runs without the engine."""
        return "sdpa" if getattr(self.module, "_supports_sdpa", False) else "eager"

    @property
    def body(self) -> Any:
        """The module below the head. For Llama 4, whose base_model is the module itself, it is `module.model`."""
        base: Any = self.module.base_model
        return base if base is not self.module else self.module.model

    def windows(self) -> dict[str, int | None]:
        """Return the sliding window of each type of layer, or None for full attention."""
        window = getattr(self.config, "sliding_window", None)
        window = window if getattr(self.config, "use_sliding_window", True) else None
        default = "sliding_attention" if window else "full_attention"  # without layer_types, all layers are alike
        kinds = set(getattr(self.config, "layer_types", None) or [default])
        return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}

    def logits(self, hidden: Tensor) -> Tensor:
        head: Any = self.module.get_output_embeddings()  # type: ignore[operator]
        logits: Tensor = head(hidden)
        scale, cap = self.scaling()
        if scale != 1:
            logits = logits * scale
        return torch.tanh(logits / cap) * cap if cap else logits

    def scaling(self) -> tuple[float, float | None]:
        """Return the factor of the logits, and the soft cap that is applied after it (None if there is no cap)."""
        factors = {name: getattr(self.config, name, None) or 1.0 for name in FACTORS}
        divides = not self.config.model_type.startswith("hyperclovax")  # Granite divides by logits_scaling
        factor = factors["logit_scale"] * factors["lm_head_multiplier"]
        scaling = factors["logits_scaling"]
        caps = (getattr(self.config, name, None) for name in CAPS)
        return factor / scaling if divides else factor * scaling, next(filter(None, caps), None)

    def head(self) -> Head | None:
        head = self.module.get_output_embeddings()  # type: ignore[operator]
        # Any other class is an adapter, quantized or sharded. A replaced forward or a hook is a patch.
        if type(head) is not nn.Linear or "forward" in vars(head) or head._forward_hooks or head._forward_pre_hooks:
            return None
        if is_traceable_wrapper_subclass(head.weight):  # a shard, or quantized numbers
            return None
        return Head(head.weight, head.bias, *self.scaling())

    def scores(self, hidden: Tensor) -> Tensor:
        head = getattr(self.module, "score", None)
        return head(hidden) if head is not None else super().scores(hidden)

    def plain_logits(self, tokens: Tensor) -> Tensor:
        with self.attending(self.own_attention):
            return self.module(input_ids=tokens[None], use_cache=False).logits[0]  # type: ignore[no-any-return]

    def generate(self, prompts: list[list[int]], **params: Any) -> list[list[int]]:
        """Sample a completion of each prompt in one left-padded batch.

        The sampling depends on `params` alone: the model's own generation config is ignored. Raise TypeError for an
        unknown parameter.
        """
        unknown = set(params) - {"max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"}
        if unknown:
            raise TypeError(f"generate() got unknown parameters: {', '.join(sorted(unknown))}")
        sharded = self.run.world.sharded
        if self.attention == "padded" and len(prompts) > 1 and (sharded or len(set(map(len, prompts))) > 1):
            return padded.generate_by_length(lambda group: self.generate(group, **params), prompts, one_by_one=sharded)
        tokenizer = self.run.tokenizer
        end = tokenizer.eos_token_id
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
        width = max(1, *map(len, prompts)) if prompts else 1
        filled = [p or [end] for p in prompts] or [[end]]  # an empty prompt starts from the end token, as a text does
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in filled], device=self.run.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in filled], device=self.run.device)
        sampling = {k: v for k, v in params.items() if k not in ("max_new_tokens", "temperature", "top_p", "top_k")}
        if params["temperature"] > 0:
            sampling |= {"do_sample": True, **{k: params[k] for k in ("temperature", "top_p", "top_k")}}
        tokens = {"max_new_tokens": params["max_new_tokens"], "eos_token_id": end, "pad_token_id": pad}
        options = GenerationConfig(**tokens, **{"do_sample": False, **sampling})
        model: Any = self.module
        own, model.generation_config = model.generation_config, GenerationConfig()  # would fill gaps in `options`
        try:
            with self.attending(self.own_attention):
                out = model.generate(input_ids=ids, attention_mask=mask, generation_config=options, synced_gpus=sharded)
        finally:
            model.generation_config = own
        return [_until_end(row, end) for row in out[:, width:].tolist()][: len(prompts)]


def _until_end(tokens: list[int], end: int) -> list[int]:
    """Return the tokens up to and including the end token. The rest is padding."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens
