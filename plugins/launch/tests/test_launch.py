"""Job files start the run that the config describes, and are what the scheduler reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tunesmith_launch.job import minutes

from tests import tiny
from tunesmith import ConfigError
from tunesmith.cli import main

COMMON = ["--nodes", "2", "--gpus", "8"]
TARGETS: dict[str, list[str]] = {
    "slurm": ["--cpus", "64", "--option=--partition=gpu", "--gpu-type", "h100"],
    "k8s": ["--image", "me/tunesmith:1", "--volume", "work", "--cpus", "64", "--memory", "200Gi", "--gpu-type", "H100"],
    "skypilot": ["--gpu-type", "H100", "--spot", "--storage", "s3://bucket/runs", "--image", "me/tunesmith:1"],
    "dstack": ["--gpu-type", "H100", "--spot", "--volume", "runs"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the config of a run for GPUs."""
    folder = tmp_path_factory.mktemp("launch")
    return tiny.sft_config(folder, device=None, output_dir="outputs/My run")


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(main, ["launch", *map(str, words)])


def written(target: str, run: Path, *more: str) -> str:
    result = invoke(target, run, *COMMON, *TARGETS[target], "--time", "24h", *more)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_the_run_is_started_with_its_overrides_and_resumes(target: str, run: Path) -> None:
    text = written(target, run, "--setup", "module load cuda", "--max-restarts", "3", "learning_rate=1e-4")
    assert "torch.distributed.run" in text and "--max-restarts=3" in text and "module load cuda" in text
    assert "learning_rate=1e-4" in text and "resume_from_checkpoint=auto" in text
    assert "2 machines, each with 8 GPUs." in text and "x processes 16 = 32." in text
    assert "my-run" in text and "PET_SHUTDOWN_TIMEOUT" in text


