"""A plugin is active beside the one that answers a value of a selector if its switches contain the value."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.fakes import BASE, distribution, error_of, load
from tunesmith.config import switches

COMPANION = """
class Keys(Settings):
    loud: bool = False
plugin = Plugin(settings=Keys, switches=("loud", "adapter: lora"))
@hookimpl
def on_end(): ...
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


@pytest.mark.parametrize("lines", ["adapter: lora", "loud: true", "adapter: lora\nloud: false"])
def test_a_value_or_a_key_activates_it(lines: str, site: Path, tmp_path: Path) -> None:
    distribution(site, "loud", COMPANION)
    config, hooks = load(tmp_path, BASE + lines)
    assert "loud" in hooks.by_name and ("lora" in hooks.by_name) == ("adapter" in lines)
    assert config.selection.selected_by["loud"] == [lines.split(": true", maxsplit=1)[0].split("\n", maxsplit=1)[0]]


def test_another_value_does_not(site: Path, tmp_path: Path) -> None:
    distribution(site, "loud", COMPANION.replace("adapter: lora", "optimizer: lion"))
    _, hooks = load(tmp_path, BASE + "adapter: lora\nloud: false")
    assert "loud" not in hooks.by_name


def test_an_error_says_how_to_activate_it(site: Path, tmp_path: Path) -> None:
    distribution(site, "loud", COMPANION.replace("loud: bool", "volume: int = 1\n    loud: bool"))
    error = error_of(load, tmp_path, BASE + "volume: 3")
    assert "write loud: true or adapter: lora" in str(error)


def test_a_value_whose_companion_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outline = {"switches": ["loud", "adapter: lora"]}
    monkeypatch.setattr(switches, "catalogue", lambda: {"loud": outline})
    error = error_of(load, tmp_path, BASE + "adapter: lora")
    assert "adapter: lora needs the plugin 'loud'" in str(error) and 'pip install "tunesmith[loud]"' in str(error)
    load(tmp_path, BASE + "loud: false")  # off, with or without the plugin
