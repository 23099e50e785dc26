"""`verify` reports a model that breaks a promise of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from tunesmith_engine.preflight.verify import DIVIDED

from tests import tiny
from tests.contract.fakes import local_plugin
from tunesmith import NumericalError, PluginError
from tunesmith.api import prepare, verify


def test_leak_between_examples_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with its own attention would apply plain causal attention to the pack."""

    def leaking(q: Any, k: Any, v: Any, tree_mask: Any, **options: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])

    monkeypatch.setattr("tunesmith_hf.attention.attend_slices", leaking)
    with pytest.raises(NumericalError, match=r"packed = plain forward.*shared = repeated") as error:
        verify(prepare(tiny.start(tiny.sft_config(tmp_path))))
    assert error.value.exit_code == 7


def test_wrong_head_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test adds a scaling of the logits that is unknown to the engine."""
    monkeypatch.setattr("tunesmith_hf.model.HFLanguageModel.logits", lambda self, h: 2.0 * self.module.lm_head(h))
    with pytest.raises(NumericalError, match="packed = plain forward"):
        verify(prepare(tiny.start(tiny.sft_config(tmp_path))))


PLUGINS = Path(__file__).parents[1] / "contract/plugins"


def test_term_that_divides_by_its_own_micro_batch_is_an_error_that_names_its_plugin(tmp_path: Path) -> None:
    """Two other wrappers, one inside and one outside of it, are not named."""
    names = ("topk", "means", "whole")
    assert len((PLUGINS / "means.py").read_text().splitlines()) <= 40
    path = tiny.sft_config(tmp_path, plugins=[str(PLUGINS / f"{name}.py") for name in names])
    with pytest.raises(NumericalError, match=r"1 x n = n x 1.*; it is mean of plugin means .*means.py:8") as error:
        verify(prepare(tiny.start(path)))
    assert [row["check"] for row in error.value.rows if not row["ok"]] == [DIVIDED]  # type: ignore[attr-defined]
    verify(prepare(tiny.start(path, f"plugins=[{PLUGINS / 'topk.py'}, {PLUGINS / 'whole.py'}]")))


@pytest.mark.parametrize("keys", [{}, {"precompute_ref_log_probs": True}], ids=["copied", "precomputed"])
def test_method_with_a_reference_is_rehearsed(keys: dict[str, Any], tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 6))
    entry = {"path": str(data), "type": "plain_pair"}
    path = tiny.sft_config(tmp_path, plugins=[str(PLUGINS / "pairs.py")], rl="pairs", datasets=[entry], **keys)
    rows = {row["check"]: row for row in verify(prepare(tiny.start(path)))}
    assert rows[DIVIDED]["ok"] and rows["method, shared = repeated prompts"]["ok"]
    assert not list(tmp_path.rglob(".verify-*")) and not (tmp_path / "out").exists()


def test_unsaved_or_changed_weights_are_errors(tmp_path: Path) -> None:
    value = tiny.sft_config(tmp_path, plugins=[str(PLUGINS / "unsaved.py")])
    with pytest.raises(PluginError, match="not saved by any plugin"):
        verify(prepare(tiny.start(value)))
    source = (
        "plugin = Plugin(after=['hf'])\n@hookimpl\ndef save_model(path):\n    from safetensors import torch as st\n"
        "    file = path / 'model.safetensors'\n"
        "    st.save_file({name: value * 2 for name, value in st.load_file(file).items()}, file)\n"
    )
    path = tiny.sft_config(tmp_path, plugins=[str(local_plugin(tmp_path, "doubled", source))])
    with pytest.raises(NumericalError, match=r"exported = trained weights: 1.00e"):
        verify(prepare(tiny.start(path)))
