"""Findings are reported once, survive an interruption, and are in the summary, run.json and on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunesmith_diagnosis.diagnosis import Diagnosis, kind_of

from plugins.diagnosis.tests.series import METHODS, STEPS, feed, findings_of, run_of
from plugins.diagnosis.tests.test_rules import FAULTS, WELL
from tests import tiny
from tests.contract.fakes import error_of
from tunesmith.files.record import last_record
from tunesmith.testing.conformance import conformance

test_conformance = conformance("diagnosis")
COLLAPSE = WELL["online"] | FAULTS["entropy-collapse"] | FAULTS["reward-falling"] | FAULTS["reward-constant"]


def test_a_warning_is_printed_once_and_a_note_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    findings = findings_of("online", WELL["online"] | FAULTS["kl-diverged"] | FAULTS["reward-flat"])
    assert {(one.id, one.severity) for one in findings} == {("kl-diverged", "warning"), ("reward-flat", "note")}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: step 63: kl-diverged: the policy is 2.0") and "Lower learning_rate" in line


def test_the_note_of_the_run_has_warnings_first_as_json() -> None:
    diagnosis = Diagnosis(run_of("online"))
    diagnosis.begin()
    assert "findings" not in diagnosis.run.notes
    feed(diagnosis, WELL["online"] | FAULTS["reward-flat"] | FAULTS["kl-jump"], 1, STEPS)
    first, second = json.loads(json.dumps(diagnosis.run.notes["findings"]))
    assert (first["id"], first["severity"], second["id"], second["severity"]) == (
        "kl-jump", "warning", "reward-flat", "note",
    )  # fmt: skip
    assert set(first) == {"id", "severity", "metric", "steps", "value", "threshold", "message", "advice"}


@pytest.mark.parametrize("step", [5, 37, 90])
def test_a_resumed_run_has_the_findings_of_an_uninterrupted_one(step: int, capsys: pytest.CaptureFixture[str]) -> None:
    uninterrupted = Diagnosis(run_of("online"))
    uninterrupted.begin()
    feed(uninterrupted, COLLAPSE, 1, STEPS)
    printed = capsys.readouterr().err
    before, after = Diagnosis(run_of("online")), Diagnosis(run_of("online", step))
    before.begin()
    feed(before, COLLAPSE, 1, step)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    after.begin()
    assert after.run.notes == before.run.notes
    feed(after, COLLAPSE, step + 1, STEPS)
    assert after.run.notes == uninterrupted.run.notes and len(after.findings) == 3
    assert capsys.readouterr().err == printed, "no warning is printed again"


def test_a_run_whose_first_steps_are_unknown_is_not_compared_with_its_start() -> None:
    late = Diagnosis(run_of("sft", 60))
    late.begin()
    feed(late, WELL["sft"] | FAULTS["first-loss-random"], 61, STEPS)
    assert not late.findings
    again = Diagnosis(run_of("sft", STEPS))
    again.load_state_dict(late.state_dict())
    again.begin()
    assert not [rule for rule in again.rules if rule.reads_start]


def test_random_weights_begin_with_a_random_loss() -> None:
    values = WELL["sft"] | FAULTS["first-loss-random"]
    assert [one.id for one in findings_of("sft", values)] == ["first-loss-random"]
    assert findings_of("sft", values, reinit_weights=True) == []


def test_the_kind_of_a_method_is_what_it_declares() -> None:
    assert {kind: kind_of(run_of(kind)) for kind in METHODS} == {kind: kind for kind in METHODS}


def test_ignored_findings_are_not_reported() -> None:
    values = WELL["sft"] | FAULTS["loss-spike"]
    assert findings_of("sft", values, ignored=["loss-spike"]) == []


def test_an_unknown_finding_is_an_error_with_its_place(tmp_path: Path) -> None:
    error = error_of(tiny.start, tiny.sft_config(tmp_path, ignore_findings=["loss-spikes"]))
    assert "has an unknown name: loss-spikes" in str(error) and "did you mean 'loss-spike'?" in str(error)
    assert str(error.problems[0].where).startswith(f"{tmp_path / 'run.yaml'}:")


def test_an_absurd_learning_rate_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny.sft_config(
        tmp_path, number=96, learning_rate=3.0, lr_scheduler="constant", max_steps=40, reinit_weights=True
    )
    (tmp_path / "model-llama" / "model.safetensors").unlink()
    tiny.train(config)
    captured = capsys.readouterr()
    findings = last_record(tmp_path / "out")["notes"]["findings"]
    assert findings[0]["severity"] == "warning", findings
    ids = {one["id"] for one in findings}
    assert ids & {"loss-spike", "gradient-exploding", "gradient-clipped", "loss-flat"}, ids
    assert captured.err.count(f"{findings[0]['id']}: ") == 1
    summary = captured.out.partition("summary\n")[2]
    assert f"warning {findings[0]['id']}, steps" in summary
    capsys.readouterr()
    tiny.train(config, f"output_dir={tmp_path / 'well'}", "learning_rate=3e-3")
    assert "findings" not in last_record(tmp_path / "well")["notes"] and "findings" not in capsys.readouterr().out


def test_a_run_without_the_plugin_has_no_findings_and_can_be_resumed_with_it(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, max_steps=4, save_steps=2)
    tiny.train(config, "plugins=[-diagnosis]", "max_steps=2")
    assert "findings" not in last_record(tmp_path / "out")["notes"]
    tiny.train(config, "resume_from_checkpoint=auto")
    assert last_record(tmp_path / "out")["step"] == 4
