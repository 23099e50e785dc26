"""Output is redacted by the line, and is shown as soon as it can't be the first part of a secret."""

from __future__ import annotations

import io

import pytest

from tunesmith.streams import Redacted


def test_secret_in_several_writes_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ["canary-of-the-hub-1f3a", "hf_abcdefghijklmnop123", "sk-canary-canary-canary-10f", "line-one\nline-two"]
    monkeypatch.setenv("HF_TOKEN", secrets[0])
    monkeypatch.setenv("MY_PRIVATE_KEY", secrets[3])
    for secret in secrets:
        for cut in range(1, len(secret)):
            plain = io.StringIO()
            stream = Redacted(plain)
            for part in ("a ", secret[:cut], secret[cut:], " b\n"):
                stream.write(part)
                stream.flush()
            assert plain.getvalue() == "a *** b\n", (secret, cut)


def test_lines_of_a_private_key_are_redacted_together() -> None:
    plain = io.StringIO()
    stream = Redacted(plain)
    for line in ("-----BEGIN PRIVATE KEY-----", "MIICdgIBADANBg", "-----END PRIVATE KEY-----", "done"):
        print(line, file=stream)
    assert plain.getvalue() == "***\ndone\n"


def test_flush_shows_what_is_no_part_of_a_secret_at_once() -> None:
    plain = io.StringIO()
    stream = Redacted(plain)
    print("step 3/10", end="", file=stream, flush=True)
    assert plain.getvalue() == "step 3/10"
