"""Examples as segment trees, packs of them in batches, and the terms computed on batches."""
