"""A chat template is code from a stranger: it can neither run on, nor grow, nor see or touch anything."""

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
from tunesmith_chat.renderer import BATCH, Form, Renderer

from tunesmith import ConfigError, DataError, EnvironmentProblem, ModelError, Row, TunesmithError

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ONE_CALL = "{% set n = 7 %}{{ n ** 15000000 > 0 }}"  # seconds in C, where no Python code could look at a clock
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


def refused(bench: Any, template: str) -> TunesmithError:
    with pytest.raises(TunesmithError) as caught:
        bench(template).examples(CHAT)
    return caught.value


def children() -> set[int]:
    """The processes that this one has started and not yet waited for."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    """Has its child running, with form 0: chatml."""
    with Renderer() as made:
        made.open(Form(CHATML, {}, [("<|im_end|>", "train_on_eos", "turn")], ["assistant"]))
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Renderer]:
    with Renderer() as made:
        yield made


def texts(renderer: Renderer, *chats: Any, form: int = 0) -> list[str]:
    rows = [Conversation(Row({}, f"chats.jsonl:{i}"), chat, None) for i, chat in enumerate(chats, 1)]
    return [one.text for group in renderer.render(renderer.job(row, form) for row in rows) for one in group]


def pid(renderer: Renderer) -> int:
    assert renderer._child is not None
    return renderer._child._process.pid


def test_a_template_that_runs_on_is_ended_and_the_row_is_named(bench: Any) -> None:
    template = "{% if messages[0].content == 'run on' %}" + LOOP + "{% endif %}" + CHATML
    with pytest.raises(DataError, match=r"^chats.jsonl:3: .*takes more than 2 s of CPU time on it") as caught:
        bench(template).examples(CHAT, CHAT, [{"role": "user", "content": "run on"}, CHAT[1]], CHAT)
    assert caught.value.problems[0].code == "template-limit"
    assert "chat_template_jinja" in (caught.value.problems[0].help or "")


def test_one_call_that_runs_on_in_c_is_ended_too(bench: Any) -> None:
    assert "chats.jsonl:1: error[template-limit]: messages: the chat template takes more than 2 s" in str(
        refused(bench, ONE_CALL)
    )


@pytest.mark.parametrize("template", GROWING)
def test_a_template_that_grows_is_ended_and_the_row_is_named(bench: Any, template: str) -> None:
    error = refused(bench, template)
    assert isinstance(error, DataError) and error.problems[0].code == "template-limit"
    assert str(error).startswith("chats.jsonl:1: ") and "takes more than 16 MB of memory on it" in str(error)


@pytest.mark.parametrize("template", DEEP + ESCAPING)
def test_a_template_that_calls_itself_or_reaches_out_fails_on_the_row(
    shared: Renderer, tmp_path: Path, template: str
) -> None:
    number = shared.open(Form(template.replace("CANARY", str(tmp_path / "canary")))).number
    with pytest.raises(DataError, match=r"^chats.jsonl:1: error\[row\]: messages: the chat template fails on it"):
        texts(shared, CHAT, form=number)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("template", COMPILING)
def test_a_template_that_does_not_compile_in_bounds_is_refused_as_one(bench: Any, template: str) -> None:
    with pytest.raises(ConfigError, match=r"takes more than 16 MB of memory to compile|is no Jinja template: line"):
        inspect(bench(chat_template_jinja=template).run)
    assert isinstance(error := refused(bench, template), ModelError) and str(error).startswith("run.yaml:4:5: ")


def test_a_template_that_compiles_for_ever_is_refused_as_one(bench: Any) -> None:
    with pytest.raises(ConfigError, match="takes more than 2 s of CPU time to compile"):
        inspect(bench(chat_template_jinja="{{ 7 ** 15000000 > 0 }}").run)


def test_what_a_template_says_is_cut_short_and_does_not_steer_the_terminal(bench: Any) -> None:
    said = str(refused(bench, "{{ raise_exception('\x1b[2J' ~ messages[0].content * 100000) }}"))
    assert r"\x1b[2Jaaa" in said and "\x1b" not in said and len(said) < 1000


def test_a_run_after_a_hostile_template_is_unharmed_and_nothing_is_left_running(bench: Any) -> None:
    before = children()
    refused(bench, GROWING[0])
    assert bench().trained(CHAT) == ["b<|im_end|>"]
    assert children() == before


def test_the_child_has_neither_the_environment_nor_files_of_the_run(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    with (tmp_path / "open").open("w") as file, Renderer() as other:
        os.set_inheritable(file.fileno(), True)
        other.open(Form(CHATML))
        own = Path(f"/proc/{pid(other)}")
        if not own.exists():
            pytest.skip("there is no /proc")
        assert b"canary" not in (own / "environ").read_bytes()
        assert {int(link.name) for link in (own / "fd").iterdir()} == {0, 1, 2}
        held = (own / "limits").read_text()
        for limit, most in (("core file size", 0), ("file size", 0), ("open files", 8), ("processes", 0)):
            assert f"Max {limit} {most} {most}" in " ".join(held.split())


def test_the_child_imports_nothing_but_jinja2_and_the_standard_library() -> None:
    child = Path(process.__file__).with_name("child.py")
    command = [sys.executable, "-I", "-S", "-X", "importtime", str(child), *process._folders()]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    found = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()[1:]}
    ours = {"tunesmith_chat", "org"}  # the standard library's copy looks for org, which only Jython has
    assert found - sys.stdlib_module_names - ours == {"jinja2", "markupsafe"}


def test_a_child_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import time\nfrom tunesmith_chat.renderer import Form, Renderer\nr = Renderer()\nr.open(Form('{{ 1 }}'))\n"
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
    pytest.fail("the child is still there")


def test_a_fork_renders_with_a_child_of_its_own(renderer: Renderer, shared: Renderer) -> None:
    expected = texts(renderer, CHAT)
    number = shared.open(Form(CHATML)).number
    first, other = pid(renderer), pid(shared)
    read, write = os.pipe()
    fork = os.fork()
    if not fork:
        with contextlib.suppress(BaseException):
            same = texts(renderer, CHAT) == expected and pid(renderer) != first
            renderer.close()
            shared.close()  # has the parent's, which it leaves alone
            os.write(write, b"yes" if same else b"no")
        os._exit(0)
    os.waitpid(fork, 0)
    os.close(write)
    assert os.read(read, 9) == b"yes"
    os.close(read)
    assert texts(renderer, CHAT) == expected and pid(renderer) == first
    assert texts(shared, CHAT, form=number) == expected and pid(shared) == other


def test_a_child_that_does_not_start_is_a_problem_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_folders", list)
    with pytest.raises(EnvironmentProblem, match=r"(?s)does not start: .*No module named 'jinja2'.*try it: "):
        Renderer().open(Form(CHATML))


def test_a_child_that_is_stopped_is_given_up_at_the_deadline_and_replaced(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = texts(renderer, CHAT, CHAT)
    monkeypatch.setattr(limits, "deadline", lambda messages, size: 1)
    os.kill(pid(renderer), signal.SIGSTOP)
    assert texts(renderer, CHAT, CHAT) == expected


def test_a_child_that_talks_nonsense_is_not_believed(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.Child, "hear", lambda *_: (["nonsense"], ""))
    monkeypatch.setattr(renderer, "_open", lambda *_: False)
    with pytest.raises(DataError, match=r"^chats.jsonl:1: error\[template-limit\]: .* gives no proper answer"):
        texts(renderer, CHAT)


@pytest.mark.parametrize("letters", ["ä", "a🦆"])
def test_ten_megabytes_of_content_are_no_hostile_template(renderer: Renderer, letters: str) -> None:
    content = letters * (10_000_000 // len(letters.encode()))
    (text,) = texts(renderer, [{"role": "user", "content": content}, CHAT[1]])
    assert text == f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"


def test_a_conversation_of_2000_turns_is_no_hostile_template(renderer: Renderer) -> None:
    (text,) = texts(renderer, CHAT * 1000)  # rendered 2,000 times: a second, with a template that does little
    assert text.count("<|im_end|>") == 2000
    assert limits.seconds(2, 1000) == 2 and limits.seconds(2000, 0) > 40


def test_a_row_that_can_not_be_read_stops_none_before_it(bench: Any) -> None:
    made = bench()
    rows = [Row({"messages": CHAT}, "x")] * (2 * BATCH + 5) + [Row({"messages": []}, "chats.jsonl:99")]
    got = 0
    with pytest.raises(DataError, match=r"^chats.jsonl:99: "):
        for _ in build_dataset(made.run, made.run.config.entries[0], rows):
            got += 1
    assert got == 2 * BATCH + 5


def test_a_message_nested_too_deeply_is_refused_with_its_row(bench: Any) -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(DataError, match=r"^chats.jsonl:1: .*nested too deeply"):
        bench().examples([{"role": "user", "content": "a", "extra": deep}])


def test_another_template_than_the_tokenizers_is_said_by_its_hash(bench: Any) -> None:
    own = CHATML + " "
    made = bench(top=ChatSettings(chat_template_jinja=own), chat_template_jinja=CHATML)
    wrapper = load_tokenizer(made.run)
    next(wrapper)
    with contextlib.suppress(StopIteration):
        wrapper.send(made.run.tokenizer)
    assert list(made.notes) == ["chat template"] and made.notes["chat template"].count("sha256") == 2
