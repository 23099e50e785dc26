"""A run creates what its plugins keep once, and closes it in reverse order, whatever fails."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import end, error_of, fake_run, plugin_of
from tunesmith import Run, hookimpl


class First:
    def __init__(self, run: Run):
        self.log: list[str] = run.notes.setdefault("log", [])

    def close(self) -> None:
        self.log.append(type(self).__name__)


class Second(First):
    def close(self) -> None:
        super().close()
        raise ValueError("can't close")


class Third(First):
    def __init__(self, run: Run):
        run.owned(Second)
        super().__init__(run)


class Kept:
    def __init__(self, run: Run):
        self.run = run


def owner(**declaration: Any) -> Any:
    @hookimpl
    def configure(run: Run) -> None:
        assert run.owned(First) is run.owned(First)
        run.owned(Kept)
        run.owned(Third)

    return plugin_of("owner", configure, **declaration)


def test_owned_objects_are_closed_in_reverse_order_of_creation_and_then_forgotten(tmp_path: Path) -> None:
    run = fake_run(tmp_path, owner(best_effort=True))
    run.hooks.configure(run)
    first, kept = run.owned(First), run.owned(Kept)
    end(run)
    assert run.notes["log"] == ["Third", "Second", "First"]
    assert run.owned(First) is not first and run.owned(Kept) is kept


def test_an_error_in_close_names_the_plugin_and_ends_a_run_that_was_fine(tmp_path: Path) -> None:
    run = fake_run(tmp_path, owner())
    run.hooks.configure(run)
    error = error_of(end, run)
    assert "plugin owner (dist-owner 4.5.6) failed in close() of Second: ValueError: can't close" in str(error)
    assert Path(__file__).name in str(error.problems[0].where)
    assert run.notes["log"] == ["Third", "Second", "First"]


@pytest.mark.parametrize("best_effort", [True, False])
def test_an_error_in_close_hides_no_other_error(
    best_effort: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake_run(tmp_path, owner(best_effort=best_effort))
    run.hooks.configure(run)
    with pytest.raises(KeyError, match="the cause"), run.alive():
        raise KeyError("the cause")
    assert run.notes["log"] == ["Third", "Second", "First"]
    assert "warning: plugin owner (dist-owner 4.5.6) failed in close() of Second" in capsys.readouterr().err


def test_function_in_closing_belongs_to_the_plugin_that_added_it(tmp_path: Path) -> None:
    def fails() -> None:
        raise ValueError("can't undo")

    @hookimpl
    def configure(run: Run) -> None:
        run.closing.append(fails)

    run = fake_run(tmp_path, plugin_of("mine", configure))
    run.hooks.configure(run)
    error = error_of(end, run)
    message = "plugin mine (dist-mine 4.5.6) failed in a function in run.closing"
    assert error.exit_code == 6 and message in str(error) and "ValueError: can't undo" in str(error)


# finish


class Writer:
    """An object that writes its file when it is closed, as the report does."""

    def __init__(self, run: Run):
        self.path = run.output_dir / "page.txt"

    def close(self) -> None:
        self.path.write_text("complete", encoding="utf-8")


class Sender(Writer):
    """An object that sends the file of Writer, although it is created later and so closed before it."""

    sent: list[str]

    def __init__(self, run: Run):
        super().__init__(run)
        self.sent = run.notes.setdefault("sent", [])

    def close(self) -> None:
        self.sent.append(f"closed, page: {self.path.exists()}")

    def finish(self) -> None:
        self.sent.append(self.path.read_text("utf-8"))


class Hanging:
    def __init__(self, run: Run):
        self.released: threading.Event = run.notes.setdefault("released", threading.Event())

    def finish(self) -> None:
        self.released.wait(20)


class Hanging2(Hanging):
    pass


class Failing(Hanging):
    def finish(self) -> None:
        raise ValueError("the server is gone")


@pytest.mark.parametrize("failure", [None, KeyError("the cause")])
def test_finish_is_called_after_every_close_also_after_an_error(failure: Exception | None, tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    try:
        with run.alive():
            run.owned(Writer)
            sender = run.owned(Sender)
            if failure:
                raise failure
    except KeyError as error:
        assert error is failure
    assert run.notes["sent"] == ["closed, page: False", "complete"]
    assert run.owned(Sender) is not sender


def test_objects_that_do_not_finish_share_one_limit_and_a_warning_names_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake_run(tmp_path)
    run._owned.patience = 0.3
    for cls in (Hanging, Failing, Hanging2):
        run.owned(cls)
    started = time.monotonic()
    end(run)
    assert time.monotonic() - started < 2
    run.notes["released"].set()
    printed = capsys.readouterr().err
    assert "warning: finish() of Failing failed: ValueError: the server is gone" in printed
    assert printed.count("did not end within 0.3 seconds") == 2 and "finish() of Hanging2" in printed
