"""Answers are displayed on a terminal while they grow."""

from __future__ import annotations

import re

import pytest
from tunesmith_playground.conversation import Answer
from tunesmith_playground.display import SideBySide, Stream

DIM, END = "\x1b[2m", "\x1b[0m"
DONE = Answer(ending="stop")


def screen(output: str) -> list[str]:
    """Return the lines that a terminal shows after an output whose last line was drawn again and again."""
    return [line.rpartition("\r\x1b[2K")[2] for line in output.split("\n")]


def test_thoughts_are_dimmed_and_marks_that_come_in_parts_too(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Stream(["one"], styled=True)
    stream.begin([False])
    for text in ("a", "<thi", "nk>b", "\n</th", "ink>c <", "d"):
        stream.add(0, text)
    stream.finish(0, Answer(ending="length"))
    output = capsys.readouterr().out
    dimmed = "".join(re.findall(r"\x1b\[2m(.*?)\x1b\[0m", output, re.S))
    assert dimmed == "<think>b\n</think> [cut off: max_new_tokens]"
    assert re.sub(r"\x1b\[\dm", "", output) == "a<think>b\n</think>c <d [cut off: max_new_tokens]\n"
    stream.begin([True])
    assert capsys.readouterr().out == "" and stream.waiting == [[("<think>\n", True)]]
    stream.add(0, "b</think>c")
    assert capsys.readouterr().out == f"{DIM}<think>\n{END}{DIM}b</think>{END}c"


def test_the_second_answer_waits_for_the_first_and_then_streams(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Stream(["one", "two"], styled=False)
    stream.begin([False, False])
    stream.add(1, "b")
    stream.add(0, "a")
    assert capsys.readouterr().out == "one\na"
    stream.finish(0, DONE)
    assert capsys.readouterr().out == "\ntwo\nb"
    stream.add(1, "c")
    assert capsys.readouterr().out == "c"
    stream.finish(1, DONE)
    assert capsys.readouterr().out == "\n"


def test_the_second_answer_may_be_complete_first(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Stream(["one", "two"], styled=False)
    stream.begin([False, False])
    stream.add(1, "b")
    stream.finish(1, Answer(ending="abort"))
    stream.add(0, "a")
    stream.finish(0, DONE)
    assert capsys.readouterr().out == "one\na\ntwo\nb [stopped]\n"


def test_rows_of_columns_are_shown_when_both_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    columns = SideBySide(["one", "two"], styled=False, width=14)  # 5 for each column
    columns.begin([False, False])
    columns.add(0, "a\nb\nc")
    assert screen(capsys.readouterr().out)[2:] == ["a     │"]
    columns.add(1, "1 \x1b")
    assert screen(capsys.readouterr().out) == ["a     │ 1", "b     │ \\x1b"]
    columns.add(1, "\n2")
    assert screen(capsys.readouterr().out) == ["b     │ \\x1b", "c     │ 2"]
    columns.finish(1, DONE)
    columns.add(0, "\nd\ne")
    assert screen(capsys.readouterr().out) == ["c     │ 2", "d     │", "e     │"]
    columns.finish(0, DONE)
    assert screen(capsys.readouterr().out) == ["e     │", ""]


def test_thoughts_are_dimmed_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    columns = SideBySide(["one", "two"], styled=True, width=60)
    columns.begin([True, False])
    columns.add(0, "a</think>b")
    columns.add(1, "c\n")
    columns.finish(0, DONE)
    columns.finish(1, DONE)
    assert f"{DIM}a</think>{END}b" in capsys.readouterr().out
