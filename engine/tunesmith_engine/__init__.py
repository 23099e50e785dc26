"""The engine of Tunesmith: packed batches of segment trees, one forward for all methods, the loop, checkpoints.

It is shared by all methods. Plugins use it through `tunesmith`, which exports its public names.
"""
