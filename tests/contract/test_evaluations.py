"""Plugins evaluate: their names are known before the first step, with or without held-out rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests import tiny
from tests.contract.fakes import local_plugin
from tunesmith import ConfigError, PluginError, Run
from tunesmith.api import prepare

EXACT = Path(__file__).parent / "plugins/exact.py"
ROWS = [{"prompt": "the cat", "answer": " sees"}, {"prompt": "the dog", "answer": " likes"}] * 4
MEASURE = """
plugin = Plugin(metrics=("measured",))
@hookimpl
def evaluate(run, policy, examples):
    return {"measured": float(run.step)}
"""


def exact_config(folder: Path, **keys: Any) -> Path:
    """Write a config whose model learns to answer, and is evaluated by exact match."""
    data = tiny.write_rows(folder / "data.jsonl", ROWS)
    entry = {"path": str(data), "type": "asked", "keep": ["answer"]}
    model = folder / "model"
    best = {"metric_for_best_model": "eval_exact_match", "greater_is_better": True, "load_best_model_at_end": True}
    base = {"base_model": str(model if model.exists() else tiny.model_folder(model)), "plugins": [str(EXACT)]}
    defaults = base | {"datasets": [entry], "num_epochs": 8, "sample_packing": False} | best
    return tiny.write_config(folder, **(defaults | keys))


def measuring(folder: Path, source: str = MEASURE, **keys: Any) -> Path:
    """Write the config of a supervised run with a plugin that evaluates."""
    plugin = local_plugin(folder, "measure", source)
    return tiny.sft_config(folder, number=8, **({"plugins": [str(plugin)], "max_steps": 2, "eval_steps": 1} | keys))


def evaluations(folder: Path) -> list[dict[str, float]]:
    lines = tiny.metrics(folder / "out")
    return [{k: v for k, v in line.items() if k.startswith("eval_")} for line in lines if "eval_" in str(line)]


def test_generated_evaluation_selects_the_best_checkpoint_without_held_out_rows(tmp_path: Path) -> None:
    assert len(EXACT.read_text().splitlines()) <= 40
    path = exact_config(tmp_path, datasets=[{"path": str(tmp_path / "data.jsonl"), "type": "asked"}], eval_steps=4)
    result = tiny.train(path)
    values = [evaluation["eval_exact_match"] for evaluation in evaluations(tmp_path)]
    assert result.steps == 32 and len(values) == 8 and values[0] == 0.0 and max(values) == 1.0
    best = 4 * (values.index(1.0) + 1)
    assert result.policy.run.notes["final model"] == f"that of step {best}, the best eval_exact_match"
    final, kept = tiny.weights(tmp_path / "out"), tiny.weights(tmp_path / f"out/checkpoint-{best}")
    assert all(torch.equal(final[name], kept[name]) for name in kept)


def test_evaluation_reads_the_kept_columns_of_held_out_rows(tmp_path: Path) -> None:
    tiny.train(exact_config(tmp_path, val_set_size=2, eval_steps=16))
    assert [set(e) for e in evaluations(tmp_path)] == [{"eval_loss", "eval_perplexity", "eval_exact_match"}] * 2
    assert evaluations(tmp_path)[-1]["eval_exact_match"] == 1.0


def test_evaluation_changes_no_step(tmp_path: Path) -> None:
    """The plugin draws random numbers and leaves the model in another mode."""
    source = MEASURE.replace("    return", "    import torch; torch.rand(9); policy.model.train()\n    return")
    dropout = tiny.model_folder(tmp_path / "model-llama", attention_dropout=0.3)
    losses = []
    for plugins in ([], [str(local_plugin(tmp_path, "measure", source))]):
        keys = {"plugins": plugins, "eval_steps": 1 if plugins else None}
        tiny.train(tiny.sft_config(tmp_path, base_model=str(dropout), output_dir=str(tmp_path / "out"), **keys))
        losses.append([line["loss"] for line in tiny.metrics(tmp_path / "out")])
        (tmp_path / "out").rename(tmp_path / f"out-{len(plugins)}")
    assert losses[0] == losses[1] and len(losses[0]) == 4


def start_error(path: Path) -> str:
    with pytest.raises((ConfigError, PluginError)) as error:
        tiny.start(path)
    return str(error.value)


def test_unknown_metric_is_an_error_of_check(tmp_path: Path) -> None:
    message = start_error(measuring(tmp_path, metric_for_best_model="eval_mesured"))
    assert "metric_for_best_model eval_mesured is not measured; measured: eval_measured" in message
    assert "did you mean 'eval_measured'?" in message
    held_out = start_error(measuring(tmp_path, metric_for_best_model="eval_perplexiti", val_set_size=2))
    assert "measured: eval_loss, eval_measured, eval_nll, eval_perplexity" in held_out
    assert "eval_loss is not measured" in start_error(measuring(tmp_path, load_best_model_at_end=True))
    notes = tiny.start(measuring(tmp_path, eval_batch_size=2)).notes
    assert any("eval_batch_size" in name and "without held-out data" in text for name, text in notes.items())


def test_evaluation_without_declared_names_is_an_error_of_check(tmp_path: Path) -> None:
    message = start_error(measuring(tmp_path, MEASURE.replace('metrics=("measured",)', "")))
    assert 'Plugin(metrics=("name",))' in message and "measure.py:" in message


def test_two_plugins_with_one_metric_are_an_error_of_check(tmp_path: Path) -> None:
    plugins = [str(local_plugin(tmp_path, name, MEASURE)) for name in ("one", "two")]
    assert "two plugins declare the metric 'measured': one and two" in start_error(measuring(tmp_path, plugins=plugins))


TERM = """
plugin = Plugin()
@hookimpl(wrapper=True)
def compute_loss(out):
    from tunesmith import Term
    return (yield) | {"spread": Term(out.logps.detach().abs().sum(), "tokens", metric=True)}
