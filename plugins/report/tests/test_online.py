"""The page of an online method shows completions with their rewards, and where every completion went."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tunesmith_report import completions
from tunesmith_report.comparison import render_comparison
from tunesmith_report.completions import SHOWN, STEPS, read_tables, readable, steps_of
from tunesmith_report.folder import Folder
from tunesmith_report.ledger import ledger_of
from tunesmith_report.page import render

from plugins.report.tests.run_folders import LINES, RECORD, Page, folder, page
from tests import tiny

LONG = "First we add. " + "Then we divide. " * 60


def row(prompt: str, completion: str, advantage: float, exact: float, finish: str = "stop") -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "advantage": advantage, "finish": finish,
            "reward:exact": exact, "reward:format": 0.5}  # fmt: skip


ROWS = [
    row("<|im_start|>user\nTwo plus two?<|im_end|>\n<|im_start|>assistant\n", "five", -1.0, 0.0, "length"),
    row("Three?", "<script>document.title = 'pwned'</script>", 0.0, 1.0),
    row("<|im_start|>user\nTwo plus two?<|im_end|>\n<|im_start|>assistant\n", "four", 1.0, 1.0),
    row("Three?", LONG, 0.0, 1.0),
]
COUNTS = {"prompts": 2, "sequences": 8, "tokens": 90, "trained": 4, "dead": 3, "truncated": 1, "stale": 0, "kept": 0}


def online(path: Path, steps: int = 20, rows: Any = ROWS, **counts: int) -> Path:
    """Write the folder of an online run with a table for each step."""
    lines = [
        {**line, "reward": line["step"] / 20, "reward_std": 0.25, "rewards/exact/mean": 0.5, "rewards/exact/std": 0.1}
        | {f"rollout/{name}": float(count * line["step"]) for name, count in (COUNTS | counts).items()}
        for line in LINES
    ]
    tables = [{"step": step, "table": "completions", "rows": rows} for step in range(1, steps + 1)]
    folder(path, lines=lines)
    others = [{"step": 1, "table": "answers", "rows": ROWS}, 7]
    text = "".join(json.dumps(table) + "\n" for table in [*tables, *others])
    (path / "tables.jsonl").write_text(text + '{"step": 21, "table": "completions", "ro')
    return path


def test_completions_are_grouped_by_prompt_with_the_best_first(tmp_path: Path) -> None:
    tables, left_out = read_tables(online(tmp_path), Folder("x", {}))
    steps = steps_of(tables)
    assert [step.step for step in steps] == list(range(1, 21)) and left_out == 0
    first, second = steps[0].groups
    assert first.prompt.visible == "Two plus two?"
    assert [(one.text.visible, one.rank, one.finish) for one in first.rows] == [
        ("four", "best", "stop"), ("five", "worst", "length"),
    ]  # fmt: skip
    assert first.rows[0].rewards == [("exact", "1", 1.0), ("format", "0.5", 1.0)]
    assert not first.idle and second.idle and [one.rank for one in second.rows] == ["", ""]
    assert steps[0].means == [("exact", "0.75"), ("format", "0.5")]


@pytest.mark.parametrize(("advantage", "idle"), [(0.0, True), (0.5, False), (None, True)])
def test_a_part_of_a_group_with_equal_advantages_is_not_called_idle(advantage: Any, idle: bool) -> None:
    rows = [row("Q", "a", advantage, 1.0), row("Q", "b", advantage, 1.0)]
    [group] = steps_of([{"step": 1, "rows": rows}])[0].groups
    assert group.idle is idle


def test_long_texts_are_folded_and_complete(tmp_path: Path) -> None:
    [text] = [one.text for one in steps_of(read_tables(online(tmp_path), Folder("x", {}))[0])[0].groups[1].rows[1:]]
    assert text.visible + text.folded == LONG and len(text.visible) <= SHOWN and text.left_out == 0
    result = page(tmp_path)
    assert f"{len(text.folded):,} more characters" in result.text
    long = [row("Q " * 900 + "the question?", "x" * 9000, 1.0, 1.0)]
    group = steps_of([{"step": 1, "rows": long}])[0].groups[0]
    assert group.prompt.visible.endswith("the question?") and group.rows[0].text.left_out == 9000 - completions.LONGEST


def test_the_page_shows_the_last_step_and_has_the_others(tmp_path: Path) -> None:
    text = render(online(tmp_path), now=1.8e9)
    steps = [a for tag, a in Page(text).elements if tag == "div" and a.get("class") == "generated"]
    assert [a["data-step"] for a in steps if "hidden" not in a] == ["20"] and len(steps) == 20
    for part in ("four", "exact 1", "+1.00", "-1.00", "cut off", "No completion is better than another"):
        assert part in Page(text).text, part
    assert text.count("document.title") == 20 and "<script>document" not in text


def test_a_long_run_keeps_a_page_of_bearable_size(tmp_path: Path) -> None:
    path = online(tmp_path, steps=1000, rows=[row(f"Q{k}?", LONG, float(k), 1.0) for k in range(8)])
    tables, left_out = read_tables(path, Folder("x", {}))
    numbers = [table["step"] for table in tables]
    assert numbers[0] == 1 and numbers[-1] in (993, 1000) and STEPS // 2 <= len(numbers) <= STEPS + 1
    assert left_out >= 1000 - STEPS - 1 and {b - a for a, b in pairwise(numbers[:-1])} == {8}
    text = render(path, now=1.8e9)
    assert len(text) < 6e6 and "more steps" in Page(text).text


def test_a_run_that_generates_nothing_has_no_such_sections(tmp_path: Path) -> None:
    text = render(folder(tmp_path), now=1.8e9)
    assert 'id="completions"' not in text and 'id="ledger"' not in text and 'id="findings"' not in text


DAMAGED: list[Any] = [
    None, 7, [], [7, {}], [{"prompt": 1, "completion": "x"}], [{"prompt": "p", "completion": "c", "advantage": 1e999}],
    [{"prompt": "", "completion": "", "advantage": "x", "reward:a": None, "finish": 3}],
]  # fmt: skip


@pytest.mark.parametrize("rows", DAMAGED, ids=str)
def test_damaged_tables_give_a_page(tmp_path: Path, rows: Any) -> None:
    assert "Curves" in page(online(tmp_path, rows=rows)).text


def test_markup_and_secrets_in_tables_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-of-a-server")
    hostile = """</script><img src=x onerror="alert(1)">' s3cr3t-of-a-server \x1b[31m"""
    rows = [{"prompt": hostile, "completion": hostile, "advantage": 1.0, "finish": hostile, f"reward:{hostile}": 1.0}]
    text = render(online(tmp_path, rows=rows), now=1.8e9)
    assert "<img" not in text and "s3cr3t" not in text and "\x1b" not in text and text.count("<script>") == 1
    assert not [name for _, attributes in Page(text).elements for name in attributes if name.startswith("on")]


