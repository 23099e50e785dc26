"""The test that `pytest --tunesmith-plugin NAME` collects; the pytest plugin parametrizes it."""

from __future__ import annotations

import pytest

from tunesmith.testing.checks import Check
from tunesmith.testing.conformance import Kit
from tunesmith.testing.subject import Setup


def test_plugin_conforms(
    plugin: str, setup: Setup, check: Check, tunesmith_kit: Kit, request: pytest.FixtureRequest
) -> None:
    tunesmith_kit.run(plugin, setup, check, request.session.items)
