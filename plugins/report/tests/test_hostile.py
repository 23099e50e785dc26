"""Data is shown as text, secrets are replaced, and the page loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from tunesmith_report.page import render

from plugins.report.tests.run_folders import COUNTS, LINES, RECORD, SAMPLES, Page, folder, page

HOSTILE = """</script></style></textarea>--><script>alert(1)</script><img src=x onerror="alert(1)">'" onload='x'"""


def test_markup_in_samples_metrics_notes_and_config_stays_text(tmp_path: Path) -> None:
    plain = page(folder(tmp_path / "plain", RECORD | {"status": "failed"}, crash="Why"))
    record = json.loads(json.dumps(RECORD).replace("some/model", json.dumps(HOSTILE)[1:-1]))
    record |= {"status": "failed", "notes": {HOSTILE: HOSTILE}, "muted": {"board": HOSTILE}, "processes": HOSTILE}
    record |= {"plugins": [{"name": HOSTILE, "distribution": HOSTILE, "version": HOSTILE}] * 2}
    record |= {"patches": [{"target": HOSTILE, "owner": HOSTILE, "applied": HOSTILE}], "versions": {HOSTILE: HOSTILE}}
    record |= {"data": {HOSTILE: COUNTS | {"first": {"too_long": [HOSTILE], "truncated": [HOSTILE]}}}}
    record |= {"hook_seconds": {f"{HOSTILE}.{HOSTILE}": 1.0}, "config": {HOSTILE: HOSTILE, "base_model": HOSTILE}}
    samples = [s | {"prompt": HOSTILE, "completion": HOSTILE, "when": f"{s['when']} {HOSTILE}"} for s in SAMPLES]
    lines = [{f"{k}{HOSTILE}" if k == "tokens_per_second" else k: v for k, v in line.items()} for line in LINES]
    path = folder(tmp_path / "hostile", record, lines, samples, crash=HOSTILE)
    hostile = page(path, written={HOSTILE: HOSTILE}, method=HOSTILE, file=HOSTILE)
    allowed = {tag for tag, _ in plain.elements} | {"table", "span", "b", "details", "summary"}
    assert {tag for tag, _ in hostile.elements} <= allowed
    assert [tag for tag, _ in hostile.elements].count("script") == 1
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]
    assert hostile.text.count("<script>alert(1)</script>") > 20


def test_control_characters_and_lone_surrogates_are_escaped(tmp_path: Path) -> None:
    samples = [s | {"completion": "a\x00\x1b[31m\ud800b\r\nc"} for s in SAMPLES]
    text = render(folder(tmp_path, samples=samples), now=1.8e9)
    assert "a\\x00\\x1b[31m" in text and not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    text.encode("utf-8", "replace")


def test_no_secret_reaches_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, token = 's3cr3t-<of>-"a"-server', "hf_" + "A1b2C3d4" * 4
    monkeypatch.setenv("MY_TOKEN", secret)
    for number, value in enumerate((secret, token)):
        record = RECORD | {"status": "failed", "notes": {value: value}, "stopped": value, "muted": {"board": value}}
        record["config"] = RECORD["config"] | {"key": value, "deep": [{"er": value}]}
        edge = "x" * 2989 + " " + value  # the text is cut inside the secret
        samples = [s | {"prompt": f"{value} {s['prompt']}", "completion": edge} for s in SAMPLES]
        lines = [line | {value: 1.0} for line in LINES]
        path = folder(tmp_path / str(number), record, lines, samples, crash=f"KeyError: {value}")
        text = render(path, {"file": value, "written": {"key": value}}, now=1.8e9)
        shown = f"{text} {Page(text).text}"
        assert value not in shown and "s3cr3t" not in shown and "hf_A1b2" not in shown and "***" in shown


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text = render(folder(tmp_path), now=1.8e9)
    targets = [
        a[k] or "" for _, a in Page(text).elements for k in ("src", "href", "srcset", "action", "data") if k in a
    ]
    assert targets and all(t.startswith(("#", "data:,")) or t in
                           ("run.json", "metrics.jsonl", "samples.jsonl", "crash.txt") for t in targets)  # fmt: skip
    assert "@import" not in text and "url(" not in text and "fetch(" not in text and "://" not in text


def test_the_policy_allows_only_the_script_of_the_page(tmp_path: Path) -> None:
    text = render(folder(tmp_path), now=1.8e9)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [a["content"] or "" for t, a in Page(text).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
