"""Keep finished chunks of the round in progress on disk.

A run that is killed during a round resumes from a checkpoint before it, with the same weights, random numbers and
prompts. What it had generated is then read from the run folder instead of being generated again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tunesmith.config.config import digest
from tunesmith.run import Run
from tunesmith_engine.model.generation import Completion, Generator, Request
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.runtime.atomic import flush, writing

ARRAYS = ("tokens", "logps", "weights", "sampled", "versions")
FOLDER = "rollouts"


class Journal:
    """The finished chunks of this process: one file each, in `output_dir/rollouts/round-N`."""

    def __init__(self, output_dir: Path, rank: int):
        self.folder = output_dir / FOLDER
        self.rank = rank

    def path(self, number: int, chunk: int) -> Path:
        return self.folder / f"round-{number}" / f"rank-{self.rank}-chunk-{chunk}.safetensors"

    def read(self, number: int, chunk: int, identity: str) -> list[list[Completion]] | None:
        """Return the completions of a chunk; None if they are absent, damaged, or of another `identity`."""
        path = self.path(number, chunk)
        try:
            with safe_open(path, "np") as file:
                header = json.loads((file.metadata() or {})["chunk"])
                if header["identity"] != identity:
                    return None
                arrays = {name: file.get_tensor(name) for name in ARRAYS}
            ends = np.cumsum(header["lengths"])
            parts = {name: np.split(array, ends[:-1]) for name, array in arrays.items()}
            completions = iter(
                Completion(finish_reason=reason, **{name: parts[name][i] for name in ARRAYS})
                for i, reason in enumerate(header["reasons"])
            )
            return [[next(completions) for _ in range(n)] for n in header["groups"]]
        except (OSError, ValueError, LookupError, TypeError, SafetensorError, StopIteration):
            return None

    def write(self, number: int, chunk: int, identity: str, groups: list[list[Completion]]) -> None:
        """Write a chunk, so that after a power cut the file is complete or absent. Raises EnvironmentProblem."""
        path = self.path(number, chunk)
        completions = [c for group in groups for c in group]
        header = {
            "identity": identity,
            "groups": [len(group) for group in groups],
            "lengths": [len(c.tokens) for c in completions],
            "reasons": [c.finish_reason for c in completions],
        }
        types = (np.int32, np.float32, np.float32, np.bool_, np.int32)
        arrays = {
            name: np.concatenate([np.asarray(getattr(c, name), kind) for c in completions] or [np.zeros(0, kind)])
            for name, kind in zip(ARRAYS, types, strict=True)
        }
        partial = path.with_suffix(".partial")
        with writing("completions", self.folder, "make room; then resume_from_checkpoint: auto resumes"):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(arrays, partial, metadata={"chunk": json.dumps(header)})
            flush(partial)
            os.replace(partial, path)
            flush(path.parent)

    def clear(self) -> None:
        """Delete all rounds."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget(self, before: int) -> None:
        """Delete the rounds before a number: a checkpoint contains what is left of them."""
        for folder in self.folder.glob("round-*"):
            number = folder.name.removeprefix("round-")
            if number.isdecimal() and int(number) < before:
                shutil.rmtree(folder, ignore_errors=True)


def weight_bits(policy: Policy) -> int:
    """Return a sum over the bits of the trained weights of this process, which is as fast as reading them.

    It only has to notice that a run took another course since, not to resist an attack.
    """
    bits = 0
    for parameter in policy.unwrapped.parameters():
        if parameter.requires_grad:
            local: Any = parameter.detach()
            local = local.to_local() if hasattr(local, "to_local") else local
            kind = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}[local.element_size()]
            bits = (bits * 31 + int(local.contiguous().view(kind).sum(dtype=torch.int64))) % 2**64
    return bits


class JournaledGenerator:
    """A generator whose finished chunks are kept on disk until a checkpoint contains the round.

    name: the name of the generator. number: the round in progress; None to keep nothing, as for an evaluation.
    """

    def __init__(self, run: Run, policy: Policy, name: str, generator: Generator, per_chunk: int):
        self.run, self.policy, self.name, self.generator = run, policy, name, generator
        self.per_chunk = per_chunk
        self.journal = Journal(run.output_dir, run.world.rank)
        self.number: int | None = None
        self.weights = 0  # their bits; they do not change while a round is generated
        self.chunks = 0  # of the round so far
        self.kept = 0  # sequences that were read from the journal

    def begin(self, number: int | None) -> None:
        """Begin a round. Chunks are numbered from 0 in it."""
        self.number, self.chunks, self.kept = number, 0, 0
        self.weights = weight_bits(self.policy) if number is not None else 0

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return n completions for each request. Call it on all processes, each with its own requests.

        Chunks are cut by number of sequences, not by time or length, so that a resumed run generates the same batches.
        """
        world = self.run.world
        size = max(1, self.per_chunk // max((request.n for request in requests), default=1))
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        completions: list[list[Completion]] = []
        for index in range(world.maximum(len(parts))):
            part = parts[index] if index < len(parts) else []
            completions += self._chunk(part)
            self.chunks += 1
        return completions

    def _chunk(self, requests: Sequence[Request]) -> list[list[Completion]]:
        if self.number is None:
            return self.generator.generate(requests)
        key = digest([[asdict(request) for request in requests], self.name, self.weights])
        kept = self.journal.read(self.number, self.chunks, key) if requests else []
        # Under sharding a process can generate only together with all others.
        if not self.run.world.maximum(int(kept is None)):
            assert kept is not None
            self.kept += sum(map(len, kept))
            return kept
        completions = self.generator.generate(requests)
        if requests:
            self.journal.write(self.number, self.chunks, key, completions)
        return completions
