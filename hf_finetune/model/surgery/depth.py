"""`strategy.layer`: a model that ends where the features are wanted."""

from __future__ import annotations

from hf_finetune.errors import UserError
from hf_finetune.model.surgery.blocks import block_names, drop_blocks
from hf_finetune.model.surgery.rebuild import Patient


def cut_to_depth(patient: Patient, layer: str | int) -> tuple[Patient, str | None]:
    """Removes the blocks above one, so that the model's pooled features are that block's.

    What stands behind the blocks (a final norm, a pooler) stays and gets that block's output.

    Args:
        patient: the model.
        layer: "last", "middle" (half of the blocks), or the number of a block, from 1 at the stem.

    Returns:
        The model, and what was done in words; None where nothing had to be.

    Raises:
        UserError: no such block, or the family cannot be cut there.
    """
    count = len(block_names(patient))
    wanted = {"last": count, "middle": max(1, count // 2)}[layer] if isinstance(layer, str) else layer
    if wanted > count:
        raise UserError(
            f"strategy.layer={layer}: {patient.checkpoint} has {count} {'block' if count == 1 else 'blocks'}. Give at "
            "most that many, or last."
        )
    if wanted == count:
        return patient, None
    try:
        cut, _ = drop_blocks(patient, count - wanted)
    except UserError as fault:
        raise UserError(
            f"strategy.layer={layer}: features after block {wanted} of {count} are those of the model without the "
            f"blocks above it, and {patient.kind} of {patient.checkpoint} cannot be cut there: what is behind the "
            "blocks does not take their shape, a stage would have no block, or the depth is fixed in its code. Use "
            "strategy.layer=last."
        ) from fault
    return cut, f"cut after block {wanted} of {count}, whose features are wanted"
