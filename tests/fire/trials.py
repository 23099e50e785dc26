"""Interrupt runs with kills, disk errors and a full disk at chosen file operations, and then restart them.

    LD_PRELOAD=faults.so python tests/fire/trials.py FOLDER [--kills N] [--errors N] [--sizes N] [--damage]

Each trial is the same small run in a forked child. The run ends at its n-th file operation or step, its files are
checked, and the same command restarts it. The result must equal that of an uninterrupted run. The script prints one
line of JSON per trial. tests/fire/test_fire.py compiles the shared library from faults.c.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime.atomic import why_invalid

from tests import tiny

STEPS = 4
KILL, TEAR = 0, -1
REFUSALS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES)
libc = ctypes.CDLL(None)


class Trials:
    """A run in `folder`/run, its result without faults, and the faults to inject into it."""

    def __init__(self, folder: Path):
        self.folder, self.place = folder, folder / "run"
        self.out = self.place / "out"
        model = tiny.model_folder(folder / "model-llama", "llama", attention_dropout=0.1)
        data = tiny.write_rows(folder / "data.jsonl", tiny.rows("conversation", 40))
        keys = {
            "base_model": str(model), "datasets": [{"path": str(data), "type": "chat_template"}],
            "output_dir": str(self.out), "dataset_prepared_path": str(self.place / "prepared"),
            "max_steps": STEPS, "num_epochs": 20, "save_steps": 1, "save_total_limit": 2, "val_set_size": 4,
            "eval_steps": 2, "resume_from_checkpoint": "auto",
        }  # fmt: skip
        self.config = tiny.write_config(folder, **keys)
        self.clean()
        self.operations = self.count()
        self.weights, self.losses = self.result()
        self.bytes = sum(p.stat().st_size for p in self.place.rglob("*") if p.is_file())
        shutil.copytree(self.place, folder / "complete")

    def clean(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def result(self) -> tuple[Any, list[tuple[int, float]]]:
        return tiny.weights(self.out), [(line["step"], line["loss"]) for line in tiny.metrics(self.out)]

    def count(self) -> str:
        """Return the first letter of each file operation of an uninterrupted run, in order."""
        kinds = self.folder / "kinds"

        def counted() -> int:
            code = self.armed(0, KILL)()
            number = libc.faults_count()
            kinds.write_text("".join(chr(libc.faults_kind(i)) for i in range(number)))
            return code

        assert self.child(counted) == 0, self.output()
        return kinds.read_text()

    # child processes

    def child(self, action: Callable[[], Any]) -> int:
        """Run `action` in a fork and keep its output in a file.

        Return the exit code, or the negated number of the signal that killed the child.
        """
        if (pid := os.fork()) == 0:
            code = 1
            try:
                with (self.folder / "output").open("w") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                code = int(action() or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def command(self, before: Callable[[], Any] = lambda: None) -> Callable[[], int]:
        """Return a function that runs `tunesmith train run.yaml` and returns its exit code."""

        def run() -> int:
            from tunesmith.cli import main

            before()
            try:
                main(["train", str(self.config)])
            except SystemExit as end:
                return int(end.code or 0)
            return 0

        return run

    def armed(self, number: int, action: int, room: int = -1) -> Callable[[], int]:
        return self.command(lambda: libc.faults_arm(os.fsencode(self.place), number, action, room))

    # checks

    def why_unsound(self) -> list[str]:
        """Return the problems after a fault: each checkpoint must be complete, and at most one step may be lost."""
        problems = [f"{path.name} {why}" for _, path in numbered(self.out) if (why := why_invalid(path))]
        with contextlib.suppress(OSError, ValueError):
            steps = [line["step"] for line in tiny.metrics(self.out)]
            newest = max((step for step, _ in numbered(self.out)), default=0)
            if steps and newest < max(steps) - 1:
                problems.append(f"step {max(steps)} was done, but the newest checkpoint is of step {newest}")
        return problems

    def why_not_resumed(self, muted: bool = False) -> list[str]:
        """Return the problems after a restart by the same command: its result must equal an uninterrupted run's."""
        code = self.child(self.command())
        if code:
            return [f"the restart ended with {code}: {self.output()[-600:]}"]
        weights, losses = self.result()
        # The log is not part of the promise: its plugin is muted if the disk refuses metrics.jsonl.
        problems = [] if losses == self.losses or muted else ["the losses differ"]
        if weights.keys() != self.weights.keys() or not all(torch.equal(weights[k], self.weights[k]) for k in weights):
            problems.append("the weights differ")
        leftovers = [p.name for p in self.place.rglob("*") if p.name.endswith((".partial", ".old", ".tmp"))]
        return problems + ([f"left behind: {', '.join(leftovers)}"] if leftovers else [])

    # trials

    def kill(self, number: int, action: int, again: int = 0) -> list[str]:
        """Kill the run at operation `number`, and once more at operation `again` of the restart unless that is 0.

        `action` is KILL (before the operation) or TEAR (in the middle of a write).
        """
        self.clean()
        code = self.child(self.armed(number, action))
        problems = [] if code == -signal.SIGKILL else [f"ended with {code}: {self.output()[-300:]}"]
        problems += self.why_unsound()
        if again:
            self.child(self.armed(again, KILL))
            problems += self.why_unsound()
        return problems + self.why_not_resumed()

    def kill_at_step(self, step: int) -> list[str]:
        """Kill the run after an optimizer step, before any file of that step is written."""
        from tunesmith_engine.training.loop import Loop

        original = Loop.step

        def deadly(loop: Loop) -> Any:
            record = original(loop)
            if record.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return record

        self.clean()
        code = self.child(self.command(lambda: setattr(Loop, "step", deadly)))
        return ([] if code == -signal.SIGKILL else [f"ended with {code}"]) + self.why_unsound() + self.why_not_resumed()

    def refuse(self, number: int, answer: int) -> list[str]:
        """Fail operation `number` with the errno `answer`: the run must report the error, or work without that file."""
        self.clean()
        problems = self.ended(self.child(self.armed(number, answer)))
        return problems + self.why_not_resumed(muted="plugin jsonl was muted" in self.output())

    def starve(self, room: int) -> list[str]:
        """Limit the disk to `room` bytes, and remove the limit for the restart."""
        self.clean()
        return self.ended(self.child(self.armed(0, KILL, room))) + self.why_not_resumed()

    def ended(self, code: int) -> list[str]:
        """Return the problems after a disk error, given the exit code of the run."""
        output, problems = self.output(), self.why_unsound()
        if code not in (0, 5):
            problems.append(f"ended with {code}: {output[-600:]}")
        if code == 5 and not (re.search("could not be (written|created)", output) and "help:" in output):
            problems.append(f"the error has no advice: {output[-300:]}")
        if "Traceback" in output:
            problems.append("the output has a traceback")
        leftovers = [p.name for p in self.out.glob(".checkpoint-*")]
        return problems + ([f"left behind: {', '.join(leftovers)}"] if leftovers and code else [])

    def damage(self, name: str, how: str) -> list[str]:
        """Damage a file of the newest checkpoint: the run must resume from the checkpoint before it."""
        shutil.rmtree(self.place)
        shutil.copytree(self.folder / "complete", self.place)
        for file in (self.out / "model.safetensors", self.out / "run.json"):
            file.unlink()
        newest = self.out / f"checkpoint-{STEPS}"
        spoil(newest / name, how)
        problems = self.why_not_resumed()
        notes = json.loads((self.out / "run.json").read_text())["notes"]
        if f"{newest.name} " not in notes.get("checkpoints passed over", ""):
            problems.append(f"not in the notes: {notes}")
        if notes.get("resumed from") != f"checkpoint-{STEPS - 1}":
            problems.append(f"resumed from {notes.get('resumed from')}")
        return problems


