"""From rows to examples to the micro-batches of a step."""
