"""Names that the checks need before torch is imported."""

CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
"""Losses with the clipped ratio of PPO."""
OFFERED_ADVANTAGES = "advantages"
"""The kind of offer of functions (groups, settings, weights) -> advantages."""
OFFERED_FILTERS = "token_filters"
"""The kind of offer of functions (out, batch, log_ratio [N], advantage [N]) -> factor [N] of each token."""
UNCERTAIN = "uncertain"
"""The column that is 1 for the tokens that top_entropy_quantile keeps, and the count of these tokens."""
HIGH_ENTROPY = "high_entropy"
"""The metric with the mean entropy of these tokens."""
