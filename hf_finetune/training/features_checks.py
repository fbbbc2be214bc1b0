"""Whether a model's output layer can hold a fit on what it receives: `strategy=features`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from hf_finetune.errors import UserError
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.model.custom_layers import MlpHead, Pooling
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.batch_rows import rows_in_words

if TYPE_CHECKING:
    from hf_finetune.model import LoadedModel
    from hf_finetune.training.setup import Samples
    from hf_finetune.training.trainer import FinetuneTrainer

_LOOKED_AT = 4  # rows on which the output layer is checked to be a linear function of the features


def check_layer(model: Any, name: str, loaded: LoadedModel, recipe: Recipe) -> None:
    """Refuses random layers before the output layer, and output layers that cannot hold a fit.

    Raises:
        UserError: what stands there, and how to have the output layer on the backbone itself.
    """
    pools = {key for key, module in model.named_modules() if isinstance(module, Pooling)}
    random = [
        parameter
        for parameter in loaded.fresh
        if not parameter.startswith(f"{name}.") and parameter.rpartition(".")[0] not in pools
    ]
    remedy = "Give model.pooling=mean, which puts the output layer on the backbone itself."
    if random:
        layers = ", ".join(dict.fromkeys(parameter.rpartition(".")[0] for parameter in random))
        raise UserError(
            f"strategy=features: {recipe.model.checkpoint} has no weights for {layers}, which stands between its "
            f"features and the output layer, and nothing would train it. {remedy}"
        )
    layer = own_layer(model.get_submodule(name))
    linear = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    if not linear or layer.bias is None:
        what = f"is {type(layer).__name__}" if not linear else "has no bias"
        raise UserError(
            f"strategy=features needs a linear output layer with a bias, and {name} of {type(model).__name__} {what}. "
            f"{remedy}"
        )


def check_linear(
    model: Any, name: str, features: np.ndarray, samples: Samples, device: torch.device, recipe: Recipe
) -> None:
    """Some models do more behind the output layer; then a fit put into it would answer otherwise.

    Raises:
        UserError: the outputs are not the output layer's product with the features.
    """
    rows: Any = Subset(samples.train, range(min(_LOOKED_AT, len(features))))
    answered = predict_logits(model, rows, samples.collate, _LOOKED_AT, device)
    layer = own_layer(model.get_submodule(name))
    weight = layer.weight.detach().flatten(1).cpu().double().numpy()
    expected = None
    if features.shape[1] == weight.shape[1]:
        expected = features[: len(answered)] @ weight.T + layer.bias.detach().cpu().double().numpy()
    if expected is None or not np.allclose(answered, expected, rtol=1e-2, atol=1e-2 * np.abs(answered).max()):
        raise UserError(
            f"strategy=features: {recipe.model.checkpoint} ({type(model).__name__}) does more to its features than "
            f"{name} does, so that a fit cannot take its place. Give model.pooling=mean, or use strategy=head."
        )


def own_layer(layer: Any) -> Any:
    """The linear layer itself, inside a head of ours."""
    return layer.output if isinstance(layer, MlpHead) and len(layer.stack) == 1 else layer


def check_finite(trainer: FinetuneTrainer, features: Mapping[str, np.ndarray]) -> None:
    """Raise a UserError where features of a split, (N, width), are no numbers; it names their rows."""
    for split, rows in features.items():
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise UserError(
                f"The features of {rows_in_words(trainer, bad, split)} are no numbers: look for extreme inputs in "
                "these rows, or for such weights in the checkpoint."
            )
