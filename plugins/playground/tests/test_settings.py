"""Settings have values that sampling accepts, and an error says what to write."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith_playground.settings import Settings

from tunesmith import ConfigError, Sampling


def test_texts_and_numbers_are_values() -> None:
    changed = Settings().changed({"temperature": "0.5", "top_k": 20, "top_p": 1, "min_p": "0.1", "seed": "3"})
    assert changed.sampling == Sampling(0.5, 1.0, 20, 0.1)
    assert changed.seed == 3
    assert changed.changed({"max_new_tokens": "7"}).max_new_tokens == 7
    assert changed.changed({"max_new_tokens": "auto"}).max_new_tokens is None
    assert "temperature     0.5" in changed.lines() and "max_new_tokens  auto" in changed.lines()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "-1"), ("temperature", "nan"), ("temperature", "warm"), ("temperature", True),
        ("temperature", "inf"), ("top_p", "0"), ("top_p", 1.5), ("top_k", "2.5"), ("top_k", 2.5), ("min_p", -0.1),
        ("max_new_tokens", 0), ("seed", None), ("seed", 2**70), ("seed", [1]), ("top_k", "9" * 5000),
    ],
)  # fmt: skip
def test_another_value_is_an_error_that_says_what_to_write(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="not a valid value") as error:
        Settings().changed({key: value})
    assert str(error.value.problems[0].help).startswith("write a")


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as error:
        Settings().changed({"temprature": 1})
    assert error.value.problems[0].help == "did you mean 'temperature'?"
