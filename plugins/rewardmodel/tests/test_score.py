"""The command score gives the scores of transformers, for the tokens that the model was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from plugins.prm.tests.scoring import padded
from plugins.reward.tests.scoring import scores, sequences
from tests import tiny
from tunesmith.cli.main import main


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["score", *map(str, arguments)])


def train(folder: Path, kind: str, strategy: str, **keys: Any) -> tuple[Path, Any]:
    """Train a tiny model on rows of a kind; return the rows and the result."""
    rows = tiny.write_rows(folder / "rows.jsonl", tiny.rows(kind, 12))
    datasets = [{"path": str(rows), "type": strategy}]
    return rows, tiny.train(tiny.sft_config(folder, datasets=datasets, **keys))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_scores_of_pairs_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    rows, result = train(tmp_path, "pair", "chat_template", reward_model=True)
    outcome = run(tmp_path / "out", rows, "--output", tmp_path / "scored.jsonl")
    assert outcome.exit_code == 0, outcome.output
    scored = lines(tmp_path / "scored.jsonl")
    own = [value for row in scored for value in (row["chosen_score"], row["rejected_score"])]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    examples = sorted(result.policy.run.data.train, key=lambda example: example.origin)
    assert own == pytest.approx(scores(model, sequences(examples), None).tolist(), abs=1e-4)
    assert [{k: v for k, v in row.items() if k in before} for row, before in zip(scored, lines(rows), strict=True)] == (
        lines(rows)
    )
    margins = [row["chosen_score"] - row["rejected_score"] for row in scored]
    assert [row["margin"] for row in scored] == pytest.approx(margins, abs=1e-5)
    accuracy = sum(margin > 0 for margin in margins) / len(margins)
    assert f"12 rows; accuracy {accuracy:.4g}, margin " in outcome.output


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_scores_of_steps_are_those_of_transformers(adapter: str | None, tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    rows, result = train(
        tmp_path, "stepwise", "stepwise_supervised", process_reward_model=True, adapter=adapter, max_steps=1
    )
    outcome = run(tmp_path / "out", rows, "--output", tmp_path / "scored.jsonl", "--batch-tokens", 64)
    assert outcome.exit_code == 0, outcome.output
    inputs = padded(sorted(result.policy.run.data.train, key=lambda example: example.origin))
    if adapter is None:
        model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    else:
        from peft import PeftModel

        base = AutoModelForTokenClassification.from_pretrained(tmp_path / "model-llama", num_labels=2)
        model = PeftModel.from_pretrained(base, tmp_path / "out")
    with torch.no_grad():
        logits = model.eval()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    expected = logits.softmax(-1)[..., 1][inputs["labels"] >= 0].tolist()
    scored = lines(tmp_path / "scored.jsonl")
    assert [value for row in scored for value in row["step_scores"]] == pytest.approx(expected, abs=1e-4)
    assert all(len(row["step_scores"]) == len(row["labels"]) for row in scored)
    joined = [{"prompt": row["prompt"], "completion": "\n".join(row["completions"]) + "\n"} for row in scored]
    again = run(tmp_path / "out", tiny.write_rows(tmp_path / "joined.jsonl", joined), "--output", tmp_path / "j.jsonl")
    assert again.exit_code == 0, again.output
    assert [row["step_scores"] for row in lines(tmp_path / "j.jsonl")] == [row["step_scores"] for row in scored]


def test_all_shapes_of_a_row_give_the_same_score(tmp_path: Path) -> None:
    train(tmp_path, "pair", "chat_template", reward_model=True, max_steps=1)
    question, answer = "what is a river", "a long water"
    user, assistant = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    shapes = [
        {"prompt": question, "completion": answer},
        {"prompt": [user], "completion": [assistant]},
        {"messages": [user, assistant]},
        {"messages": [user, {"role": "assistant", "content": "other"}], "completion": answer},
        {"prompt": question, "completions": [answer, "something else"]},
        {"prompt": question, "chosen": answer, "rejected": "no"},
        {"chosen": [user, assistant], "rejected": [user, {"role": "assistant", "content": "no"}]},
    ]
    outcome = run(
        tmp_path / "out", tiny.write_rows(tmp_path / "shapes.jsonl", shapes), "--output", tmp_path / "o.jsonl"
    )
    assert outcome.exit_code == 0, outcome.output
    scored = lines(tmp_path / "o.jsonl")
    values = [row.get("score", row.get("chosen_score", row.get("scores", [None])[0])) for row in scored]
    assert values == pytest.approx([values[0]] * len(shapes), abs=1e-5)
    assert scored[4]["scores"][1] != scored[4]["scores"][0]


def test_what_cannot_be_scored_is_refused_with_advice(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, max_steps=1))
    rows = tiny.write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}])
    outcome = run(tmp_path / "out", rows)
    assert outcome.exit_code == 4 and "has no head that scores answers" in outcome.stderr
    assert "reward_model: true" in outcome.stderr
    train(tmp_path, "pair", "chat_template", reward_model=True, max_steps=1, output_dir=str(tmp_path / "reward"))
    wrong = [{"prompt": "a"}, {"prompt": "a", "completion": 3}, {"completion": "b"}, {"prompt": "a", "completion": "b"}]
    outcome = run(tmp_path / "reward", tiny.write_rows(tmp_path / "wrong.jsonl", wrong))
    assert outcome.exit_code == 3
    assert all(f"wrong.jsonl:{line}: error[row]" in outcome.stderr for line in (1, 2, 3))
    assert "wrong.jsonl:4" not in outcome.stderr
