"""Skip the optimizers of a library that is not installed."""

from __future__ import annotations

import importlib.util

import pytest
from tunesmith_optimizers.recipes import RECIPES


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    """Skip a test of an optimizer whose library is an extra that is not installed."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    recipe = RECIPES.get(name or "")
    if recipe and importlib.util.find_spec(recipe.library) is None:
        pytest.skip(f"{recipe.library} is not installed: {recipe.install}")
