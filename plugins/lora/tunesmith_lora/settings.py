"""The keys of LoRA."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tunesmith import PathText, Settings

MUTATING = ("pissa", "olora", "corda", "lora_ga")
"""Initializations that subtract the initial update from the weights of the base model."""
WITH_DATA = ("eva", "corda", "lora_ga")
"""Initializations that read training rows."""
INITIALIZATIONS = ("gaussian", "orthogonal", "mica", "pissa", "olora", "loftq", *WITH_DATA)
Pair = Annotated[list[int], Field(min_length=2, max_length=2)]


class LoftQOptions(Settings):
    """Options of LoftQ (arXiv 2310.08659)."""

    loftq_bits: Literal[4, 8] = 4
    """Bits of the quantized base."""
    loftq_iter: PositiveInt = 1
    """Alternations of quantization and decomposition."""


class EvaOptions(Settings):
    """Options of EVA (arXiv 2410.07170)."""

    rho: float = Field(2.0, ge=1)
    """Largest rank of a layer, as a multiple of lora_r: ranks move to where they explain more. 1 keeps lora_r."""
    tau: float = Field(0.99, ge=0, le=1)
    """Similarity of two successive decompositions at which that of a layer ends."""
    use_label_mask: bool = True
    """Read only the activations of trained tokens."""
    whiten: bool = False
    """Whiten the singular vectors."""
    adjust_scaling_factors: bool = True
    """Scale the updates of layers so that their gradients do not depend on their ranks."""


class CordaOptions(Settings):
    """Options of CorDA (arXiv 2406.05223)."""

    corda_method: Literal["ipm", "kpm"] = "ipm"
    """Adapt the directions that the rows use most (ipm), or preserve them and adapt the others (kpm)."""
    use_float16_for_covariance: bool = False
    """Store the covariance of activations in float16."""


class LoraGAOptions(Settings):
    """Options of LoRA-GA (arXiv 2407.05000)."""

    direction: Literal["ArBr", "A2rBr", "ArB2r", "random"] = "ArB2r"
    """Singular vectors of the gradient that A and B take."""
    scale: Literal["stable", "weight_svd", "gd_scale", "unit"] = "stable"
    """How the initial update is scaled: by its size, like the weights, as one gradient step, or not at all."""
    stable_gamma: PositiveInt = 16
    """Divisor of the scale `stable`."""


class PeftOptions(Settings):
    """Options of initializations, as groups with peft's names."""

    loftq_config: LoftQOptions | None = None
    """Options of LoftQ, which is refused: it needs the weights from before quantization, and these are not loaded."""
    eva_config: EvaOptions | None = None
    """Options of EVA."""
    corda_config: CordaOptions | None = None
    """Options of CorDA."""
    lora_ga_config: LoraGAOptions | None = None
    """Options of LoRA-GA."""


class LoraSettings(Settings):
    """Keys of LoRA, with the names that are usual for them."""

    lora_r: int = Field(16, gt=0, le=100_000)
    """Rank of the update."""
    lora_alpha: PositiveFloat = 32.0
    """Scale of the update, which is multiplied by lora_alpha / lora_r."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the update."""
    lora_target_modules: list[str] | str | None = None
    """Modules that get an update: a list of names (last parts), or a regular expression that matches full names."""
    lora_target_linear: bool = False
    """Adapt all linear layers except the head. This is the default if lora_target_modules is not set."""
    lora_target_parameters: list[str] | str | None = None
    """Parameters that get an update by their names, such as mlp.experts.down_proj: the weights of fused experts, which
    have three dimensions. Without lora_target_modules, only they are adapted."""
    lora_exclude_modules: list[str] | str | None = None
    """Modules that get no update: a list of names (last parts), or a regular expression that matches full names."""
    lora_modules_to_save: list[str] | None = None
    """Modules that are trained completely and saved with the adapter, for example embed_tokens."""
    lora_rank_pattern: dict[str, PositiveInt] = {}
    """Ranks of some layers: name or regular expression -> rank, instead of lora_r."""
    lora_alpha_pattern: dict[str, PositiveFloat] = {}
    """Scales of some layers: name or regular expression -> alpha, instead of lora_alpha."""
    lora_bias: bool = False
    """Add a trained bias to the second matrix of each update."""
    lora_trainable_tokens: list[str] = []
    """Tokens whose rows in the embeddings and the head are trained and saved with the adapter. Others stay frozen."""
    lora_model_dir: PathText | None = None
    """Continue to train the adapter in this folder, with its own rank and targets."""
    loraplus_lr_ratio: PositiveFloat | None = None
    """LoRA+ (arXiv 2402.12354): factor of the learning rate of the second matrices, for example 16."""
    loraplus_lr_embedding: PositiveFloat | None = None
    """Learning rate of updates of the embeddings with LoRA+, 1e-6 by default."""
    peft_use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_r) (arXiv 2312.03732)."""
    peft_use_dora: bool = False
    """Split weights into magnitude and direction, and update both (arXiv 2402.09353)."""
    peft_bias: Literal["none", "all", "lora_only"] = "none"
    """Train biases of the base model: all, or those of adapted layers. They are saved with the adapter."""
    peft_layers_to_transform: list[int] | int | None = None
    """Numbers of the layers to adapt, counted from 0."""
    peft_layers_pattern: list[str] | str | None = None
    """Name of the list of layers that peft_layers_to_transform counts, such as layers or h."""
    peft_layer_replication: list[Pair] | None = None
    """Build a deeper model from ranges [start, end] of its layers, end excluded. Copies share weights, not updates."""
    peft_init_lora_weights: bool | str = True
    """Initialization: true (A random, B zero), gaussian, orthogonal, mica, pissa, pissa_niter_16 (a faster one, in so
    many iterations), olora, eva, corda or lora_ga. With false, A and B are random."""
    peft_init_rows: PositiveInt = 64
    """Training rows that eva, corda and lora_ga read."""
    peft_trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    """Ids of tokens whose rows of the embeddings are trained, or ids by module. lora_trainable_tokens takes texts."""
    peft_ensure_weight_tying: bool = False
    """Keep the head and the embeddings tied if one of them, or some of its rows, are trained."""
    peft_autocast_adapter_dtype: bool = True
    """Keep the adapter in float32 if the base model is in bfloat16."""
    peft: PeftOptions | None = None
    """Options of initializations."""

    @property
    def initialization(self) -> bool | str:
        """The initialization: that of peft_init_lora_weights, or loftq if peft.loftq_config is set."""
        return "loftq" if self.peft and self.peft.loftq_config else self.peft_init_lora_weights

    @property
    def mutates(self) -> bool:
        """True if the initialization changes the weights of the base model."""
        return isinstance(self.initialization, str) and self.initialization.startswith(MUTATING)
