"""A session on a terminal: keys that stop and leave, columns for two models, and errors that do not end it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 80, patch: str = "", **environment: str):
        start = f"{patch}\nfrom tunesmith.cli import main; main()"
        command = [sys.executable, "-c", start, "chat", *arguments, "--device", "cpu"]
        variables = {key: text for key, text in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process, self.side = pty.fork()
        if self.process == 0:
            os.execve(sys.executable, command, variables | {"TERM": "xterm", **environment})
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.raw, self.seen = "", 0

    def type(self, text: str) -> None:
        os.write(self.side, text.encode())

    def wait(self, text: str, seconds: float = 90) -> str:
        """Read until the output after the last match contains a text; return it up to there, without styles."""
        end = time.monotonic() + seconds
        while (at := (output := CONTROL.sub("", self.raw)).find(text, self.seen)) < 0:
            assert time.monotonic() < end, f"{text!r} is not in {output[self.seen :]!r}"
            assert self._read(), f"ended without {text!r}: {output[self.seen :]!r}"
        before, self.seen = self.seen, at + len(text)
        return output[before : self.seen]

    def prompt(self) -> str:
        """Wait for the next prompt, and until keys are read: readline prints the prompt a moment before that."""
        before = self.wait("> ")
        time.sleep(0.3)
        return before

    def ask(self, message: str) -> None:
        """Type a message, and wait for the first text of its answer."""
        self.type(f"{message}\r")
        self.wait(f"{message}\r\n")
        end = time.monotonic() + 90
        while len(CONTROL.sub("", self.raw)) == self.seen:
            assert time.monotonic() < end and self._read(), "no answer"

    def leave(self, seconds: float = 60) -> int:
        """Read to the end of the output, and return the exit status of the process."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"did not end: {self.raw[-200:]!r}"
        process, self.process = self.process, 0
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def _read(self) -> bool:
        """Read what is there, and return False at the end of the output."""
        if select.select([self.side], [], [], 0.1)[0]:
            try:
                data = os.read(self.side, 65536)
            except OSError:  # Linux reports the end of the process so
                return False
            self.raw += data.decode("utf-8", "replace")
            return bool(data)
        return True

    def kill(self) -> None:
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self.side)


@contextlib.contextmanager
def chat(*arguments: str, **options: str | int) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, **options)  # type: ignore[arg-type]
    try:
        terminal.wait("/help lists commands")
        yield terminal
    finally:
        terminal.kill()


def test_ctrl_c_stops_an_answer_and_keeps_it_and_a_second_one_leaves(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with chat(str(talker), "--save", str(file)) as terminal:
        terminal.prompt()
        terminal.ask("hello")
        terminal.type(CTRL_C)
        terminal.wait("[stopped]")
        terminal.prompt()
        terminal.type("/tokens\r")
        assert int(re.findall(r"(\d+) tokens; ", terminal.wait("left"))[0]) < 500
        terminal.prompt()
        terminal.ask("and more")
        terminal.type(CTRL_C)
        terminal.wait("[stopped]")
        terminal.prompt()
        terminal.type(CTRL_C)
        assert terminal.leave() == 0
    assert len(file.read_text("utf-8").splitlines()) == 1
    assert "Traceback" not in terminal.raw


def test_ctrl_c_at_the_prompt_asks_first_and_ctrl_d_leaves(talker: Path) -> None:
    with chat(str(talker)) as terminal:
        terminal.prompt()
        terminal.type("half a mess")
        terminal.type(CTRL_C)
        terminal.wait("to leave")
        terminal.prompt()
        terminal.type("/undo\r")
        terminal.wait("nothing to undo yet")  # an error does not end the session
        terminal.prompt()
        terminal.type(CTRL_C)
        terminal.wait("to leave")
        terminal.prompt()
        terminal.type(CTRL_D)
        assert terminal.leave() == 0


def test_a_second_ctrl_c_leaves_although_a_token_takes_long(talker: Path) -> None:
    slow = "import time, tunesmith_playground.decoding as d; d.TextStream.add = lambda *_: time.sleep(25) or 'token'"
    with chat(str(talker), patch=slow) as terminal:
        terminal.prompt()
        terminal.type("hello\r")
        terminal.wait("hello\r\n")
        time.sleep(2)
        start = time.monotonic()
        terminal.type(CTRL_C)
        time.sleep(0.3)
        terminal.type(CTRL_C)
        assert terminal.leave() == 0
        assert time.monotonic() - start < 15
    assert "Traceback" not in terminal.raw and "token" not in terminal.raw.partition("hello\r\n")[2]


def test_lines_are_edited_and_remembered(talker: Path) -> None:
    with chat(str(talker), "--max-new-tokens", "2") as terminal:
        terminal.prompt()
        terminal.type("/set seed 3\r")
        terminal.wait("seed            3")
        terminal.prompt()
        terminal.type(UP + "\x7f4\r")
        terminal.wait("seed            4")
        terminal.prompt()
        terminal.type("/to\t\r")
        terminal.wait("0 tokens; 512 of 512 left")


def test_two_models_answer_side_by_side_if_there_is_room(adapted: Path) -> None:
    options = (str(adapted), "--compare", "base", "--temperature", "0", "--max-new-tokens", "60")
    with chat(*options, columns=120) as terminal:
        terminal.type("hello there\r")
        terminal.wait("┼")
        wide = terminal.prompt()
        assert wide.count("│") >= 1 and "[" in wide
        assert all(len(line) <= 120 for line in wide.replace("\r", "\n").splitlines())
    with chat(*options, columns=80) as terminal:
        terminal.type("hello there\r")
        narrow = terminal.wait("base\r\n") + terminal.prompt()
        assert "│" not in narrow and "out\r\n" in narrow


def test_styles_are_for_terminals_without_no_color(talker: Path) -> None:
    with chat(str(talker)) as terminal:
        terminal.prompt()
        assert "\x1b[2m" in terminal.raw and "\x1b[1m" in terminal.raw
    with chat(str(talker), NO_COLOR="1") as terminal:
        terminal.prompt()
        assert not re.search(r"\x1b\[[0-9;]*m", terminal.raw)
