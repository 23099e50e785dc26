"""Runs that are killed, refused or starved of room at chosen file operations, and then started again.

    LD_PRELOAD=faults.so python tests/fire/trials.py FOLDER [--kills N] [--errors N] [--sizes N] [--damage]

Each trial is the same small run in a forked child: it ends at its n-th file operation (or step), is looked at, and is
started again by the same command, after which everything has to be as if nothing had happened. Prints one line of JSON
for each trial; see tests/fire/test_fire.py for what the shared library is.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
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
from tunesmith_engine.runtime.atomic import complaint

from tests import tiny

STEPS = 4
KILL, TEAR = 0, -1
REFUSALS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES)
libc = ctypes.CDLL(None)


class Trials:
    """A run in `folder`/run, what it ends with when nothing happens, and what happens to it."""

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
        shutil.copytree(self.place, folder / "whole")

    def clean(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def result(self) -> tuple[Any, list[tuple[int, float]]]:
        return tiny.weights(self.out), [(line["step"], line["loss"]) for line in tiny.metrics(self.out)]

    def count(self) -> str:
        """A first letter for each file operation of the whole run, in order."""
        kinds = self.folder / "kinds"

        def counted() -> int:
            code = self.armed(0, KILL)()
            number = libc.faults_count()
            kinds.write_text("".join(chr(libc.faults_kind(i)) for i in range(number)))
            return code

        assert self.child(counted) == 0, self.said()
        return kinds.read_text()

    # one child

    def child(self, action: Callable[[], Any]) -> int:
        """Run it in a fork, what it prints kept in a file; its exit code, minus the signal if one killed it."""
        if (pid := os.fork()) == 0:
            code = 1
            try:
                with (self.folder / "said").open("w") as said:
                    os.dup2(said.fileno(), 1)
                    os.dup2(said.fileno(), 2)
                code = int(action() or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")

    def command(self, before: Callable[[], Any] = lambda: None) -> Callable[[], int]:
        """`tunesmith train run.yaml` as a function that gives its exit code."""

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

    # what has to hold

    def sound(self) -> list[str]:
        """What is wrong after a fault: every checkpoint has to be whole, and at most one step lost."""
        found = [f"{path.name} {why}" for _, path in numbered(self.out) if (why := complaint(path))]
        with contextlib.suppress(OSError, ValueError):
            told = [line["step"] for line in tiny.metrics(self.out)]
            newest = max((step for step, _ in numbered(self.out)), default=0)
            if told and newest < max(told) - 1:
                found.append(f"step {max(told)} was done and the newest checkpoint is of step {newest}")
        return found

    def goes_on(self) -> list[str]:
        """What is wrong after the same command, started again: it has to end as if nothing had happened."""
        code = self.child(self.command())
        if code:
            return [f"the next start ended with {code}: {self.said()[-600:]}"]
        weights, losses = self.result()
        found = [] if losses == self.losses else ["other losses"]
        if weights.keys() != self.weights.keys() or not all(torch.equal(weights[k], self.weights[k]) for k in weights):
            found.append("other weights")
        left = [p.name for p in self.place.rglob("*") if p.name.endswith((".partial", ".old", ".tmp"))]
        return found + ([f"left behind: {', '.join(left)}"] if left else [])

    # kinds of trials

    def kill(self, number: int, action: int, again: int = 0) -> list[str]:
        """Killed at operation `number` (torn: in the middle of that write), and perhaps once more when going on."""
        self.clean()
        code = self.child(self.armed(number, action))
        found = [] if code == -signal.SIGKILL else [f"ended with {code}: {self.said()[-300:]}"]
        found += self.sound()
        if again:
            self.child(self.armed(again, KILL))
            found += self.sound()
        return found + self.goes_on()

    def kill_at_step(self, step: int) -> list[str]:
        """Killed after an update, before anything of it is written."""
        from tunesmith_engine.training.loop import Loop

        honest = Loop.step

        def deadly(loop: Loop) -> Any:
            record = honest(loop)
            if record.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return record

        self.clean()
        code = self.child(self.command(lambda: setattr(Loop, "step", deadly)))
        return ([] if code == -signal.SIGKILL else [f"ended with {code}"]) + self.sound() + self.goes_on()

    def refuse(self, number: int, answer: int) -> list[str]:
        """The disk answers operation `number` with an error: the run says so and ends, or does without it."""
        self.clean()
        return self.ended(self.child(self.armed(number, answer))) + self.goes_on()

    def starve(self, room: int) -> list[str]:
        """A disk with room for so many bytes, of which there is enough when the run is started again."""
        self.clean()
        return self.ended(self.child(self.armed(0, KILL, room))) + self.goes_on()

    def ended(self, code: int) -> list[str]:
        said, found = self.said(), self.sound()
        if code not in (0, 5):
            found.append(f"ended with {code}: {said[-600:]}")
        if code == 5 and not ("could not be written" in said and "help:" in said):
            found.append(f"does not say what to do: {said[-300:]}")
        if "Traceback" in said:
            found.append("shows a traceback")
        left = [p.name for p in self.out.glob(".checkpoint-*")]
        return found + ([f"left behind: {', '.join(left)}"] if left and code else [])

    def damage(self, name: str, how: str) -> list[str]:
        """A file of the newest checkpoint is not as it was written."""
        shutil.rmtree(self.place)
        shutil.copytree(self.folder / "whole", self.place)
        for file in (self.out / "model.safetensors", self.out / "run.json"):
            file.unlink()
        newest = self.out / f"checkpoint-{STEPS}"
        spoil(newest / name, how)
        found = self.goes_on()
        notes = json.loads((self.out / "run.json").read_text())["notes"]
        if f"{newest.name} " not in notes.get("checkpoints passed over", ""):
            found.append(f"not said: {notes}")
        if notes.get("resumed from") != f"checkpoint-{STEPS - 1}":
            found.append(f"resumed from {notes.get('resumed from')}")
        return found


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
    """So many whole numbers from 1 to `most`, evenly."""
    return sorted({1 + round(i * (most - 1) / max(number - 1, 1)) for i in range(min(number, most))})


def chosen(trials: Trials, kills: int, errors: int, sizes: int, damage: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The trials: each with a name."""
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
    files = sorted(p.name for p in (trials.folder / f"whole/out/checkpoint-{STEPS}").iterdir())
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
