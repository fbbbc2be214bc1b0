"""What a user of a graph needs beside it: names of the labels, and how images and texts become its inputs.

`preprocessing.json` says it in steps that Pillow and numpy can do; `tokenizer.json` is read by the tokenizers library.
Both are tried against the model's own processor before they are written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hf_finetune.data.final_pixels import FinalPixels
from hf_finetune.errors import UserError
from hf_finetune.files import write_whole
from hf_finetune.outputs import KEY, Rule

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace
    from hf_finetune.evaluation.predictor import Predictor

PREPROCESSING = "preprocessing.json"
_NAMES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_SIZES = (
    (75, 50),
    (40, 40),
    (181, 240),
    (500, 333),
    (240, 181),
    (257, 333),
)  # of the images that the steps are tried on
_MOST = 2.5  # levels of 0 to 255 that Pillow's and torch's rounding may differ by, where edges are sharp
_NO_LIMIT = 1_000_000


def write_labels(labels: LabelSpace, folder: Path, rule: Rule) -> None:
    """Write labels.json: problem_type and names, in the order of the outputs; or tasks with both, one after another.

    A temperature, thresholds or sets stand under `hf_finetune`, as in config.json: the graph gives plain logits.
    """
    if labels.tasks:
        told: dict[str, Any] = {"tasks": labels.for_the_model()}
    else:
        told = {"problem_type": labels.problem_type, "names": list(labels.names)}
    if held := rule.written():
        told[KEY] = held
    write_whole(folder / "labels.json", _json(told))


def write_inputs(predictor: Predictor, names: list[str], folder: Path) -> str | None:
    """Write preprocessing.json, and tokenizer.json for texts.

    Args:
        predictor: the finished model.
        names: of the graph's inputs.
        folder: of the graph.

    Returns:
        why it could not be said, so that nothing was written; None where it was.
    """
    try:
        if predictor.task == "image-classification":
            steps: dict[str, Any] = {"inputs": names, **image_steps(predictor.loaded.processor)}
        else:
            limit = _write_tokenizer(predictor, folder)
            steps = {"inputs": names, "max_length": limit}
    except UserError as fault:
        (folder / PREPROCESSING).unlink(missing_ok=True)
        return str(fault)
    write_whole(folder / PREPROCESSING, _json(steps))
    return None


def image_steps(processor: Any) -> dict[str, Any]:
    """How a processor makes an image: resize, crop, scale and offset of each channel.

    Raises:
        UserError: it does something that these steps cannot say.
    """
    try:
        final = FinalPixels(processor)
    except (UserError, ValueError, RuntimeError) as fault:
        raise UserError(f"the processor's steps are not resize, crop and a linear scale ({fault})") from fault
    resize, crop, resample = _timm(processor) if hasattr(processor, "data_config") else _transformers(processor)
    steps = {
        "mode": "RGB",
        "resize": resize,
        "resample": _NAMES[resample],
        "crop": crop,
        "scale": final.scale.flatten().tolist(),
        "offset": final.offset.flatten().tolist(),
    }
    # An odd number of pixels to crop: torchvision rounds half of it, transformers leaves half a pixel out.
    tried = [{**steps, "half_pixel": half} for half in (("round", "int") if crop else ("int",))]
    gaps = [_gap(final, way) for way in tried]
    best = int(np.argmin(gaps))
    if gaps[best] > _MOST:
        raise UserError(f"the processor's pixels differ from its settings' by {gaps[best]:.0f} levels of 255")
    return tried[best]


def _gap(final: FinalPixels, steps: dict[str, Any]) -> float:
    """The largest difference of pixels from the processor's, in levels of 0 to 255; infinite for another size."""
    rng = np.random.default_rng(0)
    largest = 0.0
    for size in _SIZES:
        coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        image = coarse.resize(size, Image.Resampling.BICUBIC)
        [expected] = final.pixels([image])
        found = prepared(image, steps)
        if found.shape != tuple(expected.shape):
            return float("inf")
        largest = max(largest, float((np.abs(found - expected.numpy()) / np.abs(final.scale.numpy())).max()))
    return largest


