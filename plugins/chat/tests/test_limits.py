"""An untrusted chat template can't exceed its time or memory, nor read or change anything outside the sandbox."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunesmith_chat import ChatSettings, build_dataset, inspect, limits, load_tokenizer, process
from tunesmith_chat.conversation import Conversation
from tunesmith_chat.renderer import BATCH, Renderer, TemplateSpec

from tunesmith import ConfigError, DataError, EnvironmentProblem, ModelError, Row, TunesmithError

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ONE_CALL = "{% set n = 7 %}{{ n ** 15000000 > 0 }}"  # takes seconds in C, where a Python timer can't interrupt
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GROWING = [
    "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 'x'.center(10 ** 10) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ messages | map('center', 10 ** 10) | list }}",
    "{{ messages[0].content * 30000000 }}",
]
DEEP = [
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% for x in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
]
COMPILING = [
    "{{ 'x' * 10 ** 7 }}",
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
]
ESCAPING = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__base__'] }}",
    "{{ ('' | attr('__class__')).mro() }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY') }}",
    "{{ raise_exception.__globals__['json'].codecs.open('CANARY', 'w') }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
    "{{ dict.fromkeys.__globals__.os.popen('touch CANARY') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.popen('touch CANARY') }}",
    "{% extends '/etc/passwd' %}",
    "{{ open('CANARY', 'w') }}",
]


def refused(make_bench: Any, template: str) -> TunesmithError:
    with pytest.raises(TunesmithError) as caught:
        make_bench(template).examples(CHAT)
    return caught.value


def children() -> set[int]:
    """Return the ids of this process's children."""
    pids = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                pids.add(int(stat.parent.name))
    return pids


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    """Yield a renderer with a running child, whose template 0 is chatml."""
    with Renderer() as renderer:
        renderer.open(TemplateSpec(CHATML, {}, [("<|im_end|>", "train_on_eos", "turn")], ["assistant"]))
        yield renderer


@pytest.fixture(scope="module")
def shared() -> Iterator[Renderer]:
    with Renderer() as renderer:
        yield renderer


def texts(renderer: Renderer, *chats: Any, template: int = 0) -> list[str]:
    rows = [Conversation(Row({}, f"chats.jsonl:{i}"), chat, None) for i, chat in enumerate(chats, 1)]
    groups = renderer.render(renderer.job(row, template) for row in rows)
    return [rendered.text for group in groups for rendered in group]


def pid(renderer: Renderer) -> int:
    assert renderer._child is not None
    return renderer._child._process.pid


def test_an_endless_template_is_ended_and_the_row_is_named(make_bench: Any) -> None:
    template = "{% if messages[0].content == 'run on' %}" + LOOP + "{% endif %}" + CHATML
    with pytest.raises(DataError, match=r"^chats.jsonl:3: .*takes more than 2 s of CPU time on this row") as caught:
        make_bench(template).examples(CHAT, CHAT, [{"role": "user", "content": "run on"}, CHAT[1]], CHAT)
    assert caught.value.problems[0].code == "template-limit"
    assert "chat_template_jinja" in (caught.value.problems[0].help or "")


def test_a_long_call_in_c_is_ended_too(make_bench: Any) -> None:
    assert "chats.jsonl:1: error[template-limit]: messages: the chat template takes more than 2 s" in str(
        refused(make_bench, ONE_CALL)
    )


@pytest.mark.parametrize("template", GROWING)
def test_a_template_that_exceeds_its_memory_is_ended_and_the_row_is_named(make_bench: Any, template: str) -> None:
    error = refused(make_bench, template)
    assert isinstance(error, DataError) and error.problems[0].code == "template-limit"
    assert str(error).startswith("chats.jsonl:1: ") and "takes more than 16 MB of memory on this row" in str(error)


@pytest.mark.parametrize("template", DEEP + ESCAPING)
def test_a_recursive_or_escaping_template_fails_on_the_row(shared: Renderer, tmp_path: Path, template: str) -> None:
    number = shared.open(TemplateSpec(template.replace("CANARY", str(tmp_path / "canary")))).number
    with pytest.raises(DataError, match=r"^chats.jsonl:1: error\[row\]: messages: the chat template fails on this row"):
        texts(shared, CHAT, template=number)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("template", COMPILING)
def test_a_template_that_does_not_compile_within_limits_is_refused_as_a_template(
    make_bench: Any, template: str
) -> None:
    with pytest.raises(ConfigError, match=r"takes more than 16 MB of memory to compile|is not valid Jinja: line"):
        inspect(make_bench(chat_template_jinja=template).run)
    assert isinstance(error := refused(make_bench, template), ModelError) and str(error).startswith("run.yaml:4:5: ")


def test_a_template_that_takes_too_long_to_compile_is_refused(make_bench: Any) -> None:
    with pytest.raises(ConfigError, match="takes more than 2 s of CPU time to compile"):
        inspect(make_bench(chat_template_jinja="{{ 7 ** 15000000 > 0 }}").run)


def test_a_template_message_is_cut_short_and_its_control_characters_are_escaped(make_bench: Any) -> None:
    message = str(refused(make_bench, "{{ raise_exception('\x1b[2J' ~ messages[0].content * 100000) }}"))
    assert r"\x1b[2Jaaa" in message and "\x1b" not in message and len(message) < 1000


