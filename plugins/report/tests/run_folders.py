"""Build the folders of runs, and parse their pages."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tunesmith_report.page import render

COUNTS = {
    "rows": 100, "kept": 96, "too_long": 3, "untrained": 1, "truncated": 7, "split": 0, "examples": 96,
    "tokens": 1000, "trained_tokens": 250, "first": {"too_long": ["data.jsonl:17"], "truncated": ["data.jsonl:4"]},
}  # fmt: skip
RECORD: dict[str, Any] = {
    "status": "done", "step": 20, "total_steps": 20, "stopped": None, "started": 1.7e9, "seconds": 192.0,
    "config": {"base_model": "some/model", "learning_rate": 1e-4, "seed": 42, "datasets": [{"path": "data.jsonl"}]},
    "config_fingerprint": "c0ffee", "data_fingerprint": "decaf", "data": {"datasets[0] data.jsonl": COUNTS},
    "plugins": [{"name": "hf", "distribution": "tunesmith-hf", "version": "0.1.7"},
                {"name": "board", "distribution": "my-board", "version": "3"}],
    "patches": [{"target": "forward of every MLP", "owner": "tiles", "applied": 32}],
    "processes": "FSDP2, 8 x cuda, bfloat16", "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "notes": {"schedule": "stretched from 10 to 20 steps"}, "muted": {"board": "on_step: OSError: full"},
    "peak_memory": 52_000_000,
    "outline": {
        "model": "some/model", "parameters": 984192, "trained_parameters": 9842, "method": "sft", "adapter": "lora",
        "processes": "FSDP2, 8 x cuda, bfloat16", "rows": 100, "rows_kept": 96, "train_examples": 86,
        "eval_examples": 10,
        "tokens": 1000, "trained_tokens": 250, "steps": 20, "steps_per_epoch": 10, "epochs": 2.0, "packs_per_step": 8,
        "packed": True, "sequence_len": 128, "tokens_per_step": 100,
    },
    "hook_seconds": {"hf.load_model": 2.5, "hf.save_model": 0.067}, "hook_calls": {"hf.save_model": 7},
}  # fmt: skip
LINES = [{"step": s, "epoch": s / 10, "loss": 4 / s, "tokens": 100 * s, "tokens_per_second": 5e3} for s in range(1, 21)]
LINES[9]["eval_loss"], LINES[19]["eval_loss"] = 1.25, 0.75
ROUNDS = [("before", 0, "Why?", "because because"), ("step 10", 10, "Why?", "so"), ("after", 20, "Why?", "Therefore.")]
SAMPLES = [dict(zip(("when", "step", "prompt", "completion"), row, strict=True)) for row in ROUNDS]


def folder(path: Path, record: Any = RECORD, lines: Any = LINES, samples: Any = SAMPLES, crash: str = "") -> Path:
    """Write a run's folder with the given files, without those that are None, and return its path."""
    path.mkdir(exist_ok=True)
    if record is not None:
        (path / "run.json").write_text(json.dumps(record), "utf-8")
    for name, objects in (("metrics", lines), ("samples", samples)):
        if objects is not None:
            (path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in objects), "utf-8")
    if crash:
        (path / "crash.txt").write_text(crash, "utf-8")
    return path


class Page(HTMLParser):
    """A parsed page: its elements, its text, and the points of its curves by title."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw_elements: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).replace("\u202f", " ").split())
        self.charts = {
            (title or "").partition(";")[0]: json.loads(points or "")
            for points, title in zip(self.all("figure", "data-points"), self.titles(), strict=True)
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw_elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.raw_elements.pop()

    def handle_data(self, data: str) -> None:
        if not self.raw_elements:
            self.texts.append(data)

    def all(self, tag: str, attribute: str) -> list[str | None]:
        return [attributes[attribute] for name, attributes in self.elements if name == tag and attribute in attributes]

    def titles(self) -> list[str | None]:
        """Return the title of the first drawing of each figure."""
        titles, waiting = [], False
        for tag, attributes in self.elements:
            waiting = waiting or tag == "figure"
            if tag == "svg" and waiting:
                titles.append(attributes["aria-label"])
                waiting = False
        return titles

    def series(self, chart: str, kind: str) -> dict[int, float]:
        [series] = [series for series in self.charts[chart]["series"] if series["kind"] == kind]
        return dict(zip(series["steps"], series["values"], strict=True))


def page(path: Path, **live: Any) -> Page:
    return Page(render(path, live, now=1.8e9))
