"""Whether a configuration asks for more weights than the machine has memory, told without taking any."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from hf_finetune.errors import UserError

_BYTES = 4  # of a weight: models are loaded as float32
_LIKELY = 1 / 4  # of the machine's memory: below it nothing is counted
# Numbers that are no width of a layer.
_NO_WIDTH = ("token_id", "_idx", "seed", "theta", "max_length", "window", "dtype")
_ROWS = ("vocab_size", "max_position_embeddings", "n_positions", "type_vocab_size", "num_labels", "num_classes")


def refuse_if_too_large(auto: Any, config: Any, checkpoint: str, *, trust_remote_code: bool = False) -> None:
    """Refuse a model that memory does not hold, before it is built.

    A guess from the configuration's numbers comes first; only where that is large, the model is built on the meta
    device, without memory, and its weights are counted.

    Args:
        auto: transformers' auto class.
        config: of the checkpoint.
        checkpoint: what the user wrote, for messages.
        trust_remote_code: allow the checkpoint's own code.

    Raises:
        UserError: it is too large, or no model can be made of these numbers.
    """
    memory = psutil.virtual_memory().total
    if _guess(config) * _BYTES < memory * _LIKELY:
        return
    try:
        with torch.device("meta"):
            net = auto.from_config(config, trust_remote_code=trust_remote_code)
        needed = sum(weight.numel() for weight in net.parameters()) * _BYTES
    except (RuntimeError, MemoryError, OverflowError) as fault:
        if isinstance(fault, NotImplementedError) or "meta" in str(fault):  # this model needs real numbers to be built
            return
        # Sizes beyond 64 bits.
        raise UserError(f"{checkpoint}: no model can be built of its config.json: {fault}") from fault
    if needed > memory:
        raise UserError(
            f"{checkpoint}: its config.json asks for {needed / 1e9:,.0f} GB of weights, and this machine has "
            f"{memory / 1e9:,.0f} GB of memory. Its sizes are wrong, or it needs a larger machine."
        )


def _guess(config: Any) -> float:
    """More weights than a transformer of these numbers has: 12 L h^2 + (V + P) h."""
    numbers = _numbers(config.to_dict())
    rows = sum(value for key, value in numbers if key in _ROWS)
    layers = sum(value for key, value in numbers if "layers" in key or "depth" in key)
    unlike = (*_NO_WIDTH, *_ROWS)
    width = max((value for key, value in numbers if not any(part in key for part in unlike)), default=1.0)
    return 12 * max(layers, 1) * width**2 + rows * width


def _numbers(value: Any, key: str = "") -> list[tuple[str, float]]:
    if isinstance(value, bool):
        return []
    if isinstance(value, (int, float)):
        return [(key, float(min(abs(value), 2**63)))]
    if isinstance(value, dict):
        return [found for name, inner in value.items() if name not in ("id2label", "label2id")
                for found in _numbers(inner, str(name))]  # fmt: skip
    if isinstance(value, (list, tuple)):
        return [found for inner in value for found in _numbers(inner, key)]
    return []
