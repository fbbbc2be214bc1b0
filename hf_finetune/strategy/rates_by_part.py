"""Rates that differ along the depth of a model: layer-wise decay, and zones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.model.anatomy import Anatomy

Zones = tuple[float, float, float]


def by_depth(
    anatomy: Anatomy, head: float, layer_decay: float | None = None, zones: Zones | None = None
) -> dict[str, float]:
    """Rate multipliers of a model's parts; decay and zones multiply.

    Args:
        anatomy: the model's parts.
        head: multiplier of the head.
        layer_decay: each block takes this times the rate of the block above it, the top block 1 and the stem one step
            below the first block (Clark et al. 2020, arXiv:2003.10555; Bao et al. 2021, arXiv:2106.08254).
        zones: multipliers of the base, middle and top thirds of the blocks; see `zone_of`.

    Returns:
        A multiplier for each part, by its name; 0 freezes.

    Raises:
        UserError: zones for a model with fewer than three blocks.
    """
    count = len(anatomy.blocks)
    if zones is not None and count < 3:
        raise UserError(
            f"strategy.zones: this model has {count} {'block' if count == 1 else 'blocks'}, too few for three zones. "
            "Use strategy.layer_decay, or leave both out."
        )
    decay = 1.0 if layer_decay is None else layer_decay
    base, *_ = zones or (1.0,)
    multipliers = {"stem": base * decay**count}
    for index, block in enumerate(anatomy.blocks):
        zone = 1.0 if zones is None else zones[zone_of(index, count)]
        multipliers[block.name] = zone * decay ** (count - 1 - index)
    return multipliers | {"head": head}


def zone_of(index: int, count: int) -> int:
    """The third of the depth in which a block's middle lies: 0 base (the stem's too), 1 middle, 2 top.

    Args:
        index: of the block, from 0.
        count: of the blocks; 12 are 4 + 4 + 4, 8 are 3 + 2 + 3.
    """
    return 3 * (2 * index + 1) // (2 * count)


def by_parameter(anatomy: Anatomy, multipliers: dict[str, float]) -> dict[str, float]:
    """Multipliers of every parameter of the parts that are named."""
    return {
        name: multipliers[part.name] for part in anatomy.parts if part.name in multipliers for name in part.parameters
    }