def prepared(image: Image.Image, steps: dict[str, Any]) -> np.ndarray:
    """An image of mode RGB as float32 (3, H, W), as docs/export.md does it."""
    width, height = image.size
    resize = steps["resize"]
    if resize is not None:
        if "shortest_edge" in resize:
            edge, least = resize["shortest_edge"], min(width, height)
            size = (edge * width // least, edge * height // least)
        else:
            size = (resize["width"], resize["height"])
        image = image.resize(size, Image.Resampling[steps["resample"].upper()])
    if steps["crop"] is not None:
        down, across = steps["crop"]
        whole = round if steps["half_pixel"] == "round" else int
        left, top = whole((image.width - across) / 2), whole((image.height - down) / 2)
        image = image.crop((left, top, left + across, top + down))
    levels = np.asarray(image, dtype=np.float32) * np.float32(steps["scale"]) + np.float32(steps["offset"])
    return levels.transpose(2, 0, 1)


Steps = tuple[dict[str, int] | None, list[int] | None, int]


def _transformers(processor: Any) -> Steps:
    size = dict(getattr(processor, "size", None) or {})
    crop = dict(getattr(processor, "crop_size", None) or {}) if getattr(processor, "do_center_crop", False) else {}
    share = getattr(processor, "crop_pct", None)
    if share is not None and size.get("shortest_edge", 1000) < 384:  # ConvNeXt's
        crop = {"height": size["shortest_edge"], "width": size["shortest_edge"]}
        size = {"shortest_edge": int(size["shortest_edge"] / share)}
    elif share is not None:
        size = {"height": size["shortest_edge"], "width": size["shortest_edge"]}
    known = [{"height", "width"}, {"shortest_edge"}]
    if getattr(processor, "do_resize", False) and set(size) not in known:
        raise UserError(f"the processor resizes to {size}")
    resample = getattr(processor, "resample", None)
    return (
        {name: int(side) for name, side in size.items()} if getattr(processor, "do_resize", False) else None,
        [int(crop["height"]), int(crop["width"])] if crop else None,
        2 if resample is None else int(resample),
    )


def _timm(processor: Any) -> Steps:
    from torchvision import transforms

    resize: dict[str, int] | None = None
    crop, resample = None, 2
    words = {name: number for number, name in _NAMES.items()}
    for step in processor.val_transforms.transforms:
        if isinstance(step, transforms.Resize):
            square = isinstance(step.size, int) or len(step.size) == 1
            edge = step.size if isinstance(step.size, int) else step.size[0]
            resize = {"shortest_edge": edge} if square else {"height": step.size[0], "width": step.size[1]}
            resample = words[step.interpolation.value]
        elif isinstance(step, transforms.CenterCrop):
            crop = [int(side) for side in step.size]
    return resize, crop, resample


def _write_tokenizer(predictor: Predictor, folder: Path) -> int | None:
    """Write tokenizer.json that cuts and pads by itself; the most tokens of a text."""
    from tokenizers import Tokenizer

    tokenizer = predictor.loaded.processor
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(f"{type(tokenizer).__name__} is no tokenizer of the tokenizers library")
    own = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else None
    limit = predictor.max_length or own
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    if limit is not None:
        backend.enable_truncation(limit)
    backend.enable_padding(
        direction=tokenizer.padding_side, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
    )
    for text in ("a", "It is a long text, longer than the limit. " * 200):
        found = backend.encode(text).ids
        if found != tokenizer(text, truncation=limit is not None, max_length=limit)["input_ids"]:
            raise UserError("the tokenizer does more than its tokenizer.json says")
    write_whole(folder / "tokenizer.json", backend.to_str(pretty=True))
    return limit


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
