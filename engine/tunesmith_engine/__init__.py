"""The engine of Tunesmith: packed batches of segment trees, one forward for all methods, the loop, checkpoints.

Written once, below the methods. Plugins reach it through `tunesmith`, which gives its public names.
"""