def test_prompts_lose_the_markers_of_their_template() -> None:
    turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert readable(turns) == "system: Be brief.\nuser: Why?"
    assert readable("plain\ntext") == "plain\ntext" and readable("") == ""


def test_rewards_are_drawn_with_their_spread(tmp_path: Path) -> None:
    text = render(online(tmp_path), now=1.8e9)
    result = Page(text)
    names = [name for name in result.charts if name.startswith(("reward", "rollout", "loss"))]
    assert names == ["reward", "rewards/exact/mean", "loss"]
    assert text.count('class="band"') == 2 and "Bands show one standard deviation" in result.text
    [band] = [a["d"] for tag, a in result.elements if tag == "path" and a.get("class") == "band"][:1]
    assert result.series("reward", "spread") == dict.fromkeys(range(1, 21), 0.25) and "± 0.25" in result.text
    assert band and band.count("L") == 39 and band.endswith("Z")
    assert "reward 1 from 0.05 at step 1" in result.text


def test_every_completion_is_in_one_part_of_the_ledger(tmp_path: Path) -> None:
    result = page(online(tmp_path))
    assert "160 completions were generated, with 1,800 tokens" in result.text
    for part in ("80 trained 50 %", "60 in groups with equal rewards 38 %", "20 not ended within the longest length"):
        assert part in result.text, part
    assert "too old" not in result.text and "add up" not in result.text


def test_a_ledger_that_does_not_add_up_says_so(tmp_path: Path) -> None:
    text = page(online(tmp_path, trained=5)).text
    assert "The parts add up to 180, not to 160 completions." in text


