"""The loop asks an optimizer for its weights to save, its rate and the bytes of its state, whatever its class is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.contract.fakes import local_plugin

DOUBLED = '''
import torch

from tunesmith import parameter_groups

plugin = Plugin()


class Doubled(torch.optim.SGD):
    """Saves twice the weights that it trains."""

    calls = []

    def eval(self):
        self.calls.append("eval")
        self.scale(2.0)

    def train(self):
        self.calls.append("train")
        self.scale(0.5)

    @torch.no_grad()
    def scale(self, factor):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(factor)

    def learning_rate(self):
        return 0.125

    def state_bytes(self):
        return 123_456


@hookimpl
def build_optimizer(run, model):
    return Doubled(parameter_groups(run, model), lr=run.core.learning_rate)


@hookimpl
def on_end(run):
    run.note("calls", " ".join(Doubled.calls))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doubled")
    local_plugin(folder, "doubled", DOUBLED)
    held = [{"path": str(folder / "data.jsonl"), "type": "chat_template"}]
    keys = {"plugins": ["./doubled.py"], "logging_steps": 1, "max_steps": 2, "number": 8, "test_datasets": held}
    tiny.train(tiny.sft_config(folder, save_steps=1, eval_steps=2, learning_rate=1e-9, **keys))
    return folder


def test_weights_are_switched_around_evaluations_and_saving(folder: Path) -> None:
    notes = json.loads((folder / "out/run.json").read_text())["notes"]
    assert (
        notes["calls"] == "eval train eval train eval train eval"
    )  # a checkpoint, an evaluation, a checkpoint, the end


def test_saved_weights_are_those_to_evaluate(folder: Path) -> None:
    before = tiny.weights(folder / "model-llama")
    for saved in (folder / "out/checkpoint-1", folder / "out"):
        for name, value in tiny.weights(saved).items():
            torch.testing.assert_close(value, 2 * before[name])


def test_the_rate_that_is_logged_and_the_bytes_of_the_state_are_its_own(folder: Path) -> None:
    assert [line["learning_rate"] for line in tiny.metrics(folder / "out")] == [0.125, 0.125]
    record = json.loads((folder / "out/run.json").read_text())
    assert record["outline"]["memory"]["optimizer"] == 123_456


def test_the_stored_state_has_the_names_that_torch_gives_it(tmp_path: Path) -> None:
    """Checkpoints of earlier versions, which torch.distributed.checkpoint named, can still be read."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
    from tunesmith_engine.model.optimizers import named_state

    model = torch.nn.Sequential(torch.nn.Embedding(4, 4), torch.nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model.append(torch.nn.LayerNorm(4))
    optimizer = torch.optim.AdamW([{"params": [p]} for p in model.parameters()], lr=0.1)
    model(torch.arange(4)).sum().backward()
    optimizer.step()
    torchs = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True))
    ours = named_state(model, optimizer)
    assert [group["params"] for group in ours["param_groups"]] == [group["params"] for group in torchs["param_groups"]]
    assert ours["state"].keys() == torchs["state"].keys()
    for name, values in ours["state"].items():
        assert all(value.equal(torchs["state"][name][key]) for key, value in values.items())
