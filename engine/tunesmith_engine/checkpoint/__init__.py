"""Save, find, compare and resume checkpoints."""
