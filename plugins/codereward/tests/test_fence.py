"""Code does not leave its process: each attempt works without the fence, and fails inside it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunesmith_codereward import sandbox
from tunesmith_codereward.reward import code

from tunesmith import EnvironmentProblem

SECRET = "hunter2-is-not-a-good-password"


def kernel_has_fences() -> bool:
    try:
        return code(["```\n```"], tests=[["assert True"]], timeout=20.0) == [1.0]
    except EnvironmentProblem:
        return False


FENCED = kernel_has_fences()
needs_kernel = pytest.mark.skipif(not FENCED, reason="needs Landlock and seccomp")


def prints(source: str, expected: str, **options: Any) -> bool:
    """Return True if code ends well and prints the expected text within the fence."""
    tests = [[{"output": expected}]]
    return code([f"```python\n{source}\n```"], tests=tests, **{"timeout": 10.0} | options) == [1.0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Prepare what attacks aim at: a secret in the environment and in a file, and servers that record visitors."""
    monkeypatch.setenv("MY_API_KEY", SECRET)
    (tmp_path / "secret.txt").write_text(SECRET)
    visitors: list[str] = []
    servers = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
    address = Path("/tmp") / f"tunesmith-{os.getpid()}.sock"  # short enough for the address of a socket
    servers[1].bind(str(address))
    servers[1].listen()

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()
                visitors.append(server.family.name)

    threads = [threading.Thread(target=accept, args=(server,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    port = servers[0].getsockname()[1]
    yield {"folder": tmp_path, "visitors": visitors, "port": port, "socket": address, "parent": os.getpid()}
    for server in servers:
        server.close()
    address.unlink()


ATTACKS = {
    "environment": "import os\nassert os.environ['MY_API_KEY']",
    "environment of the parent": "print(open('/proc/{parent}/environ', 'rb').read().index(b'PATH='))",
    "memory of the parent": "open('/proc/{parent}/mem', 'rb')",
    "reading outside": "assert open('{folder}/secret.txt').read()",
    "writing outside": "open('{folder}/planted.txt', 'w').write('x')",
    "deleting outside": "import os\nopen('{folder}/x', 'w').close()\nos.remove('{folder}/x')",
    "a folder outside": "import os\nos.mkdir('{folder}/planted')\nos.rmdir('{folder}/planted')",
    "a link to the outside": "import os\nos.symlink('{folder}/secret.txt', 'link')\nassert open('link').read()\n",
    "the mode of a file": "import os\nos.chmod('{folder}/secret.txt', 0o600)",
    "the owner of a file": "import os\nos.chown('{folder}/secret.txt', os.getuid(), os.getgid())",
    "the times of a file": "import os\nos.utime('{folder}/secret.txt')",
    "the size of a file": "import os\nos.truncate('{folder}/secret.txt', 22)",
    "processors of the parent": "import os\nos.sched_setaffinity({parent}, os.sched_getaffinity({parent}))",
    "priority of the parent": "import os\nos.setpriority(os.PRIO_PROCESS, {parent}, 0)",
    "memory that is not counted": "import os\nos.memfd_create('x')",
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=5).close()",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('{socket}')",
    "listening": "import socket\nsocket.create_server(('127.0.0.1', 0)).close()",
    "fork": "import os\nos.waitpid(os.fork() or os._exit(0), 0)",
    "another program": "import subprocess\nsubprocess.run(['true'], check=True)",
    "replacing the program": "import os, sys\nos.execv('/bin/sh', ['sh', '-c', 'echo reached'])",
    "shell": "import os\nassert os.system('true') == 0",
    "multiprocessing": "import multiprocessing as m\nm.get_context('fork').Process(target=print).start()",
    "signal to the parent": "import os\nos.kill({parent}, 0)",
    "limits of the parent": "import resource\nresource.prlimit({parent}, resource.RLIMIT_CORE, (0, 0))",
    "c library": "import ctypes\nassert ctypes.CDLL(None).socket(2, 1, 0) > 0",
}
BEYOND_PYTHON = {
    "limits of the parent", "processors of the parent", "priority of the parent", "memory that is not counted",
}  # fmt: skip
"""Attacks that only the kernel prevents."""


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_works_without_the_fence_and_fails_inside(name: str, place: dict[str, Any]) -> None:
    source = ATTACKS[name].format(**place) + "\nprint('reached')"
    if name != "memory of the parent":  # which a system may prevent anyway
        command = [sys.executable, "-I", "-S", "-c", source]
        free = subprocess.run(command, cwd=place["folder"], capture_output=True, text=True, check=False)
        assert free.stdout.endswith("reached\n"), free.stderr
    (place["folder"] / "link").unlink(missing_ok=True)
    (place["folder"] / "planted.txt").unlink(missing_ok=True)
    time.sleep(0.05)
    place["visitors"].clear()
    tried = (
        f"try:\n    {source.replace(chr(10), chr(10) + '    ')}\nexcept BaseException as error:\n    print('refused')"
    )
    for isolation in [*(["kernel"] if FENCED else []), *(["python"] if name not in BEYOND_PYTHON else [])]:
        assert prints(tried, "refused", isolation=isolation), isolation
        assert not place["visitors"]
        assert sorted(path.name for path in place["folder"].iterdir()) == ["secret.txt"]


@pytest.fixture
def without_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the fence as on a system whose kernel has none."""
    shutil.copy(sandbox.FENCE, tmp_path / "fence.py")
    (tmp_path / "kernel.py").write_text("raise ImportError('no fences here')")
    monkeypatch.setattr(sandbox, "FENCE", tmp_path / "fence.py")


@pytest.mark.usefixtures("without_kernel")
def test_code_is_not_run_without_fences_unless_that_is_accepted() -> None:
    with pytest.raises(EnvironmentProblem, match="no fences here") as caught:
        prints("print(1)", "1")
    assert "isolation: python" in str(caught.value.problems[0].help)
    assert prints("print(1)", "1", isolation="python")


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"memory of the parent"} - BEYOND_PYTHON))
@pytest.mark.usefixtures("without_kernel")
def test_the_audit_hook_refuses_the_same_attacks(name: str, place: dict[str, Any]) -> None:
    source = ATTACKS[name].format(**place).replace("\n", "\n    ")
    tried = f"try:\n    {source}\n    print('reached')\nexcept Exception as error:\n    print('refused')"
    assert prints(tried, "refused", isolation="python")
    assert not place["visitors"]
    assert {path.name for path in place["folder"].iterdir()} <= {"secret.txt", "fence.py", "kernel.py", "__pycache__"}


HOGS = {
    "endless loop": "while True: pass",
    "sleep": "import time\ntime.sleep(1000)",
    "sleep without the alarm": "import signal, time\nsignal.alarm(0)\nsignal.setitimer(0, 0)\ntime.sleep(1000)",
    "loop in C": "9 ** 9 ** 9",
    "endless output": "while True: print('x' * 1000)",
    "endless memory": "x = []\nwhile True: x.append(bytearray(10**7))",
    "much memory at once": "x = bytearray(10**10)",
    "endless recursion in a thread": "import threading\ndef f(): f()\nthreading.Thread(target=f).start()\nf()",
    "endless threads": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()",
    "a large file": "f = open('x', 'wb')\nwhile True: f.write(b'x' * 10**6)",
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork bomb in shells": "import os\nwhile True: os.system(':(){ :|:& };:')",
    "waiting for input": "import sys\nwhile True: sys.stdin.read()",
    "output that is kept open": "import time, os\nos.close(2)\ntime.sleep(1000)",
}


@needs_kernel
@pytest.mark.parametrize("name", HOGS)
def test_what_takes_without_end_is_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "START", 1.0)
    started = time.monotonic()
    before = len(processes())
    assert not prints(HOGS[name], "", timeout=0.5, memory=256)
    assert code([f"```\n{HOGS[name]}\n```"], tests=[["assert True"]], timeout=0.5, memory=256) == [0.0]
    assert time.monotonic() - started < 20
    assert len(processes()) <= before + 1
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 << 20  # KiB, of the largest child so far


def processes() -> list[str]:
    """Return the numbers of the processes whose command is the fence."""
    running = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"fence.py" in (entry / "cmdline").read_bytes():
                running.append(entry.name)
    return running


@needs_kernel
def test_many_files_fill_no_disk_and_are_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    source = (
        "n = 0\ntry:\n    while n < 40:\n        open(str(n), 'wb').write(b'x' * 10**6)\n        n += 1\n"
        "except OSError:\n    pass\nprint('few' if n < 20 else 'many')"
    )
    limited = prints(source, "few")
    assert limited or prints(source, "many")  # without namespaces, time is the only limit
    assert list(tmp_path.iterdir()) == []


@needs_kernel
def test_useful_things_work_inside() -> None:
    source = (
        "import asyncio, collections, dataclasses, datetime, decimal, functools, heapq, itertools, json, math\n"
        "import os, random, re, tempfile, threading, concurrent.futures as c, zoneinfo, sqlite3, ssl, hashlib\n"
        "open('a.txt', 'w').write('x')\nassert open('a.txt').read() == 'x'\nos.mkdir('b')\nos.rename('a.txt', 'b/c')\n"
        "with c.ThreadPoolExecutor(4) as pool: assert list(pool.map(abs, [-1, 2])) == [1, 2]\n"
        "open('/dev/null', 'w').write('x')\nassert os.urandom(2)\nos.kill(os.getpid(), 0)\n"
        "try: raise ValueError\nexcept ValueError:\n    import traceback\n    traceback.format_exc()\nprint('fine')"
    )
    assert prints(source, "fine")
