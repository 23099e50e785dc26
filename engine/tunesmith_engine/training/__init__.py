"""Train: steps, evaluation, the state of a run, and the run from its first line to its last."""
