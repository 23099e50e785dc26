"""Options that fit the tiny model, for each type of adapter."""

from __future__ import annotations

from typing import Any

import pytest

SHAPES: dict[str, dict[str, Any]] = {
    "adalora": {"target_r": 2, "init_r": 4, "tinit": 0, "tfinal": 1},
    "adamss": {"r": 8},
    "boft": {"boft_block_size": 4},
    "c3a": {"block_size": 8},
    "fourierft": {"n_frequency": 50, "scaling": 10.0},
    "gralora": {"r": 4, "alpha": 8},
    "miss": {"r": 4},
    "oft": {"oft_block_size": 8},
    "psoft": {"r": 4, "psoft_alpha": 4},
    "pvera": {"r": 4},
    "randlora": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "trainable_tokens": {"token_indices": [1, 2, 70]},
    "vblora": {"r": 2, "num_vectors": 16, "vector_length": 8},
    "vera": {"r": 4},
    "waveft": {"n_frequency": 50},
}


@pytest.fixture(scope="session")
def shapes() -> dict[str, dict[str, Any]]:
    return SHAPES
