"""The keys of the core, by subject. In the YAML they are flat: `CoreSettings` joins the groups."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from tunesmith.plugins.plugin import Settings
from tunesmith.plugins.values import LARGEST_INTEGER, PathText, whole_or_share

Steps = Annotated[int, Field(gt=0, le=10**9)]
"""A number of optimizer steps."""
Interval = Annotated[
    int | float,
    Field(gt=0, le=10**9),
    AfterValidator(whole_or_share),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 10**9}),
]
"""A number of optimizer steps; or below 1, a share of all steps."""
PerEpoch = Annotated[int, Field(gt=0, le=10**6)]
"""How often something is done in an epoch."""
Batch = Annotated[int, Field(gt=0, le=10**6)]
"""A number of sequences, or of micro-batches, in a step."""
Processes = Annotated[int, Field(gt=0, le=10**6)]
"""A number of processes over all machines."""


class DatasetSettings(Settings):
    """One entry of `datasets:`. The strategy named by its `type` adds keys of its own."""

    path: PathText
    """A file, a folder of files, a folder saved by the datasets library, a URL (https://, s3://, gs://, ...), or the id
    of a dataset on the hub."""
    type: str | dict[str, Any]
    """The prompt strategy that turns rows into examples: a name (chat_template, alpaca, completion, ...), a mapping
    that describes the format (field_instruction: ..., format: ...), or your own function in a file (./rows.py:name)."""
    weight: float = Field(1.0, gt=0, le=1000)
    """How often its rows are seen in an epoch: 2 means twice, 0.5 every other epoch. At most 1000; for more, raise
    num_epochs and lower the weights of the other entries. See mixing_temperature."""
    keep: list[str] = []
    """Columns whose values stay with the examples, as JSON values, for evaluations and rewards that read them in
    `example.fields`: [answer]. Every row must have them."""
    shards: int | None = Field(None, gt=0, le=10**9)
    """Split the rows into this many equal parts and use one of them."""
    shards_idx: int = Field(0, ge=0, lt=10**9)
    """The part to use: every `shards`-th row, starting with this one."""
    split: str = "train"
    """Split of a hub dataset, of a saved dataset, or of files that are named after splits; a single file is train. A
    slice is possible: train[:10%], train[100:200], train[-10%:]."""
    name: str | None = None
    """Subset (configuration) of a hub dataset."""
    revision: str | None = None
    """Revision of a hub dataset: a branch, tag or commit."""
    data_files: list[PathText] | PathText | None = None
    """Names or patterns (*.jsonl, **/*.csv) of files in the folder or hub dataset. Default: all files."""
    ds_type: Literal["json", "csv", "parquet", "arrow", "text"] | None = None
    """Format of the files, if their names do not show it; in a folder, the format to read."""
    sample_by: Literal["line", "paragraph", "document"] = "line"
    """The unit that becomes a row of a text file (.txt, .md). Empty lines separate paragraphs."""


class SpecialTokens(Settings):
    """Tokens with a role. A token that is not in the vocabulary is added to it."""

    bos_token: str | None = None
    """Begins a text."""
    eos_token: str | None = None
    """Ends a turn or a text; generation stops at it."""
    pad_token: str | None = None
    """Pads batches during generation. Training does not pad."""
    unk_token: str | None = None
    """Replaces what is not in the vocabulary."""


class GradientCheckpointing(Settings):
    """Options of gradient checkpointing."""

    use_reentrant: bool = False
    """Use the old implementation of torch.utils.checkpoint."""


class FSDPConfig(Settings):
    """Sharding of parameters, gradients and optimizer state over processes (FSDP2)."""

    reshard_after_forward: bool = True
    """Free full parameters between forward and backward (ZeRO-3); false keeps them (ZeRO-2)."""
    offload_params: bool = False
    """Keep parameters and optimizer state in CPU memory."""
    auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "NO_WRAP"] = "TRANSFORMER_BASED_WRAP"
    """Modules to shard as units."""
    transformer_layer_cls_to_wrap: str | None = None
    """Class of the layers that are sharded as units. Default: the classes that the model names."""
    state_dict_type: Literal["FULL_STATE_DICT", "SHARDED_STATE_DICT"] = "FULL_STATE_DICT"
    """Contents of checkpoints: full weights and optimizer state, which the main process gathers and writes; or shards
    that each process writes. A run resumes from either, whatever its own value is. Exported models are full."""


class ModelKeys(Settings):
    """Keys for the model, the method, and the folder of the run."""

    base_model: PathText
    """The model: a folder or a hub id."""
    tokenizer_config: PathText | None = None
    """Folder or hub id of the tokenizer, if it is not the model's."""
    special_tokens: SpecialTokens = SpecialTokens()
    """Tokens with a role, where the tokenizer's files set none or another one."""
    plugins: list[str] = []
    """Plugins to activate, in call order: names of installed plugins, or ./file.py relative to this YAML. `-console`
    switches off a default plugin."""
    rl: str | None = None
    """The training method, if it is not supervised fine-tuning. Values come from plugins."""
    adapter: str | None = None
    """The adapter (lora, ...). Without one, all weights are trained. Values come from plugins."""
    output_dir: PathText = "./outputs"
    """Folder of the run: final model, checkpoints, run.json, metrics.jsonl. Relative to the working folder."""


class DataKeys(Settings):
    """Keys for datasets: where rows come from, how they are mixed, cut and packed."""

    datasets: list[dict[str, Any]] = []
    """Data to train on. Entries have the keys of DatasetSettings and those of their strategy."""
    pretraining_dataset: list[dict[str, Any]] = []
    """Data to train on as a stream: read, tokenized and packed during training. Requires max_steps."""
    test_datasets: list[dict[str, Any]] = []
    """Data to evaluate on, never trained on. Entries as in datasets."""
    streaming: bool = False
    """Read, tokenize and pack `datasets:` during training instead of before it. Requires max_steps."""
    mixing_temperature: float | None = Field(None, gt=0, le=10**6)
    """Mix entries in proportion to (number of rows) ** (1 / this): 1 keeps the proportions, higher values even them
    out. The length of the epoch does not change."""
    shuffle_merged_datasets: bool = True
    """Shuffle over all entries; false trains on one entry after the other, each shuffled."""
    curriculum_sampling: bool = False
    """Train in the order of the data, without shuffling."""
    dataset_prepared_path: PathText | None = None
    """Folder for prepared data. A later run with the same data, tokenizer and options reads it from there."""
    dataset_num_proc: int = Field(1, gt=0, le=1024)
    """Processes that tokenize, with one thread each. A single process uses all threads of the tokenizer, and is as fast
    on up to a few cores."""
    val_set_size: float = Field(0.0, ge=0, le=10**9)
    """Rows of `datasets:` to hold out for evaluation: a share below 1 or a number, drawn by `seed`."""
    sequence_len: int = Field(2048, gt=0, le=10**8)
    """Longest sequence in tokens (prompt plus one completion), and the length of a pack."""
    excess_length_strategy: Literal["drop", "truncate", "raise", "split"] = "drop"
    """Handling of longer examples; split cuts them into several (texts and conversations only). If it is not set,
    streamed texts (pretraining_dataset) are split."""
    sample_packing: bool = True
    """Pack several examples into one row of sequence_len tokens. Results equal those of unpacked training, since
    examples do not attend to each other."""
    eval_sample_packing: bool | None = None
    """The same for evaluation. Default: as sample_packing."""
    streaming_multipack_buffer_size: int = Field(512, gt=0, le=10**7)
    """Examples that a streamed dataset reads ahead in order to pack well."""
    precompute_ref_log_probs: bool = False
    """Compute the log-probabilities of the reference model once, before the first step, and keep them with the prepared
    data: no second model in memory and no forward of it during a step. For methods with a reference model."""


class BatchKeys(Settings):
    """Keys for the size of an optimizer step and the length of training."""

    micro_batch_size: Batch = 1
    """Packs (or examples, without packing) in one forward pass on one process."""
    eval_batch_size: Batch | None = None
    """The same for evaluation. Default: as micro_batch_size."""
    gradient_accumulation_steps: Batch = 1
    """Micro-batches in one optimizer step on one process."""
    num_epochs: float = Field(1.0, gt=0, le=10**5)
    """Passes over the data; may be a fraction."""
    max_steps: Steps | None = None
    """Maximum number of optimizer steps. Training ends earlier if num_epochs ends it."""
    learning_rate: float = Field(2e-5, gt=0, le=10**9)
    """Peak learning rate."""
    optimizer: str = "adamw_torch"
    """The optimizer. Values come from plugins."""
    lr_scheduler: str = "cosine"
    """The learning-rate schedule. Values come from plugins."""
    max_grad_norm: float = Field(1.0, ge=0, le=1e12)
    """Scale gradients down to this norm; 0 disables clipping."""
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    """Reaction to a loss or gradient that is not finite, which never reaches the weights: stop with an error, skip the
    update, or go back to the newest checkpoint and leave out the rows of the step. More than 3 in a row always stop."""
    seed: int = Field(42, ge=0, le=LARGEST_INTEGER)
    """Seed of initial weights, data order, dropout and sampling."""


class PrecisionKeys(Settings):
    """Keys for number formats, recomputation and attention."""

    bf16: Literal["auto"] | bool = "auto"
    """Compute in bfloat16; trained weights stay in float32. auto: on GPUs that support it."""
    tf32: bool | None = None
    """Use TensorFloat-32 matrix products on NVIDIA GPUs. Default: torch's setting."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, much less memory."""
    gradient_checkpointing_kwargs: GradientCheckpointing = GradientCheckpointing()
    """Options of gradient_checkpointing."""
    attn_implementation: Literal["auto", "slices", "flex", "varlen", "dense", "padded"] = "auto"
    """Attention backend: slices (sdpa branch by branch), flex or varlen (GPU), dense (a full mask), padded (sequences
    side by side, for layers that can't separate sequences in a pack, such as recurrent ones); auto chooses."""


class ParallelKeys(Settings):
    """Keys for devices and processes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto uses a GPU if there is one."""
    fsdp_config: FSDPConfig | None = None
    """Shard the model over processes."""
    dp_replicate_size: Processes | None = None
    """Replicas of a sharded model (HSDP): it is sharded within each group of dp_shard_size processes, and gradients are
    summed over the groups. Default: 1, or what dp_shard_size leaves."""
    dp_shard_size: Processes | None = None
    """Processes over which each replica is sharded. Default: all processes divided by dp_replicate_size."""
    context_parallel_size: Processes = 1
    """Processes that compute each pack together, each a part of its tokens, for packs that are too long for one."""
    tensor_parallel_size: Processes = 1
    """Processes that compute each layer together, each a part of its heads and columns, for layers that are too large
    for one."""
    expert_parallel_size: Processes = 1
    """Processes over which the experts of each layer are divided, between which tokens travel to their experts."""


class ScheduleKeys(Settings):
    """Keys for logging, evaluation, checkpoints and resuming."""

    logging_steps: Steps = 1
    """Optimizer steps between lines of the log."""
    save_steps: Interval | None = None
    """Optimizer steps between checkpoints; below 1, as a share of all steps."""
    saves_per_epoch: PerEpoch | None = None
    """Checkpoints per epoch. Default: 1 if save_steps is not set."""
    async_save: bool = False
    """Write checkpoints while training goes on: a step waits only for the copy to host memory. Except for the last one,
    they contain no model for other libraries."""
    save_total_limit: int | None = Field(4, gt=0, le=10**6)
    """Checkpoints to keep, always including the best one; null keeps all."""
    eval_steps: Interval | None = None
    """Optimizer steps between evaluations; below 1, as a share of all steps."""
    save_only_model: bool = False
    """Leave the optimizer's state out of checkpoints, which makes them smaller. Runs can't resume from them."""
    evals_per_epoch: PerEpoch | None = None
    """Evaluations per epoch. Default: 1 if eval_steps is not set."""
    eval_on_start: bool = False
    """Evaluate before the first step as well. This evaluation is logged as step 0, and is not compared with others."""
    metric_for_best_model: str = "eval_loss"
    """Metric that decides which checkpoint is the best."""
    greater_is_better: bool = False
    """True if a greater metric_for_best_model is better."""
    load_best_model_at_end: bool = False
    """Save a checkpoint at each best evaluation, and use the best one as the final model."""
    resume_from_checkpoint: PathText | None = None
    """auto resumes from the newest complete checkpoint in output_dir, if there is one; or the path of a checkpoint."""
    accept_changes: list[str] = []
    """Keys, or `data` and `plugins`, that may differ from those of the checkpoint that the run resumes."""


class CoreSettings(ScheduleKeys, ParallelKeys, PrecisionKeys, BatchKeys, DataKeys, ModelKeys):
    """The keys of every run. Pydantic lists the fields of the last base first."""

    @property
    def tokenizer_path(self) -> str:
        """Folder or hub id of the tokenizer."""
        return self.tokenizer_config or self.base_model
