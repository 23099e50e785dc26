"""Load, wrap and call models: policy, reference, heads, scoring."""
