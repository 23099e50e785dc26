"""Wrap causal language models of transformers for the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tunesmith import (
    AttentionShape,
    Batch,
    Decoder,
    EnvironmentProblem,
    HeadShard,
    HeadWeights,
    Hidden,
    LanguageModel,
    ModelError,
    ModelSpec,
    PluginError,
    RecomputingDecoder,
    Run,
)
from tunesmith_hf import attention, decoding, divided, padded
from tunesmith_hf.classifier import describe
from tunesmith_hf.source import is_base, where_key

FACTORS = ("logit_scale", "lm_head_multiplier", "logits_scaling")  # Cohere; Falcon H1; Granite and HyperCLOVA
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma; RecurrentGemma; xLSTM
TABLES = ("wpe", "embed_positions", "position_embeddings")  # GPT-2 and its relatives; OPT and XGLM; BERT's relatives


def positions_of(model: nn.Module, config: Any) -> int | None:
    """Return the number of positions of a model that has a table of them, or None if it computes them."""
    tables = (m for name, m in model.named_modules() if name.rpartition(".")[2] in TABLES)
    return (
        getattr(config, "max_position_embeddings", None) if any(isinstance(t, nn.Embedding) for t in tables) else None
    )


def attention_shape(config: Any) -> AttentionShape | None:
    """Return the sizes of the attention layers of a config, or None for a model without attention heads."""
    heads, layers = getattr(config, "num_attention_heads", None), getattr(config, "num_hidden_layers", None)
    if not isinstance(heads, int) or not isinstance(layers, int):
        return None
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kinds = getattr(config, "layer_types", None)
    layers = sum("attention" in kind for kind in kinds) if kinds else layers
    return AttentionShape(layers, heads, groups, width)


def layer_sums(config: Any) -> tuple[int, int] | None:
    """Return how often a layer sums hidden states, forward and backward, by the plan of transformers for its parts.

    Each part that ends a division sums its outputs, and each part that begins one the gradients of its inputs.
    """
    plan = getattr(config, "base_model_tp_plan", None)
    styles = [style for name, style in (plan or {}).items() if ".*." in name]
    return (styles.count("rowwise"), styles.count("colwise")) if styles else None


class HFLanguageModel(LanguageModel):
    """A transformers model whose body uses the engine's attention and whose head runs on selected positions."""

    def __init__(self, run: Run, model: nn.Module, spec: ModelSpec):
        self.config: Any = model.config.get_text_config()  # type: ignore[operator,union-attr]
        rows = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        super().__init__(model, rows, getattr(self.config, "hidden_size", None))
        self.run = run
        self.spec = spec
        self.positions = positions_of(model, self.config)
        self.attention_shape, self.layer_sums = attention_shape(self.config), layer_sums(self.config)
        self.names = frozenset(model.state_dict())
        """Parameters and buffers of the architecture, without what plugins add."""
        if spec.exports:
            self.classifier = next(iter(spec.heads))
            if is_base(spec):
                describe(run, model, spec)
        unsupported = padded.why_unsupported(model, self.config)
        self.backends = attention.choose(run.core.attn_implementation, run.device, takes_mask=unsupported is None)
        self.attention, self.forked_attention = self.backends
        if self.attention in ("flex", "varlen") and run.device.type == "cpu":
            where = run.config.place("attn_implementation")
            message, help = f"attn_implementation: {self.attention} needs a GPU", "write attn_implementation: auto"
            raise EnvironmentProblem(message, where=where, help=help)
        self.check_architecture(unsupported)
        self.check_context()
        self.shares_prompts = self.attention != "padded"
        self.ragged_prompts = self.attention not in ("padded", "dense")
        self.end_tokens = decoding.end_tokens(model)
        self.padding = padded.PaddingCount(run)
        if spec.shares_tokens:
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
        rows, tokenizer = self.vocabulary, self.run.tokenizer
        if tokenizer is None:
            return
        tokens = max(len(tokenizer), *(number + 1 for number in getattr(tokenizer, "all_special_ids", ())), 0)
        if tokens > rows:
            keys = f"tokenizer_config or {where_key(self.spec)}"
            help = f"the tokenizer belongs to another model: fix {keys}"
            key = "tokenizer_config" if self.run.core.tokenizer_config and is_base(self.spec) else self.spec.key
            where = self.run.config.place(key)
            message = f"the tokenizer has {tokens:,} tokens, but the model has {rows:,} embedding rows"
            raise ModelError(message, where=where, help=help, code="tokenizer")

    def check_head(self) -> None:
        """Raise ModelError for a head of several layers, because transformers returns only the last of them."""
        head = self.module.get_output_embeddings()  # type: ignore[operator]
        name = next((name for name, module in self.module.named_modules() if module is head), "")
        if "." in name:
            where = self.run.config.place(self.spec.key)
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

    def check_context(self) -> None:
        """Raise ModelError if several processes can't compute the attention of a pack together."""
        size = self.run.world.axis("context").size
        if size == 1:
            return
        heads = getattr(self.config, "num_attention_heads", 1)
        heads = heads // self.run.world.axis("tensor").size if isinstance(heads, int) else 1  # those of this process
        where, reason = self.run.config.place("context_parallel_size"), ""
        if self.attention in ("padded", "dense"):
            reason = f"the attention backend {self.attention} can't divide a pack over {size} processes"
            help = "set context_parallel_size: 1, or choose a model and an attn_implementation with packed attention"
        elif heads % size:
            reason = f"the {heads} attention heads of the model can't be divided over {size} processes"
            help = "set context_parallel_size to a divisor of the number of heads"
        if reason:
            raise ModelError(reason, where=where, code="architecture", help=help)

    def check_length(self, batch: Batch) -> None:
        """Raise ModelError for a sequence that is longer than the model's table of positions."""
        if self.positions is None or self.run.abstract or not batch.tokens:
            return
        length = int(batch.position_ids.max()) + 1
        if length > self.positions:
            message = f"a sequence has {length:,} tokens, but the model has {self.positions:,} positions"
            where, help = self.run.config.place("sequence_len"), f"write sequence_len: {self.positions}"
            raise ModelError(message, where=where, help=help, code="positions")

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
        self.check_length(batch)
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
            if batch.stretch is not None:
                extra["stretch"] = batch.stretch
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

    def head(self) -> HeadWeights | None:
        head = self.module.get_output_embeddings()  # type: ignore[operator]
        # Any other class is an adapter, quantized or sharded. A replaced forward or a hook is a patch.
        if type(head) is not nn.Linear or "forward" in vars(head) or head._forward_hooks or head._forward_pre_hooks:
            return None
        if is_traceable_wrapper_subclass(head.weight):  # a shard, or quantized numbers
            return None
        return HeadWeights(head.weight, head.bias, *self.scaling())

    def head_shard(self) -> HeadShard | None:
        head = self.module.get_output_embeddings()  # type: ignore[operator]
        return None if head is None else divided.head_shard(head, *self.scaling())

    def scores(self, hidden: Tensor) -> Tensor:
        module: Any = self.module
        name = next((name for name in ("score", "classifier") if hasattr(module, name)), None)  # GPT-NeoX: classifier
        # Looked up at each call, because an adapter replaces it.
        return getattr(module, name)(hidden) if name else super().scores(hidden)

    def plain_logits(self, tokens: Tensor) -> Tensor:
        with self.attending(self.own_attention):
            return self.module(input_ids=tokens[None], use_cache=False).logits[0]  # type: ignore[no-any-return]

    def decoder(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Decoder:
        """Return a decoder that caches keys and states. Raise PluginError for a model without a head for tokens."""
        if self.module.get_output_embeddings() is None:  # type: ignore[operator]
            raise PluginError(f"{type(self.module).__name__} has no head that predicts tokens, so it can't generate")
        name = attention.NAME if self.ragged_prompts else self.own_attention

        def run(input_ids: Tensor, **options: Any) -> Any:
            if self.config._attn_implementation != name:
                self.module.set_attn_implementation(name)  # type: ignore[operator]
            return self.body(input_ids=input_ids, **options)

        recurrent = getattr(self.module, "_is_stateful", False)
        model = decoding.Model(run, self.attention, self.run.device, recurrent)
        if self.ragged_prompts:
            return decoding.SharedDecoder(model, prompts, copies)
        return decoding.RepeatingDecoder(model, prompts, copies, lambda: RecomputingDecoder(self, prompts, copies))
