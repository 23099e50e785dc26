"""Examples as segment trees, packed into batches, and the terms computed from them."""
