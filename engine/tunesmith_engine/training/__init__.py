"""The training loop: steps, evaluation, state, and the run from its first line to its last."""
