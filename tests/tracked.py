"""Train a fake run with a tracker, and read back what its library has recorded."""

from __future__ import annotations

import csv
import json
import sqlite3
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.fakes import end, fake_run
from tunesmith import LogRecord, Run

TABLE = {"samples": [{"prompt": "why?", "completion": "a cat"}, {"prompt": "who?", "completion": "two cats"}]}
CANARY = "4d" * 20


def write_record(folder: Path, status: str) -> None:
    config = {"seed": 7, "learning_rate": 0.01, "trl": {"beta": 0.1}, "service_api_key": "***", "empty": {}}
    plugins = [{"name": "sft", "distribution": "tunesmith-sft", "version": "0.1.0"}]
    record = {"status": status, "config": config, "versions": {"torch": "2.13.0"}, "plugins": plugins, "outline": {}}
    partial = folder / ".run.json"
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(folder / "run.json")  # at once, as a run does: the tracker reads it meanwhile


def track(
    plugin: Any,
    folder: Path,
    steps: Sequence[int],
    status: str = "done",
    resume_at: int | None = None,
    **settings: Any,
) -> Run:
    """Log some steps, the second with an evaluation and a table, and end the run; "killed" ends it as a kill does."""
    folder.mkdir(exist_ok=True)
    write_record(folder, "running")
    run = fake_run(folder, resume=None if resume_at is None else "auto", step=resume_at or 0, **settings)
    policy = {"policy": None} if "policy" in plugin.on_start.__code__.co_varnames else {}
    plugin.on_start(run, **policy)
    [tracker] = [owned for owned in run._owned.objects.values() if hasattr(owned, "finish")]
    assert tracker._ready.wait(60)
    for step in steps:
        evaluation = {"eval_loss": 1.0 / step} if step % 2 == 0 else None
        tables = TABLE if step % 2 == 0 else {}
        metrics = {"loss": 10.0 - step, "grad_norm": float("nan") if step == 3 else 1.0}
        plugin.write_log(run, LogRecord(step, step / 10, metrics, evaluation, {"rewards": (0.0, 1.0)}, tables))
    if status == "killed":
        tracker._queue.drain()
        tracker._process.stdin.close()
        assert tracker._process.wait(30) == 0
        return run
    write_record(folder, status)
    (folder / "report.html").write_text("<h1>report</h1>", encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    end(run)
    assert tracker.muted is None
    return run


@dataclass
class Recorded:
    """What one run has at a service: names of runs, the loss of each step as often as it is there, and files."""

    ids: set[str] = field(default_factory=set)
    train: list[tuple[int, float]] = field(default_factory=list)
    eval: list[tuple[int, float]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    tables: list[int] = field(default_factory=list)
    ends: list[Any] = field(default_factory=list)


def log_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a file in the log format of LevelDB, as wandb and SwanLab write it."""
    content, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a complete record, or the last part of one
            yield part
            part = b""


def read_wandb(folder: Path) -> Recorded:
    from wandb.proto import wandb_internal_pb2 as wire

    result = Recorded()
    for path in sorted(folder.glob("wandb/*run-*/run-*.wandb")):
        for line in log_records(path):
            record = wire.Record.FromString(line)
            if record.HasField("run"):
                result.ids.add(record.run.run_id)
                result.config |= {one.key: json.loads(one.value_json) for one in record.run.config.update if one.key}
            elif record.HasField("history"):
                values = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                step = record.history.step.num
                result.train += [(step, values["train/loss"])] if "train/loss" in values else []
                result.eval += [(step, values["eval/loss"])] if "eval/loss" in values else []
                result.tables += [step] if values.get("samples/_type") == "table-file" else []
            elif record.HasField("artifact"):
                result.files |= {f"{record.artifact.type}/{c.path}" for c in record.artifact.manifest.contents}
            elif record.HasField("exit"):
                result.ends.append(record.exit.exit_code)
    return result


def read_mlflow(uri: str) -> Recorded:
    from mlflow import MlflowClient

    client, result = MlflowClient(tracking_uri=uri), Recorded()
    for run in client.search_runs([one.experiment_id for one in client.search_experiments()]):
        result.ids.add(run.info.run_id)
        result.train += [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")]
        result.eval += [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "eval/loss")]
        result.config |= run.data.params | run.data.tags
        result.ends.append(run.info.status)
        for item in client.list_artifacts(run.info.run_id):
            inner = [one.path for one in client.list_artifacts(run.info.run_id, item.path)] if item.is_dir else []
            result.files |= {item.path, *inner}
        if "samples.json" in result.files:
            import mlflow

            table = json.loads(Path(mlflow.artifacts.download_artifacts(
                f"runs:/{run.info.run_id}/samples.json", tracking_uri=uri)).read_text("utf-8"))  # fmt: skip
            result.tables += [row[table["columns"].index("step")] for row in table["data"]]
    return result


def read_trackio(folder: Path) -> Recorded:
    result = Recorded()
    for path in folder.glob("*.db"):
        with sqlite3.connect(path) as database:
            for name, step, text in database.execute("select run_name, step, metrics from metrics order by id"):
                values = json.loads(text)
                result.ids.add(name)
                result.train += [(step, values["train/loss"])] if "train/loss" in values else []
                result.eval += [(step, values["eval/loss"])] if "eval/loss" in values else []
                result.tables += [step] if "samples" in values else []
            for (text,) in database.execute("select config from configs"):
                result.config |= json.loads(text)
    return result


def read_swanlab(folder: Path) -> Recorded:
    import swanlab  # noqa: F401
    import yaml
    from swanlab.proto.swanlab.record.v1 import record_pb2 as wire

    result = Recorded()
    for path in sorted(folder.glob("swanlog/run-*/run-*.swanlab")):
        for line in log_records(path):
            record = wire.Record.FromString(line)
            if record.HasField("start"):
                result.ids.add(record.start.id)
            elif record.HasField("scalar") and record.scalar.key.endswith("/loss"):
                points = result.train if record.scalar.key == "train/loss" else result.eval
                points.append((record.scalar.step, record.scalar.value.number))
            elif record.HasField("media") and record.media.key == "samples":
                result.tables.append(record.media.step)
            elif record.HasField("save"):
                result.files.add(record.save.name)
            elif record.HasField("finish"):
                result.ends.append(record.finish.state)
        values = yaml.safe_load((path.parent / "files/config.yaml").read_text("utf-8"))
        result.config |= {key: value.get("value") for key, value in values.items()}
    return result


def read_comet(folder: Path) -> Recorded:
    result = Recorded()
    for path in sorted(folder.glob("comet/*.zip")):
        with zipfile.ZipFile(path) as archive:
            result.ids.add(json.loads(archive.read("experiment.json"))["offline_id"])
            for line in archive.read("messages.json").splitlines():
                message = json.loads(line)
                kind, payload = message["type"], message["payload"]
                if kind == "metric_msg":
                    metric = payload["metric"]
                    points = {"train/loss": result.train, "eval/loss": result.eval}.get(metric["metricName"])
                    if points is not None and metric["metricValue"] is not None:
                        points.append((metric["step"], metric["metricValue"]))
                elif kind == "parameter_msg" and "param" in payload:
                    result.config[payload["param"]["paramName"]] = payload["param"]["paramValue"]
                elif kind == "file_upload":
                    name = payload["additional_params"]["fileName"]
                    result.files.add(name)
                    if name.endswith(".csv"):
                        rows = list(csv.reader(archive.read(Path(payload["file_path"]).name).decode().splitlines()))
                        result.tables += [int(name.removesuffix(".csv").rpartition("-")[2])] * (len(rows) - 1)
    return result
