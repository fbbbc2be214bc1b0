"""The size of the images that a processor makes."""

from __future__ import annotations

from typing import Any

from PIL import Image

from hf_finetune.errors import UserError


def size_of_processor(processor: Any) -> tuple[int, int] | None:
    """Height and width of what the processor makes of two unlike images; None where they differ, or it fails.

    Args:
        processor: an image processor of transformers, TimmWrapper's included, for any number of channels.
    """
    try:
        made = [
            processor(_image(processor, size), return_tensors="pt")["pixel_values"].shape[-2:]
            for size in ((64, 96), (160, 120))
        ]
    except (ValueError, RuntimeError, TypeError):
        return None
    return (int(made[0][0]), int(made[0][1])) if made[0] == made[1] else None


def _image(processor: Any, size: tuple[int, int]) -> Image.Image:
    """An image of one of the modes that the processor's means fit; sizes do not depend on the number of channels."""
    mean = getattr(processor, "image_mean", None) or getattr(processor, "data_config", {}).get("mean") or [0.5] * 3
    return Image.new({1: "L", 4: "RGBA"}.get(len(mean), "RGB"), size)


def resize_processor(processor: Any, config: Any, size: int, key: str) -> Any:
    """The processor with another final size: what it resizes to and crops from keeps its proportion.

    Args:
        processor: changed in place; timm's is made anew from the configuration.
        config: the model's, already changed.
        size: side in pixels.
        key: what asks for it, for messages.

    Raises:
        UserError: the processor does not make square images of one size.
    """
    if hasattr(processor, "data_config"):
        processor = type(processor)(pretrained_cfg=config.pretrained_cfg, architecture=config.architecture)
    else:
        processor.do_resize = True
        _resize(processor, size)
    made = size_of_processor(processor)
    if made not in (None, (size, size)):
        raise UserError(
            f"{key}: the checkpoint's {type(processor).__name__} then makes images of {made[0]}x{made[1]}. Use another "
            "checkpoint."
        )
    return processor


def _resize(processor: Any, size: int) -> None:
    old = processor.size
    crop = getattr(processor, "crop_size", None)
    side = size
    if getattr(processor, "do_center_crop", False) and crop:
        whole = old.get("shortest_edge") or old.get("height")
        cropped = crop.get("height") or crop.get("shortest_edge")
        side = round(size * whole / cropped) if whole and cropped else size
        processor.crop_size = {"height": size, "width": size}
        keeps_edge = old.get("shortest_edge") is not None
    else:
        # ConvNeXt's crops by itself what its shortest edge is given for; elsewhere images would keep their shape.
        keeps_edge = old.get("shortest_edge") is not None and getattr(processor, "crop_pct", None) is not None
    processor.size = {"shortest_edge": side} if keeps_edge else {"height": side, "width": side}