DAMAGE = ("truncated", "deleted", "zeroed", "bit flipped")


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "zeroed":
        path.write_bytes(bytes(len(data)))
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def spread(most: int, number: int) -> list[int]:
    """Return at most `number` integers, spread evenly from 1 to `most`."""
    return sorted({1 + round(i * (most - 1) / max(number - 1, 1)) for i in range(min(number, most))})


def chosen(trials: Trials, kills: int, errors: int, sizes: int, damage: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each trial and a function that runs it."""
    kinds, total = trials.operations, len(trials.operations)
    if kills:
        for step in range(1, STEPS + 1):
            yield f"killed after step {step}", partial(trials.kill_at_step, step)
    for place, number in enumerate(spread(total, max(0, kills - STEPS))):
        torn = TEAR if kinds[number - 1] == "w" and place % 2 else KILL
        again = 1 + number % (total // 3) if place % 10 == 3 else 0
        name = f"killed {'within' if torn else 'before'} operation {number} ({kinds[number - 1]})"
        yield name + (f" and {again} of the next" if again else ""), partial(trials.kill, number, torn, again)
    for place, number in enumerate(spread(total, errors)):
        answer = REFUSALS[place % len(REFUSALS)]
        name = f"{errno.errorcode[answer]} at operation {number} ({kinds[number - 1]})"
        yield name, partial(trials.refuse, number, answer)
    for size in spread(trials.bytes, sizes):
        yield f"room for {size:,} bytes", partial(trials.starve, size)
    files = sorted(p.name for p in (trials.folder / f"complete/out/checkpoint-{STEPS}").iterdir())
    pairs = [(name, how) for name in files for how in DAMAGE]
    for number in spread(len(pairs), damage):
        name, how = pairs[number - 1]
        yield f"{name} {how}", partial(trials.damage, name, how)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("kills", "errors", "sizes", "damage"):
        parser.add_argument(f"--{name}", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = Trials(options.folder)
    print(json.dumps({"operations": len(trials.operations), "kinds": trials.operations, "bytes": trials.bytes}))
    for name, trial in chosen(trials, options.kills, options.errors, options.sizes, options.damage):
        print(json.dumps({"trial": name, "wrong": trial()}), flush=True)


if __name__ == "__main__":
    main()
