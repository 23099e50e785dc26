"""Train a model of your own: a recurrent network in plain torch, new or as a run of this plugin saved it."""

import torch
from safetensors.torch import load_file, save_file

from tunesmith import Hidden, LanguageModel, Plugin, Settings, hookimpl


class RecurrentSettings(Settings):
    recurrent_size: int = 32


class Recurrent(LanguageModel):
    attention, shares_prompts = "recurrent", False

    def hidden(self, batch, layers, router):
        sequences = self.module[0](batch.input_ids[0]).split(batch.tree_mask.lengths)
        return Hidden(torch.cat([self.module[1](states)[0] for states in sequences if len(states)]), {})

    def logits(self, hidden):
        return self.module[2](hidden)


plugin = Plugin(settings=RecurrentSettings, models=("recurrent",))


@hookimpl
def load_model(run, spec):
    tokens, size = len(run.tokenizer), run.settings(RecurrentSettings).recurrent_size
    with torch.device("meta" if run.abstract else "cpu"):
        layers = torch.nn.Embedding(tokens, size), torch.nn.GRU(size, size), torch.nn.Linear(size, tokens)
    if spec.path != "recurrent://new" and not run.abstract:
        torch.nn.Sequential(*layers).load_state_dict(load_file(f"{spec.path[12:]}/model.safetensors"))
    return Recurrent(torch.nn.Sequential(*layers), tokens, size)


@hookimpl
def save_model(run, policy, path):
    state = policy.state_dict()
    run.world.main and save_file(state, path / "model.safetensors")
