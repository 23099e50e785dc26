"""A saved model has a page on what it was made from and how to load it, without secrets and paths of the machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests import tiny


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_the_page_states_the_run_and_its_code_loads_the_model(adapter: str | None, tmp_path: Path) -> None:
    policy = tiny.train(tiny.sft_config(tmp_path, adapter=adapter, number=8, max_steps=2, save_steps=1)).policy
    page = (tmp_path / "out/README.md").read_text()
    assert (tmp_path / "out/checkpoint-2/README.md").read_text() == page
    assert "| steps | 1 of 2 |" in (tmp_path / "out/checkpoint-1/README.md").read_text()
    trained = "a LoRA adapter of rank 16" if adapter else "all weights"
    rows = {"base model": "model-llama", "method": "sft", "trained": trained, "data": "data.jsonl", "steps": "2 of 2"}
    assert all(f"| {key} | {value} |" in page for key, value in rows.items())
    header = yaml.safe_load(page.split("---\n")[1])
    assert header["library_name"] == ("peft" if adapter else "transformers") and "base_model" not in header
    assert f"torch {torch.__version__}" in page and "tunesmith-core " in page and str(tmp_path) not in page
    code = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    places: dict[str, Any] = {}
    code = code.replace('"FOLDER"', repr(str(tmp_path / "out"))).replace('"BASE"', repr(str(tmp_path / "model-llama")))
    exec(code, places)
    ids = torch.arange(30)[None]
    with torch.no_grad(), policy.language_model.attending("sdpa"):
        loaded, trained_model = places["model"], policy.model.eval()
        assert torch.allclose(loaded(input_ids=ids).logits, trained_model(input_ids=ids).logits, atol=1e-4)


def test_secrets_and_line_breaks_do_not_get_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith_engine.checkpoint.card import write_card

    monkeypatch.setenv("MY_TOKEN", "swordfish-1234")
    path = tiny.sft_config(tmp_path, number=2, output_dir=str(tmp_path / "of swordfish-1234 | a\nb"))
    run = tiny.start(path)
    write_card(run, tmp_path, "all weights", "pass", ["transformers"])
    page = (tmp_path / "README.md").read_text()
    assert "# of *** \\| a b\n" in page and "swordfish" not in page


def test_models_and_data_of_the_hub_are_linked(tmp_path: Path) -> None:
    from tunesmith_engine.checkpoint.card import write_card

    data = [{"path": "owner/rows", "type": "chat_template"}]
    run = tiny.start(tiny.sft_config(tmp_path, base_model="owner/model", datasets=data, number=2))
    write_card(run, tmp_path, "all weights", "pass", ["transformers"])
    header = yaml.safe_load((tmp_path / "README.md").read_text().split("---\n")[1])
    assert (header["base_model"], header["datasets"]) == ("owner/model", ["owner/rows"])
