"""Processes send as many bytes in a step as docs/scaling.md and `tunesmith plan` predict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import traffic

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(
    not traffic.has_namespaces(), reason="needs Linux, unshare and ip, and the right to create a namespace"
)
def test_bytes_of_a_step_are_those_of_the_model(tmp_path: Path) -> None:
    traffic.make(tmp_path)
    names = ["FSDP2 2", "CP 2"]
    (tmp_path / "layouts.json").write_text(json.dumps(names))
    environment = os.environ | {traffic.INSIDE: str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = ["unshare", "--net", sys.executable, "-m", "bench.traffic"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counted = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert list(counted) == names
    for name, sent in counted.items():
        assert sent == pytest.approx(traffic.predicted(tmp_path, *traffic.LAYOUTS[name]), rel=0.05), name
