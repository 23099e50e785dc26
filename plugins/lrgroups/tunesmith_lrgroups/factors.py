"""Compute the factors of the learning rate by names of parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from tunesmith import Run
    from tunesmith_lrgroups import LearningRateSettings


def factors(run: Run, model: nn.Module, settings: LearningRateSettings) -> dict[str, float]:
    """Return the factors of the parameters of lr_groups, and of embeddings that no group names.

    Raises ConfigError for a module of a group that is not trained, for a group whose parameters belong to earlier ones,
    and for embedding_lr without trained embeddings.
    """
    rate = run.core.learning_rate
    result: dict[str, float] = {}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    for index, group in enumerate(settings.lr_groups or ()):
        names = [name for name in trained if any(part in name for part in group.modules)]
        own = [name for name in names if name not in result]
        path = ("lr_groups", index, "modules")
        for number, part in enumerate(group.modules):
            if not any(part in name for name in trained):
                some = [name.removeprefix("module.") for name in trained[:: max(1, len(trained) // 3)][:3]]
                help = f"trained parameters are, for example, {', '.join(some)}"
                raise run.config.error((*path, number), f"is in the name of no trained parameter: {part}", help=help)
        if not own:
            message = f"of group {group.name!r} have no effect: earlier groups have all of their parameters"
            raise run.config.error(path, message, help="drop the group, or move it to the front")
        result |= dict.fromkeys(own, group.lr / rate)
    key = "embedding_lr" if settings.embedding_lr is not None else "embedding_lr_scale"
    if (value := getattr(settings, key)) is not None:
        apart = embeddings(model)
        if not apart & set(trained):
            help = "train the embeddings, or drop it"
            raise run.config.error(key, "has no effect: no embedding is trained", help=help)
        factor = value / rate if key == "embedding_lr" else value
        result |= {name: factor for name in trained if name in apart and name not in result}
    return result


def embeddings(model: nn.Module) -> set[str]:
    """Return the names of the parameters in embeddings and in the head that predicts tokens."""
    ids: set[int] = set()
    for module in model.modules():
        parts = [module] if isinstance(module, nn.Embedding) else []
        for getter in ("get_input_embeddings", "get_output_embeddings"):
            try:
                part = getattr(module, getter, lambda: None)()
            except (AttributeError, NotImplementedError):  # a part of a model, such as an encoder of images
                continue
            parts += [part] if isinstance(part, nn.Module) else []
        ids |= {id(p) for part in parts for p in part.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in ids}
