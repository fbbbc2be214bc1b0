"""What a recipe changes in a checkpoint, in order: depth, positions and channels, activation and noise, new weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from hf_finetune.model.surgery.activation import swap_activation
from hf_finetune.model.surgery.batch_norm import check_batch_norm, has_statistics
from hf_finetune.model.surgery.blocks import drop_blocks
from hf_finetune.model.surgery.channels import set_channels
from hf_finetune.model.surgery.depth import cut_to_depth
from hf_finetune.model.surgery.dropout import set_drop_path, set_dropout
from hf_finetune.model.surgery.fresh_blocks import reinit_blocks
from hf_finetune.model.surgery.image_size import set_image_size
from hf_finetune.model.surgery.positions import set_max_length
from hf_finetune.model.surgery.rebuild import Patient

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Model


@dataclass(frozen=True)
class Operated:
    """A model after surgery.

    Args:
        net: the model; the one that was given where nothing was asked for.
        processor: image processor or tokenizer that goes with it.
        fresh: names of the parameters that are not from the checkpoint, as they were given, by their new names.
        renewed: names of the parameters of the blocks that were drawn anew.
        changes: what was changed, in words.
    """

    net: PreTrainedModel
    processor: Any
    fresh: set[str]
    renewed: tuple[str, ...]
    changes: tuple[str, ...]


def operate(
    net: PreTrainedModel,
    processor: Any,
    model: Model,
    *,
    fresh: set[str],
    seed: int,
    scratch: bool = False,
    layer: str | int = "last",
) -> Operated:
    """Changes a loaded model as the recipe says, before it gets its head.

    Args:
        net: a model of transformers or a timm model in its wrapper, with the checkpoint's weights.
        processor: its processor; may be changed in place.
        model: the recipe's model section.
        fresh: names of the parameters that the checkpoint lacks.
        seed: of everything drawn.
        scratch: all weights are random: those of another shape are drawn, not made of the old ones.
        layer: the model ends after this block; see `cut_to_depth`.

    Raises:
        UserError: the family cannot be changed so.
    """
    patient = Patient(net, model.checkpoint, scratch, seed, frozenset(fresh))
    said: list[str | None] = []
    if layer != "last":
        patient, words = cut_to_depth(patient, layer)
        said.append(words)
    if model.drop_blocks is not None:
        patient, change = drop_blocks(patient, model.drop_blocks)
        said.append(change)
    if model.image_size is not None:
        patient, processor, words = set_image_size(patient, processor, model.image_size)
        said.append(words)
    if model.in_channels is not None:
        patient, processor, words = set_channels(patient, processor, model.in_channels, model.stem_weights)
        said.append(words)
    if model.max_length is not None:
        patient, words = set_max_length(patient, processor, model.max_length)
        said.append(words)
    if model.activation is not None:
        patient, words = swap_activation(patient, model.activation)
        said.append(words)
    if model.dropout is not None:
        patient, change = set_dropout(patient, model.dropout)
        said.append(change)
    if model.drop_path is not None:
        patient, change = set_drop_path(patient, model.drop_path)
        said.append(change)
    said.append(_statistics(patient, model))
    renewed: tuple[str, ...] = ()
    if model.reinit_blocks is not None:
        renewed, change = reinit_blocks(patient, model.reinit_blocks)
        said.append(change)
    return Operated(patient.net, processor, set(patient.fresh), renewed, tuple(line for line in said if line))


def _statistics(patient: Patient, model: Model) -> str | None:
    """Whether BatchNorm is held still, in words: `still_batch_norms` does it when the strategy is applied."""
    if model.batch_norm is not None:
        check_batch_norm(patient.net, f"model.batch_norm={model.batch_norm}", patient.kind)
    if model.batch_norm_momentum is not None:
        check_batch_norm(patient.net, f"model.batch_norm_momentum={model.batch_norm_momentum:g}", patient.kind)
    if model.batch_norm != "frozen":
        return None
    layers = sum(has_statistics(module) for module in patient.net.modules())
    return f"statistics of {layers} BatchNorm layers stay the checkpoint's"