def test_columns_of_the_ledger_are_the_shares_of_each_interval() -> None:
    lines = [
        {"rollout/sequences": 10.0, "rollout/trained": 10.0, "rollout/dead": 0.0},
        {"rollout/sequences": 20.0, "rollout/trained": 15.0, "rollout/dead": 5.0},
    ]
    ledger = ledger_of(lines)
    assert ledger and ledger.columns == [[("trained", 0.0, 100.0)], [("trained", 0.0, 50.0), ("dead", 50.0, 50.0)]]
    assert ledger_of([{"loss": 1.0}]) is None


FINDING = {
    "id": "dead-groups", "severity": "warning", "metric": "reward", "steps": [5, 15], "value": 0.94, "threshold": 0.8,
    "message": "94% of the groups had <b>equal</b> rewards", "advice": "Use other prompts.",
}  # fmt: skip


def test_findings_have_a_section_and_their_steps_are_shaded(tmp_path: Path) -> None:
    path = online(tmp_path)
    note = FINDING | {"id": "reward-flat", "severity": "note", "metric": "eval_loss"}
    (path / "run.json").write_text(json.dumps(RECORD | {"notes": {"findings": [note, FINDING]}}))
    text = render(path, now=1.8e9)
    shown = Page(text).text
    assert "Findings warning dead-groups 94% of the groups had <b>equal</b> rewards Use other prompts." in shown
    assert "steps 5 to 15; reward 0.94, limit 0.8" in shown and "note reward-flat" in shown
    # Once in the reward, and in the loss both with a linear and with a logarithmic axis.
    assert text.count('class="shade warning"') == 1 and text.count('class="shade note"') == 2
    assert "{'id'" not in shown and "id: dead-groups" not in shown


INVALID: list[Any] = [
    "text", 3, [3], [{"id": "x"}], [FINDING | {"steps": [1]}], [FINDING | {"severity": "?"}],
    [FINDING | {"steps": [None, 2]}],
]  # fmt: skip


def test_compared_runs_have_their_findings(tmp_path: Path) -> None:
    records = (RECORD, RECORD | {"notes": {"findings": [FINDING, FINDING | {"metric": "loss"}]}})
    paths = [folder(tmp_path / name, record) for name, record in zip("ab", records, strict=True)]
    assert "findings dead-groups" in Page(render_comparison(paths, now=1.8e9)).text


@pytest.mark.parametrize("note", INVALID, ids=str)
def test_a_note_of_another_form_is_shown_as_a_note(tmp_path: Path, note: Any) -> None:
    text = page(folder(tmp_path, RECORD | {"notes": {"findings": note}})).text
    assert "Warnings and notes" in text and "findings" in text.partition("Warnings and notes")[2]


CONSTANT = """
from tunesmith import Plugin
plugin = Plugin(offers={"rewards": {"odd_tokens": ":constant"}})
def constant(completions, **columns):
    return [1.0] * len(completions)
"""


@pytest.mark.slow
def test_the_page_of_a_real_run_has_completions_a_ledger_and_findings(tmp_path: Path) -> None:
    """Ten rounds of four steps, whose reward is the same for all completions."""
    (tmp_path / "scored.py").write_text(CONSTANT)
    tiny.model_folder(tmp_path / "model")
    tiny.write_rows(tmp_path / "data.jsonl", tiny.rows("prompt", 24))
    contract = Path(tiny.__file__).parent / "contract" / "plugins"
    config = tiny.write_config(
        tmp_path, base_model=str(tmp_path / "model"), rl="groups", max_steps=40, num_epochs=9,
        plugins=[str(contract / "groups.py"), str(tmp_path / "scored.py"), str(contract / "echo.py")],
        datasets=[{"path": str(tmp_path / "data.jsonl"), "type": "prompt"}], groups_generator="echo",
    )  # fmt: skip
    tiny.train(config)
    text = render(tmp_path / "out", now=1.8e9)
    result = Page(text)
    assert [a["data-step"] for _, a in result.elements if a.get("class") == "generated"] == [
        str(step) for step in range(1, 41, 4)
    ]
    assert "the reward odd_tokens was the same for all completions of a prompt" in result.text
    assert "completions were generated" in result.text and "add up" not in result.text
