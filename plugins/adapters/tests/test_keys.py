"""Options are known without peft, equal those of the installed peft, and are refused where they have no effect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tunesmith_adapters.checks
from tunesmith_adapters.settings import REFUSED, TYPES, AdaptersSettings, options_of

from tests import tiny
from tests.repo.source import ROOT
from tunesmith import ConfigError, EnvironmentProblem, ModelError, build_policy, load_config
from tunesmith.api import prepare


@pytest.mark.slow
def test_types_json_is_that_of_the_installed_peft() -> None:
    command = [sys.executable, ROOT / "tools/adapter_types.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", TYPES)
def test_options_and_defaults_are_described_and_valid(name: str) -> None:
    settings = AdaptersSettings.model_validate({name: {}})
    assert options_of(settings, name) == options_of(AdaptersSettings(), name)
    group = type(getattr(settings, name))
    assert all(field.description and field.description.endswith(".") for field in group.model_fields.values())


@pytest.mark.parametrize("name", REFUSED)
def test_types_that_need_something_else_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sequence|task of each row|second stage|second model"):
        tiny.start(tiny.sft_config(tmp_path, adapter=name))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"adapter": "oft", "vera": {"r": 4}}, "vera has no effect with adapter: oft"),
        ({"adapter": "oft", "oft": {"oft_block_sise": 4}}, "oft_block_size"),
        ({"adapter": "vera", "vera": {"r": "big"}}, "vera.r"),
        ({"adapter": "vera", "vera": {"r": 0}}, "vera.r"),
        ({"adapter": "vera", "vera": {"target_modules": "(q_proj"}}, "is not a regular expression"),
        ({"adapter": "vera", "vera": {"layers_pattern": "h"}}, "has no effect without layers_to_transform"),
        ({"adapter": "trainable_tokens"}, "needs trainable_tokens.token_indices"),
        ({"adapter": "adalora", "adalora": {"init_r": 4, "target_r": 8}}, "needs an init_r above its target_r"),
        ({"adapter": "road", "road": {"variant": "road_3"}}, "road.variant"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(
    keys: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        tiny.start(tiny.sft_config(tmp_path, **keys))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"adapter": "c3a", "c3a": {"block_size": 7}}, "adapter is refused by peft"),
        ({"adapter": "vera", "vera": {"target_modules": ["q_prj"]}}, r"vera.target_modules does not match any module"),
        ({"adapter": "adalora", "adalora": {"tinit": 3, "tfinal": 4}, "max_steps": 5}, "leave no step"),
    ],
)
def test_what_does_not_fit_the_model_or_the_run_is_an_error_of_its_key(
    keys: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        tiny.train(tiny.sft_config(tmp_path, **keys))


def test_a_module_that_is_tied_is_refused_and_a_saved_adapter_of_another_type_too(tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", tie_word_embeddings=True)
    group = {"target_modules": ["lm_head"], "oft_block_size": 8}
    with pytest.raises(ConfigError, match="shares its weight with") as caught:
        build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, adapter="oft", oft=group))))
    assert "oft: {modules_to_save: [lm_head]}" in str(caught.value)
    tiny.train(tiny.sft_config(tmp_path, adapter="vera", vera={"r": 4}, max_steps=1))
    keys = {"adapter_model_dir": str(tmp_path / "out"), "output_dir": str(tmp_path / "next")}
    with pytest.raises(ModelError, match="peft_type must be OFT, got 'VERA'"):
        tiny.start(tiny.sft_config(tmp_path, adapter="oft", **keys))


def test_a_type_whose_library_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunesmith_adapters.checks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"needs sklearn(.|\n)*tunesmith\[adamss\]"):
        tiny.start(tiny.sft_config(tmp_path, adapter="adamss"))


def test_check_imports_neither_torch_nor_peft(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, adapter="vera", vera={"r": 4})
    load_config(path)
    code = (
        "import sys; from tunesmith.config.load import load_config; from tunesmith.api import start\n"
        f"start(load_config({str(path)!r}))\n"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
