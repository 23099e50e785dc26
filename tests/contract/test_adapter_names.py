"""Names of adapters that only other tools have are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tunesmith import ConfigError

ADVICE = {
    "prefix_tuning": "write adapter: lora: it adds past_key_values to each sequence, and a pack",
    "prompt-tuning": "write adapter: lora: it adds tokens to each sequence",
    "dora": "write adapter: lora and peft_use_dora: true",
    "loraa": "did you mean 'lora'?",
}


@pytest.mark.parametrize("name", ADVICE)
def test_a_name_of_another_tool_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / "model-llama").mkdir()
    with pytest.raises(ConfigError) as caught:
        tiny.start(tiny.sft_config(tmp_path, adapter=name, number=2))
    [problem] = [p for p in caught.value.problems if p.message == f"no plugin answers adapter: {name}"]
    assert str(problem.help).startswith(ADVICE[name])
