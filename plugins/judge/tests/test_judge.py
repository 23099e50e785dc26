"""Completions are rated by a server; replies that are not ratings are counted, and the key is never shown."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_judge import server as server_module
from tunesmith_judge.prompt import filled, rating
from tunesmith_judge.reward import llm_judge

from tunesmith import EnvironmentProblem
from tunesmith.testing.conformance import conformance

test_conformance = conformance("judge")
KEY = "a-very-secret-value"


class Judge:
    """A server whose replies a test decides: a text, or a status with headers."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[str], str | tuple[int, dict[str, str], str]] = lambda text: "Good.\nScore: 7"
        self.at_once = self.most_at_once = 0
        self.seconds = 0.0
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                judge.at_once += 1
                judge.most_at_once = max(judge.most_at_once, judge.at_once)
                time.sleep(judge.seconds)
                judge.at_once -= 1
                judge.requests.append({"path": self.path, **body})
                judge.headers.append(dict(self.headers))
                reply = judge.reply(body["messages"][0]["content"])
                status, headers, text = (200, {}, reply) if isinstance(reply, str) else reply
                answer = {"choices": [{"message": {"role": "assistant", "content": text}}]}
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # a client that waits no longer
                    self.wfile.write(json.dumps(answer).encode() if status == 200 else text.encode())

            def do_GET(self) -> None:
                raise AssertionError("a redirect was followed")

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    monkeypatch.setattr(server_module, "LONGEST_WAIT", 0.01)
    judge = Judge()
    yield judge
    judge.server.shutdown()
    judge.server.server_close()


def rated(judge: Judge, *completions: Any, **options: Any) -> list[float | None]:
    prompts = ["What is 2 + 2?"] * len(completions)
    return llm_judge(prompts, list(completions), **{"url": judge.url, "model": "m"} | options)


def test_the_rating_of_each_completion_is_its_score(judge: Judge) -> None:
    judge.reply = lambda text: f"Fine.\nScore: {text.count('x')}"
    assert rated(judge, "x", "xx", "", [{"role": "assistant", "content": "xxx"}]) == pytest.approx([0.1, 0.2, 0, 0.3])
    first = judge.requests[0]
    assert first["path"] == "/v1/chat/completions" and first["model"] == "m" and first["temperature"] == 0
    assert (
        "What is 2 + 2?" in first["messages"][0]["content"]
        and "from 0 (worst) to 10" in first["messages"][0]["content"]
    )
    assert not any("Authorization" in headers for headers in judge.headers)


def test_conversations_and_reference_answers_are_part_of_the_request(judge: Judge) -> None:
    prompt = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi {answer}"}]
    options = {"url": judge.url, "model": "m", "template": "{prompt}|{completion}|{answer}|{scale}", "column": "gold"}
    assert llm_judge([prompt, prompt], ["Hello {prompt}", "a"], gold=["Hey", None], scale=20.0, **options) == [
        0.35,
        None,
    ]
    (request,) = judge.requests
    assert request["messages"][0]["content"] == "system:\nBe short.\n\nuser:\nHi {answer}|Hello {prompt}|Hey|20"


def test_the_template_may_be_a_file(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "judge.txt").write_text("Rate: {completion}", encoding="utf-8")
    assert rated(judge, "a", template_file=str(tmp_path / "judge.txt")) == [0.7]
    assert judge.requests[0]["messages"][0]["content"] == "Rate: a"


def test_equal_completions_are_rated_once(judge: Judge) -> None:
    assert rated(judge, "a", "b", "a", "a") == [0.7] * 4
    assert len(judge.requests) == 2


def test_requests_run_at_the_same_time_up_to_the_limit(judge: Judge) -> None:
    judge.seconds = 0.2
    rated(judge, *"abcdefgh", concurrency=4)
    assert judge.most_at_once == 4


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 7", 0.7),
        ("It is fine.\n\n**Score: 7.5/10**\n", 0.75),
        ("score:0", 0.0),
        ("Score: 10.", 1.0),
        ("<think>Score: 1</think>Score: 2", 0.2),
        ("<think>Score: 1</think>", None),
        ("Score: 11", None),
        ("Score: -1", None),
        ("Score: 7/5", None),
        ("Score: 7 or 8", None),
        ("7", None),
        ("Score: 7\nBut I am not sure.", None),
        ("The score: 7", None),
        ("Score: seven", None),
        ("", None),
        ("Score: nan", None),
    ],
)
def test_only_a_last_line_with_a_score_is_a_rating(reply: str, score: float | None) -> None:
    assert rating(reply, 10.0) == score


@given(st.text(), st.integers(0, 100))
def test_a_rating_is_read_after_any_text_and_lies_between_0_and_1(text: str, value: int) -> None:
    assert rating(f"{text}\nScore: {value}", 100.0) == value / 100
    assert rating(text, 10.0) is None or 0 <= rating(text, 10.0) <= 1  # type: ignore[operator]


@given(st.text("{}promtcleaniswru"), st.text("{}promtcleaniswru"))
def test_values_are_not_searched_for_places(prompt: str, completion: str) -> None:
    values = {"prompt": prompt, "completion": completion, "answer": "", "rubric": "", "scale": ""}
    assert filled("{prompt}|{completion}", **values) == f"{prompt}|{completion}"


def test_replies_that_are_not_ratings_are_counted(judge: Judge) -> None:
    judge.reply = lambda text: "Score: 5" if "yes" in text else "I can't say."
    with pytest.warns(UserWarning, match=r"2 of 3 replies do not end with a line such as 'Score: 7'"):
        assert rated(judge, "yes", "no", "nope") == [0.5, None, None]


