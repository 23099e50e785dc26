"""Rules for the keys of a DeepSpeed configuration: passed on, decided by the run, without effect, or refused."""

from __future__ import annotations

STEP = {
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
}
"""Keys that a key of the run decides."""

PASSED = (
    "communication_data_type", "gradient_predivide_factor", "prescale_gradients", "zero_allow_untested_optimizer",
)  # fmt: skip
ZERO = {
    "allgather_bucket_size": (int,), "allgather_partitions": (bool,), "contiguous_gradients": (bool,),
    "ignore_unused_parameters": (bool,), "overlap_comm": (bool,), "reduce_bucket_size": (int,),
    "reduce_scatter": (bool,), "round_robin_gradients": (bool,), "use_multi_rank_bucket_allreduce": (bool,),
}  # fmt: skip
"""Keys of zero_optimization for every stage, with their types."""
ZERO3 = {
    "sub_group_size": (int,), "stage3_max_live_parameters": (int,), "stage3_max_reuse_distance": (int,),
    "stage3_model_persistence_threshold": (int,), "stage3_module_granularity_threshold": (int,),
    "stage3_param_persistence_threshold": (int,), "stage3_prefetch_bucket_size": (int,),
    "stage3_allgather_sequential": (bool,), "stage3_use_all_reduce_for_fetch_params": (bool,),
}  # fmt: skip
"""Further keys for stage 3."""
BY_WIDTH = {"reduce_bucket_size": 1.0, "stage3_prefetch_bucket_size": 0.9, "stage3_param_persistence_threshold": 10}
"""Keys whose value "auto" depends on the width of the hidden states, as in transformers: a share of its square for the
buckets, 10 times the width for the threshold."""
OFFLOAD = {"device": (str,), "pin_memory": (bool,)}

IDLE = {
    "steps_per_print": "the log has every step",
    "zero_force_ds_cpu_optimizer": "the optimizer of the run updates weights on the CPU as well",
}
IDLE_ZERO = {
    "stage3_gather_16bit_weights_on_model_save": "a final model always has complete weights",
    "stage3_gather_fp16_weights_on_model_save": "a final model always has complete weights",
    "load_from_fp32_weights": "a run resumes from its own checkpoints",
    "memory_efficient_linear": "torch computes linear layers",
    "elastic_checkpoint": "a run resumes from its own checkpoints",
}
IDLE_OFFLOAD = {name: "it is for NVMe" for name in ("buffer_count", "buffer_size", "fast_init", "max_in_cpu")}
"""Keys without effect, and why."""

REFUSED = {
    "activation_checkpointing": "write gradient_checkpointing: true in the YAML file",
    "amp": "write bf16: true in the YAML file",
    "scheduler": "drop it; lr_scheduler and warmup_steps in the YAML file decide",
    "tensor_parallel": "drop it",
    "autotuning": "drop it; tunesmith sweep tries values",
    "elasticity": "drop it; a run resumes on another number of processes if a step has as many packs",
    "data_efficiency": "drop it; curriculum_sampling and sample_packing in the YAML file decide",
    "curriculum_learning": "drop it; curriculum_sampling in the YAML file decides",
    "checkpoint": "drop it; a run writes its own checkpoints",
    "aio": "drop it; only NVMe needs it, and the device of an offload is cpu",
    "comms_logger": "drop it",
    "flops_profiler": "drop it",
    "tensorboard": "drop it; use_tensorboard in the YAML file decides",
    "wandb": "drop it; wandb_project in the YAML file decides",
    "csv_monitor": "drop it; metrics.jsonl has the same numbers",
    "comet": "drop it; use_comet in the YAML file decides",
    "compile": "drop it; the engine is not compiled",
    "sparse_attention": "drop it",
    "compression_training": "drop it",
    "sequence_parallel_size": "drop it",
    "wall_clock_breakdown": "drop it; the log has the tokens of a second",
    "memory_breakdown": "drop it; tunesmith plan shows the memory of a step",
    "dump_state": "drop it",
    "seed": "drop it; seed in the YAML file decides",
}
"""Keys that ask for something the run decides elsewhere, or that is not supported, with what to write instead.

A section that is switched off is not an error."""
REFUSED_ZERO = {
    "cpu_offload": 'write "offload_optimizer": {"device": "cpu"}',
    "cpu_offload_params": 'write "offload_param": {"device": "cpu"}',
    "cpu_offload_param": 'write "offload_param": {"device": "cpu"}',
    "cpu_offload_use_pin_memory": 'write "pin_memory" in offload_optimizer',
    "zero_hpz_partition_size": "drop it; ZeRO++ is not supported",
    "zero_quantized_weights": "drop it; ZeRO++ is not supported",
    "zero_quantized_nontrainable_weights": "drop it; load_in_4bit: true with adapter: qlora needs less memory",
    "zero_quantized_gradients": "drop it; ZeRO++ is not supported",
    "zenflow": "drop it; it updates weights from gradients of earlier steps",
}
