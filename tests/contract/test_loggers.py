"""The state of a plugin belongs to its run, and a logger can neither delay a run nor end it."""

from __future__ import annotations

import gc
import http.server
import json
import re
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunesmith_engine.runtime.signals import Interrupted

from tests import tiny
from tests.contract.fakes import end, error_of, fake_run, hooks_of, plugin_of
from tests.repo.source import ROOT
from tunesmith import LogRecord, PluginError, hookimpl, train
from tunesmith.plugins.log_queue import LogQueue

HERE = Path(__file__).parent
ACTS = "import os, signal\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl\ndef on_step(record):\n"
ENDS = {
    "crash": ("raise RuntimeError('on purpose')", PluginError),
    "signal": ("os.kill(os.getpid(), signal.SIGTERM)", Interrupted),
    "SystemExit": ("raise SystemExit(3)", PluginError),
}
LOGGERS = {"use_tensorboard": True, "generate_samples": True, "generation_max_new_tokens": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose model and data the runs of this file share."""
    folder = tmp_path_factory.mktemp("loggers")
    tiny.sft_config(folder)
    return folder


def config(
    folder: Path, out: Path, act: str = "pass", step: int = 3, plugins: tuple[str, ...] = (), **keys: Any
) -> Path:
    (out / "acts.py").write_text(f"{ACTS}    if record.step == {step}:\n        {act}\n", encoding="utf-8")
    names = [str(out / "acts.py"), *plugins]
    return tiny.sft_config(folder, plugins=names, output_dir=str(out / "out"), num_epochs=9, **keys)


# what two runs, or a run that ends early, leave behind


def mutable_globals() -> dict[str, int]:
    """Return the sizes of the containers at module level of all plugins, which state of a run would enlarge."""
    kinds = (dict, list, set, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
    modules = [(n, m) for n, m in list(sys.modules.items()) if n.startswith("tunesmith_") and "engine" not in n]
    return {
        f"{module_name}.{name}": len(value)
        for module_name, module in modules
        for name, value in vars(module).items()
        if isinstance(value, kinds) and not name.startswith("__")
    }


def test_two_runs_in_one_process_leave_no_state_behind(folder: Path, tmp_path: Path) -> None:
    """Every logger takes part in both. The first run fills caches that do not depend on a run."""
    sizes, runs = [], []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run = tiny.start(config(folder, tmp_path / name, val_set_size=4, eval_steps=2, **LOGGERS))
        train(run)
        runs.append(weakref.ref(run))
        del run
        gc.collect()
        sizes.append(mutable_globals())
    assert sizes[0] == sizes[1] and len(sizes[0]) > 20
    assert [run() for run in runs] == [None, None]
    assert not [thread for thread in threading.enumerate() if thread.name == "tunesmith-log"]
    assert [line["step"] for line in tiny.metrics(tmp_path / "two/out")] == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ENDS)
def test_a_run_that_ends_early_closes_every_logger(
    how: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_console.display import Display
    from tunesmith_jsonl.lines import Files
    from tunesmith_report.writer import Writer
    from tunesmith_tensorboard.board import Board

    closed: list[str] = []
    for cls in (Display, Files, Writer, Board):

        def close(self: Any, original: Any = cls.close) -> None:
            closed.append(type(self).__name__)
            original(self)

        monkeypatch.setattr(cls, "close", close)
    act, error = ENDS[how]
    with pytest.raises(error):
        tiny.train(config(folder, tmp_path, act, **LOGGERS))
    assert {"Display", "Files", "Writer", "Board"} <= set(closed)
    files = [name for name in closed if name != "Display"]  # which is created when the run reports its first phase
    assert files[-1] == "Writer"  # created before the others: the page shows what they wrote
    assert not [thread for thread in threading.enumerate() if thread.name == "tunesmith-log"]
    logged = [line["step"] for line in tiny.metrics(tmp_path / "out")]
    assert logged == ([1, 2, 3] if how == "signal" else [1, 2])


# loggers on their thread


def test_a_logger_that_fails_three_times_recovers_and_is_closed_after_a_crash(folder: Path, tmp_path: Path) -> None:
    plugin = HERE / "plugins/shaky.py"
    assert len(plugin.read_text().splitlines()) <= 40
    with pytest.raises(PluginError, match="on purpose"):
        tiny.train(config(folder, tmp_path, ENDS["crash"][0], 6, (str(plugin),), max_steps=8))
    lines = (tmp_path / "out/shaky.txt").read_text().splitlines()
    losses = [f"{line['step']} {line['loss']:.4f}" for line in tiny.metrics(tmp_path / "out")[3:]]
    assert lines == [*losses, "closed"] and len(lines) == 3
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["muted"] == {} and record["status"] == "failed"
    note = "failed 3 times in write_log, first with ConnectionError: the server restarts"
    assert record["notes"]["plugin shaky"] == note


def logger(write: Any, **declaration: Any) -> Any:
    """Return a plugin whose write_log calls a function with the record."""

    @hookimpl
    def write_log(record: LogRecord) -> None:
        write(record)

    return plugin_of("logger", write_log, **declaration)


@pytest.mark.parametrize("how", ["queued", "synchronous", "strict"])
def test_only_best_effort_loggers_that_are_not_synchronous_leave_the_training_thread(how: str, tmp_path: Path) -> None:
    places: list[Any] = []
    declaration = {"best_effort": how != "strict", "synchronous": how == "synchronous"}
    plugin = logger(lambda record: places.append((threading.current_thread().name, run.hooks.current())), **declaration)
    run = fake_run(tmp_path, plugin)
    run.hooks.write_log(run, LogRecord(1, 0.1, {}))
    end(run)
    thread = "tunesmith-log" if how == "queued" else threading.current_thread().name
    assert places == [(thread, "logger")] and run.hooks.counts["logger", "write_log"] == 1


def test_a_logger_that_hangs_delays_no_step_and_dropped_records_are_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, steps = threading.Event(), []

    def write(record: LogRecord) -> None:
        released.wait(20)
        steps.append(record.step)

    run = fake_run(tmp_path, logger(write, best_effort=True))
    run.hooks.log_queue = LogQueue(size=3)
    started = time.monotonic()
    with run.hooks.logging(run):
        for step in range(1, 9):
            run.hooks.write_log(run, LogRecord(step, 0.1, {}))
            time.sleep(0.05 if step == 1 else 0)  # the thread takes the first record
        assert time.monotonic() - started < 5
        released.set()
    assert steps == [1, 6, 7, 8]
    assert run.notes == {"log records dropped": "4, because loggers were slower than training"}


def test_a_logger_that_never_returns_does_not_keep_the_run_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    run = fake_run(tmp_path, logger(lambda record: released.wait(20), best_effort=True))
    monkeypatch.setattr(run.hooks.log_queue, "patience", 0.1)
    started = time.monotonic()
    with run.hooks.logging(run):
        for step in (1, 2):
            run.hooks.write_log(run, LogRecord(step, 0.1, {}))
    assert time.monotonic() - started < 5
    assert "a logger did not end" in run.notes["log"] and run.notes["log records dropped"].startswith("1,")
    released.set()


def test_a_logger_that_exits_is_muted_like_one_that_fails(tmp_path: Path) -> None:
    run = fake_run(tmp_path, logger(lambda record: sys.exit(1), best_effort=True))
    for step in range(1, 8):
        run.hooks.write_log(run, LogRecord(step, 0.1, {}))
    end(run)
    assert run.hooks.muted == {"logger": "write_log: SystemExit: 1"} and run.hooks.counts["logger", "write_log"] == 5


def test_a_declaration_without_effect_is_refused() -> None:
    assert "has no effect without best_effort" in str(error_of(lambda: plugin_of("logger", synchronous=True)))


def test_a_hanging_logger_counts_records_not_calls(tmp_path: Path) -> None:
    released, steps = threading.Event(), []

    @hookimpl
    def write_log(record: LogRecord) -> None:
        released.wait(20)
        steps.append(record.step)

    loggers = [plugin_of(name, write_log, best_effort=True) for name in ("one", "two")]
    run = fake_run(tmp_path, *loggers)
    run.hooks.log_queue = LogQueue(size=2)
    with run.hooks.logging(run):
        for step in (1, 2, 3, 4):
            run.hooks.write_log(run, LogRecord(step, 0.1, {}))
            time.sleep(0.1 if step == 1 else 0)
        released.set()
    assert steps == [1, 1, 3, 3, 4, 4] and run.notes["log records dropped"].startswith("1,")


def test_write_log_has_no_wrappers() -> None:
    @hookimpl(wrapper=True)
    def write_log() -> Iterator[None]:
        yield

    assert error_of(hooks_of, plugin_of("around", write_log)).problems[0].code == "hook-arity"


def test_metrics_have_the_line_of_a_step_before_its_checkpoint_is_written(folder: Path, tmp_path: Path) -> None:
    check = (
        "@hookimpl\ndef save_model(run):\n    import json\n"
        "    lines = (run.output_dir / 'metrics.jsonl').read_text().splitlines()\n"
        "    assert [json.loads(line)['step'] for line in lines] == list(range(1, run.step + 1))\n"
    )
    path = config(folder, tmp_path, save_steps=1)
    (tmp_path / "acts.py").write_text(ACTS + "    pass\n" + check)
    assert tiny.train(path).steps == 4


# the tracker of docs/write-a-plugin.md


@pytest.fixture
def server() -> Iterator[Any]:
    """Run an HTTP server that refuses its second, third and fourth request and keeps the others as `server.bodies`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests += 1
            refused = 2 <= server.requests <= 4
            server.bodies += [] if refused else [body]
            self.send_response(503 if refused else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.bodies = 0, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_tracker_on_the_plugin_page_works(server: Any, folder: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/write-a-plugin.md").read_text("utf-8")
    [source] = [block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "# tracker.py" in block]
    (tmp_path / "tracker.py").write_text(source, encoding="utf-8")
    url = f"http://127.0.0.1:{server.server_port}"
    path = config(folder, tmp_path, plugins=(str(tmp_path / "tracker.py"),), tracker_url=url, max_steps=6)
    (tmp_path / "acts.py").write_text(ACTS + "    record.tables['answers'] = [{'text': str(record.step)}]\n")
    assert tiny.train(path).steps == 6
    begin, *steps, last = server.bodies
    assert begin["steps"] == 6 and [step["step"] for step in steps] == [4, 5, 6] and last == {"closed": True}
    losses = {line["step"]: line["loss"] for line in tiny.metrics(tmp_path / "out")}
    assert [step["loss"] for step in steps] == [losses[4], losses[5], losses[6]]
    assert steps[0]["tables"] == {"answers": [{"text": "4"}]}
    notes = json.loads((tmp_path / "out/run.json").read_text())["notes"]
    assert notes["plugin tracker"].startswith("failed 3 times in write_log, first with HTTPError")