@pytest.mark.parametrize(("status", "wait"), [(429, "0"), (500, "nan"), (503, "-1"), (503, "1e999"), (429, "soon")])
def test_a_failed_request_is_repeated(judge: Judge, status: int, wait: str) -> None:
    def reply(text: str) -> Any:
        return "Score: 5" if len(judge.requests) > 2 else (status, {"Retry-After": wait}, "later")

    judge.reply = reply
    assert rated(judge, "a") == [0.5] and len(judge.requests) == 3


def test_some_failures_are_counted_and_all_are_an_error(judge: Judge) -> None:
    judge.reply = lambda text: "Score: 5" if "yes" in text else (500, {}, "broken")
    with pytest.warns(UserWarning, match=r"1 of 2 requests failed: status 500: broken"):
        assert rated(judge, "yes", "no", retries=1) == [0.5, None]
    assert len(judge.requests) == 3
    with pytest.raises(EnvironmentProblem, match=r"rated no completion: status 500"):
        rated(judge, "no", retries=0)


def test_no_server_and_a_slow_one_are_errors(judge: Judge) -> None:
    judge.seconds = 1.0
    with pytest.raises(EnvironmentProblem, match=r"rated no completion: TimeoutError"):
        rated(judge, "a", timeout=0.1, retries=0)
    with pytest.raises(EnvironmentProblem, match=r"127.0.0.1:9.* rated no completion: .*refused"):
        llm_judge(["a"], ["b"], url="http://127.0.0.1:9/v1", model="m", retries=1)


def test_a_reply_that_is_not_json_is_a_failure(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_text", lambda answer: answer["no_choices"])
    with pytest.raises(EnvironmentProblem, match=r"rated no completion: KeyError"):
        rated(judge, "a", retries=0)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refused_request_is_an_error_at_once_without_the_key(judge: Judge, status: int) -> None:
    judge.reply = lambda text: (status, {}, f"not with the key {KEY}")
    with pytest.raises(
        EnvironmentProblem, match=rf"refuses the request: status {status}: not with the key \*\*\*"
    ) as caught:
        rated(judge, "a", api_key_env="JUDGE_API_KEY")
    assert len(judge.requests) == 1 and KEY not in str(caught.value) + repr(caught.getrepr())
    assert judge.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_redirect_is_refused(judge: Judge) -> None:
    judge.reply = lambda text: (302, {"Location": judge.url}, "")
    with pytest.raises(EnvironmentProblem, match="refuses the request: status 302"):
        rated(judge, "a", api_key_env="JUDGE_API_KEY")


def test_the_key_is_in_no_warning(judge: Judge) -> None:
    judge.reply = lambda text: "Score: 5" if "yes" in text else (500, {}, f"broken {KEY}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rated(judge, "yes", "no", retries=0, api_key_env="JUDGE_API_KEY")
    assert caught and not any(KEY in str(warning.message) for warning in caught)


def test_a_missing_key_is_an_error_that_does_not_print_a_key_written_instead_of_a_name(judge: Judge) -> None:
    with pytest.raises(EnvironmentProblem, match="variable NO_SUCH_KEY is not set"):
        rated(judge, "a", api_key_env="NO_SUCH_KEY")
    with pytest.raises(EnvironmentProblem) as caught:
        rated(judge, "a", api_key_env=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["first-part\nsecond-part", "sch\u00fcssel-of-mine", "a-key\x00-with-null"])
def test_a_key_that_no_header_can_have_is_an_error_that_does_not_print_it(
    judge: Judge, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"JUDGE_API_KEY": key})
    with pytest.raises(EnvironmentProblem, match="JUDGE_API_KEY has characters that a header can't have") as caught:
        rated(judge, "a", api_key_env="JUDGE_API_KEY", retries=0)
    assert not any(part in str(caught.value) for part in ("first-part", "of-mine", "a-key")) and not judge.requests


def test_braces_of_a_template_that_are_no_places_are_text(judge: Judge) -> None:
    assert rated(judge, "a", template='{"answer": {completion}, "as": {format}}') == [0.7]
    assert judge.requests[0]["messages"][0]["content"] == '{"answer": a, "as": {format}}'


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"template": "{completion} of {promt}"}, "{promt}, which is not a place: did you mean {prompt}?"),
        ({"template": "{completion}", "rubric": "Is it polite?"}, "rubric has no effect"),
        ({"url": "file:///etc/passwd"}, "must begin with http"),
        ({"url": "localhost:8000"}, "must begin with http"),
        ({"url": "http://user:pass@localhost/v1"}, "contains a password"),
        ({"url": "http://localhost/v1?key=1"}, "contains a password or a query"),
        ({"scale": 0.0}, "must be positive"),
        ({"concurrency": 0}, "must be positive"),
        ({"timeout": 0.0}, "must be positive"),
        ({"retries": -1}, "retries at least 0"),
        ({"template": "Rate!"}, "does not contain {completion}"),
        ({"template": "{completion} {answer}"}, "name the column"),
        ({"column": "answer"}, "column: answer has no effect"),
        ({"template": "{completion}", "template_file": "a"}, "both set"),
        ({"template_file": "no_such_file.txt"}, "no_such_file.txt can't be read"),
    ],
)
def test_options_that_make_no_sense_are_refused(judge: Judge, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        rated(judge, "a", **options)
    assert "pass@" not in str(caught.value) and not judge.requests
