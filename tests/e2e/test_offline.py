"""Nothing is sent to anyone: no packet leaves, and none is tried, by a run whose files are on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

COUNTERS = """
import json, sys
from tunesmith.cli import main

def counters():
    # what this network namespace was asked to send, by the kernel's own count
    found = {}
    for name, wanted in (("snmp", ("OutRequests", "OutNoRoutes", "OutDatagrams", "ActiveOpens", "OutSegs")),):
        lines = open(f"/proc/net/{name}").read().splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            pairs = zip(names.split()[1:], values.split()[1:])
            found |= {f"{names.split(':')[0]} {k}": int(v) for k, v in pairs if k in wanted}
    for line in open("/proc/net/snmp6"):
        name, value = line.split()
        if name in ("Ip6OutRequests", "Ip6OutNoRoutes", "Udp6OutDatagrams"):
            found[name] = int(value)
    for line in open("/proc/net/dev").read().splitlines()[2:]:
        device, numbers = line.split(":")
        found[f"{device.strip()} packets"] = int(numbers.split()[9])
    return found

if sys.argv[1] == "a packet":
    import socket
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(("192.0.2.1", 53))
for command in ("check", "plan", "preprocess", "train") if len(sys.argv) > 2 else ():
    if status := main.main(args=[command, *sys.argv[1:]], standalone_mode=False):
        sys.exit(f"{command} ended with {status}")
    print(f"{command}: {counters()}")
print("COUNTERS " + json.dumps(counters()))
"""
NOBODY = """
import socket, sys
from tunesmith.cli import main

def refuse(what):
    def refused(*arguments, **named):
        host = arguments[0] if what == "looks up" else arguments[1][0] if isinstance(arguments[1], tuple) else "local"
        if host not in ("local", "localhost", "127.0.0.1", "::1", None):
            raise BaseException(f"{what} {host}")
        return before[what](*arguments, **named)
    return refused

before = {"looks up": socket.getaddrinfo, "connects to": socket.socket.connect, "sends to": socket.socket.sendto}
socket.getaddrinfo = refuse("looks up")
socket.socket.connect = refuse("connects to")
for name in ("gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, refuse("looks up"))
if sys.argv[1] == "a lookup":
    import urllib.request
    urllib.request.urlopen("http://host.invalid/")
sys.exit(main.main(args=sys.argv[1:], standalone_mode=False))
"""
LIBRARIES = ("TELEMETRY", "OFFLINE", "DO_NOT_TRACK", "DOWNLOAD_COUNTS", "SAFETENSORS_CONVERSION", "HUB_KERNELS")


@pytest.fixture(scope="module")
def run_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("offline")
    return tiny.sft_config(folder, number=6, max_steps=1, adapter="lora", val_set_size=2, generate_samples=True)


def environment(home: Path, **more: str) -> dict[str, str]:
    """That of a user who has said nothing about networks."""
    said = {k: v for k, v in os.environ.items() if not any(word in k for word in LIBRARIES)}
    return said | {"HF_HOME": str(home / "hub"), **more}


def python(code: str, *words: str, folder: Path, before: tuple[str, ...] = (), **more: str) -> tuple[int, str]:
    command = [*before, sys.executable, "-c", code, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def nowhere() -> tuple[str, ...]:
    """Begins a command in a network namespace of its own, in which there is nowhere to send anything to."""
    command = ("unshare", "--user", "--map-root-user", "--net")
    if not shutil.which("unshare"):
        pytest.skip("no unshare here: no namespace without a network")
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespace without a network here: {tried.stderr.strip()}")
    return command


def sent(output: str) -> dict[str, int]:
    (line,) = [line for line in output.splitlines() if line.startswith("COUNTERS ")]
    counters: dict[str, int] = json.loads(line.removeprefix("COUNTERS "))
    assert {"Ip OutRequests", "Ip OutNoRoutes", "Udp OutDatagrams", "Tcp ActiveOpens", "lo packets"} <= set(counters)
    return {name: number for name, number in counters.items() if number}


def test_check_plan_preprocess_and_train_try_no_packet(
    run_yaml: Path, nowhere: tuple[str, ...], tmp_path: Path
) -> None:
    words = [str(run_yaml), f"output_dir={tmp_path / 'out'}", f"dataset_prepared_path={tmp_path / 'data'}"]
    code, output = python(COUNTERS, *words, folder=run_yaml.parent, before=nowhere)
    assert code == 0, output
    assert sent(output) == {}, output


def test_a_packet_that_is_tried_would_be_counted(nowhere: tuple[str, ...], tmp_path: Path) -> None:
    code, output = python(COUNTERS, "a packet", folder=tmp_path, before=nowhere)
    assert code == 0, output
    assert sent(output)


def test_nobody_is_looked_up_or_connected_to(run_yaml: Path, tmp_path: Path) -> None:
    code, output = python(NOBODY, "train", str(run_yaml), f"output_dir={tmp_path / 'out'}", folder=run_yaml.parent)
    assert code == 0, output


def test_who_looks_somebody_up_would_be_shown(tmp_path: Path) -> None:
    code, output = python(NOBODY, "a lookup", folder=tmp_path)
    assert code == 1 and "looks up host.invalid" in output and "urllib" in output


def test_a_hub_id_is_not_asked_for_offline(run_yaml: Path, tmp_path: Path) -> None:
    words = ["preprocess", str(run_yaml), "base_model=nobody/nothing"]
    code, output = python(NOBODY, *words, folder=run_yaml.parent, HF_HUB_OFFLINE="1")
    assert code == 4 and "nobody/nothing: LocalEntryNotFoundError" in output, output


TOLD = """
import tunesmith_hf, datasets.config, transformers.integrations.hub_kernels as kernels
from transformers.utils.hub import http_user_agent
print(datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, kernels._kernels_enabled, http_user_agent())
"""
HUB = "import tunesmith_hf, os, huggingface_hub.constants as hub; print(hub.HF_HUB_DISABLE_TELEMETRY)"


def test_telemetry_of_the_libraries_is_off(tmp_path: Path) -> None:
    code, output = python(TOLD, folder=tmp_path)
    assert code == 0 and output.startswith("False False ") and output.endswith("telemetry/off\n"), output


def test_it_is_off_also_where_the_hub_was_imported_first_and_as_the_user_said_where_he_said(tmp_path: Path) -> None:
    first = f"import huggingface_hub.constants; {HUB}"
    assert python(HUB, folder=tmp_path) == python(first, folder=tmp_path) == (0, "True\n")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        assert python(first, folder=tmp_path, **{name: "1"}) == (0, "True\n")
    assert python(HUB, folder=tmp_path, HF_HUB_DISABLE_TELEMETRY="0") == (0, "False\n")
    assert python(first, folder=tmp_path, HF_HUB_DISABLE_TELEMETRY="0") == (0, "False\n")