def test_a_local_plugin_is_a_file_that_is_copied_and_no_package(run: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("from tunesmith import Plugin\nplugin = Plugin()\n")
    result = invoke("dstack", run, f"plugins=[{plugin}, lora]", "adapter=lora", "lora_r=8")
    (line,) = [line for line in result.stdout.splitlines() if "pip install" in line]
    assert "mine" not in line and "lora" in line


@pytest.mark.parametrize("target", TARGETS)
def test_a_run_that_says_how_it_resumes_keeps_it(target: str, run: Path) -> None:
    assert written(target, run, "resume_from_checkpoint=auto").count("resume_from_checkpoint") == 1


def test_the_file_is_written_once(run: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.sh"
    result = invoke("slurm", run, *COMMON, "--output", job)
    assert f"next: sbatch {job}" in result.output and os.access(job, os.X_OK)
    again = invoke("slurm", run, *COMMON, "--output", job)
    assert again.exit_code == 2 and "already exists" in again.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "8", "device=cpu"], "trains on the CPU, and the job asks for 8 GPUs"),
        (["--gpus", "8", "fsdp_config={}", "dp_shard_size=3"], "does not fit the 8 processes of the job"),
        (["--gpus", "8", "fsdp_config={}", "dp_shard_size=2", "dp_replicate_size=2"], "does not fit the 8 processes"),
        (["--time", "tomorrow"], "'tomorrow' is not a time"),
        (["--option", "partition=gpu"], "is not an option of sbatch"),
        (["--option", "--partition=a\n#SBATCH --uid=0"], "is not an option of sbatch"),
        (["learning_rat=1"], "unknown key: learning_rat"),
        (["nothing"], "nothing"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_a_file_is_written(words: list[str], message: str, run: Path) -> None:
    result = invoke("slurm", run, *words)
    assert result.exit_code == 2 and message in result.output, result.output


def test_skypilot_needs_a_type_of_gpu(run: Path) -> None:
    assert "--gpu-type H100" in invoke("skypilot", run, "--gpus", "1").output


@pytest.mark.parametrize(
    ("text", "expected"), [("90m", 90), ("24h", 1440), ("2d", 2880), ("1:30:00", 90), ("1-00:00:01", 1441)]
)
def test_times(text: str, expected: int) -> None:
    assert minutes(text) == expected
    with pytest.raises(ConfigError):
        minutes(f"{text} ")


# what reads the files


def test_the_batch_script_is_one_of_bash(run: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.sh"
    job.write_text(written("slurm", run))
    subprocess.run(["bash", "-n", str(job)], check=True)
    directives = [line for line in job.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --gpus-per-node=h100:8", "#SBATCH --time=1440", "#SBATCH --partition=gpu"} < set(directives)


SCHEDULER = """#!/bin/bash
# srun starts the command once, scancel sends it the signal, and scontrol records.
case "$(basename "$0")" in
  srun) shift; exec "$@" ;;
  scancel) pkill -USR1 -f "{folder}/training" ;;
  scontrol) echo "$@" >> {folder}/scontrol ;;
esac
"""
TRAINING = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: (time.sleep(0.5), sys.exit({code})))
open({folder!r} + "/started", "w").close()
time.sleep({seconds})
"""


@pytest.mark.parametrize(("warned", "code", "requeued"), [(True, 1, True), (True, 0, False), (False, 0, False)])
def test_a_job_is_queued_again_after_a_warning_that_interrupted_it(
    warned: bool, code: int, requeued: bool, run: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "scancel", "scontrol"):
        (programs / name).write_text(SCHEDULER.format(folder=tmp_path))
        (programs / name).chmod(0o755)
    (tmp_path / "training.py").write_text(TRAINING.format(folder=str(tmp_path), code=code, seconds=20 if warned else 0))
    lines = written("slurm", run, "--nodes", "1").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("srun"))
    lines[start : start + 2] = [f"srun --wait=600 {sys.executable} {tmp_path}/training.py &"]
    (tmp_path / "job.sh").write_text("\n".join(lines))
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(["bash", str(tmp_path / "job.sh")], env=environment)
    while warned and not (tmp_path / "started").exists():
        time.sleep(0.05)
    if warned:
        job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == code
    assert (tmp_path / "scontrol").exists() == requeued
    assert not requeued or (tmp_path / "scontrol").read_text() == "requeue 7\n"


def test_the_manifests_have_the_config_and_the_resources(run: Path) -> None:
    config, job = yaml.safe_load_all(written("k8s", run))
    assert config["data"]["run.yaml"] == run.read_text()
    trainer = job["spec"]["trainer"]
    assert trainer["numNodes"] == 2 and trainer["numProcPerNode"] == 8
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": 8, "cpu": 64, "memory": "200Gi"}
    assert job["spec"]["activeDeadlineSeconds"] == 24 * 3600


VALIDATORS = {
    "k8s": "from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob as Job\n"
    "assert Job.from_dict(job[1]).to_dict() == job[1]",
    "skypilot": "from sky.utils import common_utils, schemas\n"
    "common_utils.validate_schema(job[0], schemas.get_task_schema(), 'task: ')",
    "dstack": "from dstack._internal.core.models import configurations\nconfigurations.parse_run_configuration(job[0])",
}
LIBRARIES = {"k8s": "kubeflow_trainer_api", "skypilot": "sky", "dstack": "dstack"}


@pytest.mark.slow
@pytest.mark.parametrize("target", VALIDATORS)
@pytest.mark.parametrize("small", [True, False])
def test_the_library_of_the_target_reads_the_file(target: str, small: bool, run: Path) -> None:
    """TUNESMITH_LAUNCH_PYTHONS names Pythons that have the libraries: k8s=PATH:skypilot=PATH:dstack=PATH."""
    named = os.environ.get("TUNESMITH_LAUNCH_PYTHONS", "")
    pythons = dict(item.partition("=")[::2] for item in named.split(":") if item)
    if target not in pythons:
        pytest.skip(f"{LIBRARIES[target]} is in no Python that TUNESMITH_LAUNCH_PYTHONS names")
    needed = TARGETS[target][:4] if target == "k8s" else []
    text = invoke(target, run, "--gpus", "0", *needed, "device=cpu").stdout if small else written(target, run)
    program = f"import json, sys\njob = json.load(sys.stdin)\n{VALIDATORS[target]}"
    documents = json.dumps(list(yaml.safe_load_all(text)))
    outcome = subprocess.run(
        [pythons[target], "-c", program], input=documents, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]


@pytest.mark.slow
def test_a_local_slurm_runs_the_job(tmp_path: Path) -> None:
    if shutil.which("sbatch") is None or subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        pytest.skip("no Slurm answers on this machine")
    tiny.sft_config(tmp_path, max_steps=3)
    result = invoke("slurm", tmp_path / "run.yaml", "--gpus", "0", "--output", tmp_path / "job.sh")
    assert result.exit_code == 0, result.output
    subprocess.run(["sbatch", "--wait", "job.sh"], cwd=tmp_path, check=True, timeout=300)
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "done"