def test_a_hostile_template_affects_no_later_run_and_leaves_no_process(make_bench: Any) -> None:
    before = children()
    refused(make_bench, GROWING[0])
    assert make_bench().trained(CHAT) == ["b<|im_end|>"]
    assert children() == before


def test_the_child_inherits_neither_environment_nor_files(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    with (tmp_path / "open").open("w") as file, Renderer() as other:
        os.set_inheritable(file.fileno(), True)
        other.open(TemplateSpec(CHATML))
        own = Path(f"/proc/{pid(other)}")
        if not own.exists():
            pytest.skip("/proc does not exist")
        assert b"canary" not in (own / "environ").read_bytes()
        assert {int(link.name) for link in (own / "fd").iterdir()} == {0, 1, 2}
        limits_text = (own / "limits").read_text()
        for limit, most in (("core file size", 0), ("file size", 0), ("open files", 8), ("processes", 0)):
            assert f"Max {limit} {most} {most}" in " ".join(limits_text.split())


def test_the_child_imports_nothing_but_jinja2_and_the_standard_library() -> None:
    child = Path(process.__file__).with_name("child.py")
    command = [sys.executable, "-I", "-S", "-X", "importtime", str(child), *process._folders()]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()[1:]}
    expected = {"tunesmith_chat", "org"}  # the module copy of the standard library tries org, a package of Jython
    assert imported - sys.stdlib_module_names - expected == {"jinja2", "markupsafe"}


def test_a_child_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import time\nfrom tunesmith_chat.renderer import Renderer, TemplateSpec\nr = Renderer()\n"
        "r.open(TemplateSpec('{{ 1 }}'))\n"
        "print(r._child._process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        child = int(run.stdout.readline())
        os.kill(child, 0)
        run.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("the child is still running")


def test_a_fork_renders_with_its_own_child(renderer: Renderer, shared: Renderer) -> None:
    expected = texts(renderer, CHAT)
    number = shared.open(TemplateSpec(CHATML)).number
    first, other = pid(renderer), pid(shared)
    read, write = os.pipe()
    fork = os.fork()
    if not fork:
        with contextlib.suppress(BaseException):
            same = texts(renderer, CHAT) == expected and pid(renderer) != first
            renderer.close()
            shared.close()  # must not end the child of the parent
            os.write(write, b"yes" if same else b"no")
        os._exit(0)
    os.waitpid(fork, 0)
    os.close(write)
    assert os.read(read, 9) == b"yes"
    os.close(read)
    assert texts(renderer, CHAT) == expected and pid(renderer) == first
    assert texts(shared, CHAT, template=number) == expected and pid(shared) == other


def test_a_child_that_does_not_start_is_an_environment_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_folders", list)
    with pytest.raises(EnvironmentProblem, match=r"(?s)did not start: .*No module named 'jinja2'.*run it to see why: "):
        Renderer().open(TemplateSpec(CHATML))


def test_a_stopped_child_is_ended_at_the_deadline_and_replaced(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = texts(renderer, CHAT, CHAT)
    monkeypatch.setattr(limits, "deadline", lambda messages, size: 1)
    os.kill(pid(renderer), signal.SIGSTOP)
    assert texts(renderer, CHAT, CHAT) == expected


def test_malformed_answers_of_a_child_are_refused(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.Child, "receive", lambda *_: (["nonsense"], ""))
    monkeypatch.setattr(renderer, "_open", lambda *_: False)
    with pytest.raises(DataError, match=r"^chats.jsonl:1: error\[template-limit\]: .* returns a malformed answer"):
        texts(renderer, CHAT)


@pytest.mark.parametrize("letters", ["ä", "a🦆"])
def test_ten_megabytes_of_content_are_within_the_limits(renderer: Renderer, letters: str) -> None:
    content = letters * (10_000_000 // len(letters.encode()))
    (text,) = texts(renderer, [{"role": "user", "content": content}, CHAT[1]])
    assert text == f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"


def test_a_conversation_of_2000_turns_is_within_the_limits(renderer: Renderer) -> None:
    (text,) = texts(renderer, CHAT * 1000)  # 2,000 renderings, about a second with this simple template
    assert text.count("<|im_end|>") == 2000
    assert limits.seconds(2, 1000) == 2 and limits.seconds(2000, 0) > 40


def test_rows_before_an_unreadable_row_are_yielded(make_bench: Any) -> None:
    bench = make_bench()
    rows = [Row({"messages": CHAT}, "x")] * (2 * BATCH + 5) + [Row({"messages": []}, "chats.jsonl:99")]
    count = 0
    with pytest.raises(DataError, match=r"^chats.jsonl:99: "):
        for _ in build_dataset(bench.run, bench.run.config.entries[0], rows):
            count += 1
    assert count == 2 * BATCH + 5


def test_a_message_nested_too_deeply_is_refused_with_its_row(make_bench: Any) -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(DataError, match=r"^chats.jsonl:1: .*nested too deeply"):
        make_bench().examples([{"role": "user", "content": "a", "extra": deep}])


def test_a_template_that_differs_from_the_tokenizers_is_noted_with_both_hashes(make_bench: Any) -> None:
    own = CHATML + " "
    bench = make_bench(top=ChatSettings(chat_template_jinja=own), chat_template_jinja=CHATML)
    wrapper = load_tokenizer(bench.run)
    next(wrapper)
    with contextlib.suppress(StopIteration):
        wrapper.send(bench.run.tokenizer)
    assert list(bench.notes) == ["chat template"] and bench.notes["chat template"].count("sha256") == 2
