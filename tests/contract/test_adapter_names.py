"""Names of adapters that only other tools have are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tunesmith import ConfigError
from tunesmith.plugins.discovery import refused_values

REASONS = {
    "prefix_tuning": (r"prefix_tuning: it adds past_key_values to each sequence, and a pack", "write adapter: lora"),
    "prompt-tuning": (r"prompt-tuning: it adds tokens to each sequence", "write adapter: lora"),
    "dora": ("dora: it is an option of LoRA", "peft_use_dora: true"),
    "IA3": ("IA3: no plugin trains this adapter yet", "write adapter: lora"),
    "none": ("none: without an adapter, all weights are trained", "drop the key"),
    "lroa": ("no plugin answers adapter: lroa", "did you mean 'lora'?"),
}


@pytest.mark.parametrize("name", REASONS)
def test_a_name_of_another_tool_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / "model-llama").mkdir()
    with pytest.raises(ConfigError) as caught:
        tiny.start(tiny.sft_config(tmp_path, adapter=name, number=2))
    problems = {problem.message: problem.help for problem in caught.value.problems}
    message, help = REASONS[name]
    assert any(message in text and help in str(advice) for text, advice in problems.items()), problems


def test_each_refused_value_has_a_reason_and_advice() -> None:
    assert all(set(row) == {"reason", "write"} for row in refused_values("adapter").values())
    assert refused_values("optimizer") == {}
