"""Rows to examples, and examples to the micro-batches of a step."""