"""


def test_term_that_no_plugin_declares_is_known_before_the_first_step(tmp_path: Path) -> None:
    def run(metric: str) -> Any:
        return tiny.train(measuring(tmp_path, TERM, val_set_size=2, metric_for_best_model=metric))

    with pytest.raises(ConfigError, match=r"eval_spraed is not measured; measured: eval_loss, .*eval_spread"):
        run("eval_spraed")
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    assert run("eval_spread").steps == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("{}", "declares the metric 'measured', and no evaluation returned it"),
        ("{'measured': 1.0, 'other': 2.0}", "returned 'other', which no plugin declares"),
        ("{'measured': 'much'}", "not a number from evaluate"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_failing_evaluation_keeps_a_checkpoint(answer: str, message: str, tmp_path: Path) -> None:
    """The plugin fails at step 2, before the run saves anything by itself."""
    source = MEASURE.replace('{"measured": float(run.step)}', f"{{'measured': 0.0}} if run.step < 2 else {answer}")
    path = measuring(tmp_path, source, max_steps=4, num_epochs=9, save_steps=4)
    with pytest.raises(PluginError, match=message) as error:
        tiny.train(path)
    assert "no step is lost: resume_from_checkpoint: auto resumes from checkpoint-2" in str(error.value)
    assert tiny.metrics(tmp_path / "out")[0]["step"] == 1 and not (tmp_path / "out/checkpoint-4").exists()
    local_plugin(tmp_path, "measure", MEASURE)
    resumed = tiny.train(path, "resume_from_checkpoint=auto", "accept_changes=[plugins]")
    assert resumed.policy.run.notes["resumed from"] == "checkpoint-2" and resumed.steps == 4


def fields(path: Path, *overrides: str) -> list[dict[str, Any]]:
    run: Run = prepare(tiny.start(path, *overrides))
    assert run.data and run.data.train
    return [example.fields for example in run.data.train]


def test_kept_columns_are_the_same_from_the_cache_and_from_several_processes(tmp_path: Path) -> None:
    rows = [{"text": f"the cat {n}", "answer": {"n": n, "all": [n, None, "ö"]}} for n in range(5)]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    entry = {"path": str(data), "type": "completion", "field": "text"}
    path = tiny.sft_config(tmp_path, datasets=[entry], dataset_prepared_path=str(tmp_path / "cache"))
    keep = "datasets.0.keep=[answer]"
    expected = [{"answer": row["answer"]} for row in rows]
    assert fields(path) == [{}] * 5
    assert fields(path, keep) == expected and fields(path, keep) == expected
    assert fields(path, keep, "dataset_num_proc=2", "dataset_prepared_path=null") == expected
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [({"text": "b", "anwser": 1}, "answer: no such column"), ({"text": "b", "answer": float("nan")}, "not a JSON")],
)
def test_row_without_a_kept_column_is_an_error_with_its_place(row: Any, message: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in ({"text": "a", "answer": 1}, row)))
    entry = {"path": str(data), "type": "completion", "field": "text", "keep": ["answer"]}
    for keys in ({}, {"dataset_num_proc": 2}):
        with pytest.raises(Exception, match=message) as error:
            fields(tiny.sft_config(tmp_path, datasets=[entry], **keys))
        assert "rows.jsonl:2" in str(error.value) and getattr(error.value, "exit_code", 0) == 3


def test_stream_keeps_columns(tmp_path: Path) -> None:
    tiny.train(exact_config(tmp_path, streaming=True, max_steps=2, num_epochs=None, test_datasets=yaml.safe_load(
        exact_config(tmp_path).read_text())["datasets"]))  # fmt: skip
    assert evaluations(tmp_path)[-1].keys() == {"eval_loss", "eval_perplexity", "eval_exact_match"}


def test_example_of_the_page_evaluates_by_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/write-a-plugin.md").read_text("utf-8")
    section = page.partition("## An evaluation")[2].partition("\n## ")[0]
    plugin, config = re.findall(r"```(?:python|yaml)\n(.*?)```", section, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exact_match.py").write_text(plugin)
    (tmp_path / "run.yaml").write_text(config)
    (tmp_path / "data").mkdir()
    row = {"instruction": "the cat", "output": "sees", "answer": "sees"}
    tiny.write_rows(tmp_path / "data/questions.jsonl", [row] * 12)
    tiny.model_folder(tmp_path / "models/my-model")
    tiny.train(
        tmp_path / "run.yaml", "max_steps=30", "num_epochs=30", "eval_steps=15", "learning_rate=1e-2", "device=cpu"
    )
    lines = tiny.metrics(tmp_path / "outputs/questions")
    assert [line["eval_exact_match"] for line in lines if "eval_loss" in line][-1] == 1.0


def test_names_of_metrics_may_depend_on_the_run(tmp_path: Path) -> None:
    source = MEASURE.replace('("measured",)', "lambda run: ('measured',) if run.core.eval_steps == 1 else ('other',)")
    metric = {"metric_for_best_model": "eval_measured"}
    tiny.train(measuring(tmp_path, source, **metric))
    assert [line["eval_measured"] for line in evaluations(tmp_path)] == [1.0, 2.0]
    with pytest.raises(ConfigError, match="eval_measured is not measured; measured: eval_other"):
        tiny.start(measuring(tmp_path, source, eval_steps=2, **metric))


def test_a_metric_whose_name_is_pending_is_not_refused_early(tmp_path: Path) -> None:
    source = MEASURE.replace('("measured",)', "lambda run: ('measured',) if run.step else None")
    tiny.start(measuring(tmp_path, source, metric_for_best_model="eval_measured"))
    tiny.train(measuring(tmp_path, source, metric_for_best_model="eval_measured"))
    with pytest.raises(ConfigError, match="eval_wrong is not measured"):
        tiny.train(measuring(tmp_path, source, metric_for_best_model="eval_wrong", output_dir=str(tmp_path / "two")))
