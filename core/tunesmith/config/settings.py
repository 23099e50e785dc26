"""The keys of the core: data, batch, schedule of evaluations and checkpoints, precision, processes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tunesmith.plugins.plugin import Settings


class DatasetSettings(Settings):
    """One entry of `datasets:`; the strategy that its `type` names adds keys of its own."""

    path: str
    """A file, a folder of files, a folder that the datasets library saved, a URL (https://, s3://, gs://, ...), or the
    id of a dataset on the hub."""
    type: str | dict[str, Any]
    """The prompt strategy that turns rows into examples: chat_template, alpaca, completion, ...; a mapping that says it
    (field_instruction: ..., format: ...); or a function of one's own (./rows.py:function or module:function)."""
    weight: PositiveFloat = 1.0
    """How often its rows are seen in an epoch: 2 is twice, 0.5 every other epoch. See mixing_temperature."""
    shards: PositiveInt | None = None
    """Take one of so many equal parts of its rows ..."""
    shards_idx: NonNegativeInt = 0
    """... this one: every `shards`-th row from this one on."""
    split: str = "train"
    """Split of a dataset on the hub, of a saved one, or of the files whose names say it; of a single file train. Or a
    slice of it: train[:10%], train[100:200], train[-10%:]."""
    name: str | None = None
    """Subset (configuration) of a hub dataset."""
    revision: str | None = None
    """Revision of a hub dataset: a branch, tag or commit."""
    data_files: list[str] | str | None = None
    """Names or patterns (*.jsonl, **/*.csv) of files inside the folder or hub dataset; all of them where not set."""
    ds_type: Literal["json", "csv", "parquet", "arrow", "text"] | None = None
    """Kind of the files, where their names do not say it; of a folder, the kind that is read."""
    sample_by: Literal["line", "paragraph", "document"] = "line"
    """What one row of a text file (.txt, .md) is; paragraphs stand between empty lines."""


class SpecialTokens(Settings):
    """Tokens that take a role; one that the vocabulary lacks is added."""

    bos_token: str | None = None
    """Begins a text."""
    eos_token: str | None = None
    """Ends a turn or a text; generation stops at it."""
    pad_token: str | None = None
    """Fills batches when generating. Training pads nothing."""
    unk_token: str | None = None
    """Stands for what the vocabulary lacks."""


class GradientCheckpointing(Settings):
    """How activations are computed again."""

    use_reentrant: bool = False
    """The old implementation of torch.utils.checkpoint."""


class FSDPConfig(Settings):
    """Sharding of parameters, gradients and optimizer state over processes (FSDP2)."""

    reshard_after_forward: bool = True
    """Free full parameters between forward and backward (ZeRO-3); false keeps them (ZeRO-2)."""
    offload_params: bool = False
    """Keep parameters and optimizer state in the memory of the CPU."""
    auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "NO_WRAP"] = "TRANSFORMER_BASED_WRAP"
    """Which modules are sharded as units."""
    transformer_layer_cls_to_wrap: str | None = None
    """Class of the layers that are units; the model knows its own where this is not set."""
    state_dict_type: Literal["FULL_STATE_DICT"] = "FULL_STATE_DICT"
    """Checkpoints are written whole."""


