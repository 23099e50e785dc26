"""Real questions of GSM8K, with the maths reward, from rows to the summary.

The model has random weights, so what it writes is wrong. A function of the user beside it rewards digits, so that the
groups are not all dead.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny

DIGITS = """
def digits(completions, answer, **columns):
    assert all("####" in text for text in answer), "the row's own columns"
    return [sum(c.isdigit() for c in text) / max(len(text), 1) for text in completions]
"""


@pytest.mark.slow
def test_real_questions_are_answered_scored_and_trained_on(test_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    (tmp_path / "digits.py").write_text(DIGITS, encoding="utf-8")
    path = tiny.write_config(
        tmp_path,
        base_model=str(tiny.model_folder(tmp_path / "model", "llama")),
        rl="grpo",
        rewards=["math", {"name": "./digits.py:digits", "weight": 0.1}],
        trl={"num_generations": 4, "max_completion_length": 24, "reward_timeout": 120.0},
        datasets=[{"path": str(test_data / "gsm8k/grpo.jsonl"), "type": "prompt", "field_prompt": "question"}],
        sequence_len=1024,
        micro_batch_size=8,
        max_steps=3,
    )
    tiny.train(path)
    lines = tiny.metrics(tmp_path / "out")
    assert len(lines) == 3 and all(0 <= line["rewards/math/mean"] <= 1 for line in lines)
    assert any(line["rewards/digits/std"] > 0 and line["grad_norm"] > 0 for line in lines)
    assert lines[-1]["rollout/sequences"] == lines[-1]["rollout/trained"] == 24
    record = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert any("math" in str(offer) for offer in record["offers"]), record["offers"]
