"""A run whose files are local sends no packet and looks up no host."""

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
    # the kernel's counters of packets sent in this network namespace
    counts = {}
    for name, fields in (("snmp", ("OutRequests", "OutNoRoutes", "OutDatagrams", "ActiveOpens", "OutSegs")),):
        lines = open(f"/proc/net/{name}").read().splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            pairs = zip(names.split()[1:], values.split()[1:])
            counts |= {f"{names.split(':')[0]} {k}": int(v) for k, v in pairs if k in fields}
    for line in open("/proc/net/snmp6"):
        name, value = line.split()
        if name in ("Ip6OutRequests", "Ip6OutNoRoutes", "Udp6OutDatagrams"):
            counts[name] = int(value)
    for line in open("/proc/net/dev").read().splitlines()[2:]:
        device, numbers = line.split(":")
        counts[f"{device.strip()} packets"] = int(numbers.split()[9])
    return counts

if sys.argv[1] == "a packet":
    import socket
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(("192.0.2.1", 53))
for command in ("check", "plan", "preprocess", "train") if len(sys.argv) > 2 else ():
    if status := main.main(args=[command, *sys.argv[1:]], standalone_mode=False):
        sys.exit(f"{command} ended with {status}")
    print(f"{command}: {counters()}")
print("COUNTERS " + json.dumps(counters()))
"""
NO_CONNECTIONS = """
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
    """Return the environment of a user who set no variable about telemetry or offline use."""
    variables = {k: v for k, v in os.environ.items() if not any(word in k for word in LIBRARIES)}
    return variables | {"HF_HOME": str(home / "hub"), **more}


def python(code: str, *words: str, folder: Path, before: tuple[str, ...] = (), **more: str) -> tuple[int, str]:
    command = [*before, sys.executable, "-c", code, *words]
    completed = subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False, timeout=300
    )
    return completed.returncode, completed.stdout + completed.stderr


@pytest.fixture(scope="module")
def nowhere() -> tuple[str, ...]:
    """Return a command prefix that runs a command in its own network namespace, which has no network."""
    command = ("unshare", "--user", "--map-root-user", "--net")
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed, so a namespace without a network cannot be created")
    attempt = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if attempt.returncode:
        pytest.skip(f"a namespace without a network cannot be created: {attempt.stderr.strip()}")
    return command


def sent(output: str) -> dict[str, int]:
    """Return the counters that are not zero."""
    (line,) = [line for line in output.splitlines() if line.startswith("COUNTERS ")]
    counters: dict[str, int] = json.loads(line.removeprefix("COUNTERS "))
    assert {"Ip OutRequests", "Ip OutNoRoutes", "Udp OutDatagrams", "Tcp ActiveOpens", "lo packets"} <= set(counters)
    return {name: number for name, number in counters.items() if number}


def test_check_plan_preprocess_and_train_send_no_packet(
    run_yaml: Path, nowhere: tuple[str, ...], tmp_path: Path
) -> None:
    words = [str(run_yaml), f"output_dir={tmp_path / 'out'}", f"dataset_prepared_path={tmp_path / 'data'}"]
    code, output = python(COUNTERS, *words, folder=run_yaml.parent, before=nowhere)
    assert code == 0, output
    assert sent(output) == {}, output


def test_counters_include_an_attempted_packet(nowhere: tuple[str, ...], tmp_path: Path) -> None:
    code, output = python(COUNTERS, "a packet", folder=tmp_path, before=nowhere)
    assert code == 0, output
    assert sent(output)


@pytest.mark.slow
def test_no_host_is_looked_up_or_connected_to(run_yaml: Path, tmp_path: Path) -> None:
    code, output = python(
        NO_CONNECTIONS, "train", str(run_yaml), f"output_dir={tmp_path / 'out'}", folder=run_yaml.parent
    )
    assert code == 0, output


def test_lookup_is_reported_with_its_caller(tmp_path: Path) -> None:
    code, output = python(NO_CONNECTIONS, "a lookup", folder=tmp_path)
    assert code == 1 and "looks up host.invalid" in output and "urllib" in output


def test_hub_id_is_not_requested_offline(run_yaml: Path, tmp_path: Path) -> None:
    words = ["preprocess", str(run_yaml), "base_model=nobody/nothing"]
    code, output = python(NO_CONNECTIONS, *words, folder=run_yaml.parent, HF_HUB_OFFLINE="1")
    assert code == 4 and "nobody/nothing: LocalEntryNotFoundError" in output, output


CHECK = "from tunesmith import load_config, start; start(load_config('run.yaml'))"
SETTINGS = f"""
{CHECK}
import datasets.config, transformers.integrations.hub_kernels as kernels
from transformers.utils.hub import http_user_agent
print(datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, kernels._kernels_enabled, http_user_agent())
"""
HUB = f"{CHECK}; import huggingface_hub.constants as hub; print(hub.HF_HUB_DISABLE_TELEMETRY)"


def test_importing_the_plugin_sets_no_variable(tmp_path: Path) -> None:
    source = "import os; before = dict(os.environ); import tunesmith_hf; print(dict(os.environ) == before)"
    assert python(source, folder=tmp_path) == (0, "True\n")


def test_library_telemetry_is_off(run_yaml: Path) -> None:
    code, output = python(SETTINGS, folder=run_yaml.parent)
    assert code == 0 and output.startswith("False False ") and output.endswith("telemetry/off\n"), output


@pytest.mark.slow
def test_telemetry_is_off_after_an_earlier_hub_import_and_follows_the_user(run_yaml: Path) -> None:
    folder = run_yaml.parent
    first = f"import huggingface_hub.constants; {HUB}"
    assert python(HUB, folder=folder) == python(first, folder=folder) == (0, "True\n")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        assert python(first, folder=folder, **{name: "1"}) == (0, "True\n")
    assert python(HUB, folder=folder, HF_HUB_DISABLE_TELEMETRY="0") == (0, "False\n")
    assert python(first, folder=folder, HF_HUB_DISABLE_TELEMETRY="0") == (0, "False\n")