class CoreSettings(Settings):
    """The keys that every run has."""

    base_model: str
    """The model: a folder or a hub id."""
    tokenizer_config: str | None = None
    """Folder or hub id of the tokenizer, where it is not that of the model."""
    special_tokens: SpecialTokens = SpecialTokens()
    """Roles of tokens that the tokenizer's files do not say, or say otherwise."""
    plugins: list[str] = []
    """Plugins to activate, in call order: words of installed ones, or ./file.py relative to this YAML."""
    rl: str | None = None
    """The method, where it is not supervised fine-tuning; a plugin answers it."""
    adapter: str | None = None
    """The adapter (lora, ...); without one, all weights are trained."""
    output_dir: str = "./outputs"
    """Folder of the run: final model, checkpoints, run.json, metrics.jsonl. Relative to the working folder."""

    datasets: list[dict[str, Any]] = []
    """What to train on; entries are DatasetSettings plus the keys of their strategy."""
    pretraining_dataset: list[dict[str, Any]] = []
    """What to train on, streamed: read, tokenised and packed while training. Needs max_steps."""
    test_datasets: list[dict[str, Any]] = []
    """What to evaluate on, and never to train on; entries as in datasets."""
    streaming: bool = False
    """Read, tokenise and pack `datasets:` while training, instead of before. Needs max_steps."""
    mixing_temperature: PositiveFloat | None = None
    """Mix entries by the number of their rows to the power 1 / this: 1 leaves them, more evens them out. The length of
    the epoch stays."""
    shuffle_merged_datasets: bool = True
    """Shuffle over all entries; false trains on one entry after the other, each shuffled."""
    curriculum_sampling: bool = False
    """Train in the order of the data; nothing is shuffled."""
    dataset_prepared_path: str | None = None
    """Folder for prepared data; a later run with the same data, tokenizer and options reads it from there."""
    dataset_num_proc: PositiveInt = 1
    """Processes that tokenise; each uses one thread then. One uses the threads of the tokenizer, and is as fast up to a
    few cores."""
    val_set_size: float = Field(0.0, ge=0)
    """Held-out rows of `datasets:`: a share below 1, or a number of them; a shuffled split by `seed`."""
    sequence_len: PositiveInt = 2048
    """Longest sequence in tokens, prompt plus one completion; and the length of a packed row."""
    excess_length_strategy: Literal["drop", "truncate", "raise", "split"] = "drop"
    """What happens to longer examples; split cuts them into several (texts and conversations only)."""
    sample_packing: bool = True
    """Fill rows with several examples. Results are those of unpacked training: examples do not see each other."""
    eval_sample_packing: bool | None = None
    """The same for evaluation; as sample_packing where not set."""
    streaming_multipack_buffer_size: PositiveInt = 512
    """Examples that a streamed dataset reads ahead to pack well."""

    precompute_ref_log_probs: bool = False
    """Compute the reference's log-probabilities once, before the first step, and keep them with the prepared data: no
    second model in memory, and no forward of it in a step. For methods that are held to a reference."""

    micro_batch_size: PositiveInt = 1
    """Rows (packed) or examples (not packed) of one forward pass on one process."""
    eval_batch_size: PositiveInt | None = None
    """The same for evaluation; as micro_batch_size where not set."""
    gradient_accumulation_steps: PositiveInt = 1
    """Micro-batches of one optimizer step on one process."""
    num_epochs: PositiveFloat = 1.0
    """Times that the data is seen; may be a fraction."""
    max_steps: PositiveInt | None = None
    """Optimizer steps at most."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate."""
    optimizer: str = "adamw_torch"
    """The optimizer; a plugin answers it."""
    lr_scheduler: str = "cosine"
    """The learning-rate schedule; a plugin answers it."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them."""
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    """A loss or gradient that is not finite never reaches the weights; then: stop with an error, skip the update, or go
    back to the newest checkpoint and leave the step's rows out. More than 3 in a row always stop."""
    seed: NonNegativeInt = 42
    """Of initial weights, data order, dropout and sampling."""

    bf16: Literal["auto"] | bool = "auto"
    """Compute in bfloat16 (weights that are trained stay in float32); auto: where the device is a GPU that can."""
    tf32: bool | None = None
    """TensorFloat-32 matrix products on NVIDIA GPUs; torch's setting where not set."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: about a third slower, much less memory."""
    gradient_checkpointing_kwargs: GradientCheckpointing = GradientCheckpointing()
    """Options of gradient_checkpointing."""
    attn_implementation: Literal["auto", "slices", "flex", "varlen", "dense", "padded"] = "auto"
    """Attention backend: slices (sdpa branch by branch), flex or varlen (GPU), dense (a full mask), padded (sequences
    side by side, for layers that can't be told apart in a row: recurrent ones); auto chooses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    fsdp_config: FSDPConfig | None = None
    """Shard the model over processes."""

    logging_steps: PositiveInt = 1
    """Optimizer steps between lines of the log."""
    save_steps: PositiveInt | None = None
    """Optimizer steps between checkpoints."""
    saves_per_epoch: PositiveInt | None = None
    """Checkpoints in an epoch; 1 where neither this nor save_steps is set."""
    save_total_limit: PositiveInt | None = 4
    """Checkpoints kept, the best one always among them; null keeps all."""
    eval_steps: PositiveInt | None = None
    """Optimizer steps between evaluations."""
    evals_per_epoch: PositiveInt | None = None
    """Evaluations in an epoch; 1 where neither this nor eval_steps is set."""
    metric_for_best_model: str = "eval_loss"
    """What is compared to find the best checkpoint."""
    greater_is_better: bool = False
    """Whether more of it is better."""
    load_best_model_at_end: bool = False
    """Save a checkpoint at each best evaluation, and end with the best one as the final model."""
    resume_from_checkpoint: str | None = None
    """`auto` goes on from the newest whole checkpoint in output_dir, if any; or the path of a checkpoint."""
    accept_changes: list[str] = []
    """Keys, or `data`, `plugins`, `processes`, that may differ from those of the checkpoint that a run goes on from."""

    @property
    def tokenizer_path(self) -> str:
        return self.tokenizer_config or self.base_model
