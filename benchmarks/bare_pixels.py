"""Images for the bare loop: decoded once to uint8 in memory, resized and normalised in batches on the device."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class View:
    """How a checkpoint sees an image: its short side resized, or both; the centre cropped; normalised."""

    resize: int
    crop: int
    squash: bool
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, checkpoint: str) -> View:
        """As the checkpoint's image processor says, or timm's data configuration."""
        from transformers import AutoImageProcessor

        processor: Any = AutoImageProcessor.from_pretrained(checkpoint)
        if hasattr(processor, "data_config"):
            config = processor.data_config
            side = config["input_size"][-1]
            resize = int(side / config["crop_pct"])
            return cls(resize, side, False, config["interpolation"], tuple(config["mean"]), tuple(config["std"]))
        mode = {2: "bilinear", 3: "bicubic"}[int(processor.resample)]
        size = dict(processor.size)
        normal = tuple(processor.image_mean), tuple(processor.image_std)
        if size.get("shortest_edge"):
            crop = dict(processor.crop_size)["height"] if processor.do_center_crop else size["shortest_edge"]
            return cls(size["shortest_edge"], crop, False, mode, *normal)
        return cls(size["height"], size["height"], True, mode, *normal)

    def __call__(self, pixels: torch.Tensor, channels_last: bool) -> torch.Tensor:
        """A batch as the model takes it, (B, 3, crop, crop), from uint8 (B, 3, H, W)."""
        batch = pixels.float()
        if tuple(batch.shape[-2:]) != (self.crop, self.crop):
            height, width = (self.resize, self.resize) if self.squash else self._short_side(*batch.shape[-2:])
            batch = interpolate(batch, size=(height, width), mode=self.mode, antialias=True).clamp_(0, 255)
            top, left = (height - self.crop) // 2, (width - self.crop) // 2
            batch = batch[..., top : top + self.crop, left : left + self.crop]
        mean = torch.tensor(self.mean, device=batch.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=batch.device).view(1, 3, 1, 1) * 255
        batch = (batch - mean) / std
        return batch.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def _short_side(self, height: int, width: int) -> tuple[int, int]:
        short = min(height, width)
        return round(height * self.resize / short), round(width * self.resize / short)


def read(file: Path, view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels, uint8 (N, 3, H, W), and classes, int64 (N,).

    Images of one small size stay as they are; others are resized and cropped while they are decoded.
    """
    table = pq.read_table(file)
    encoded = [row["bytes"] for row in table["image"].to_pylist()]
    labels = torch.tensor(table["label"].to_pylist())
    with Image.open(io.BytesIO(encoded[0])) as first:
        small = max(first.size) <= view.crop and first.size[0] == first.size[1]

    def decode(data: bytes) -> np.ndarray:
        image: Any = Image.open(io.BytesIO(data))
        if not small:
            image.draft("RGB", (view.resize, view.resize))  # JPEG: decodes at a lower resolution
            scale = view.resize / min(image.size)
            size = (view.resize,) * 2 if view.squash else tuple(round(side * scale) for side in image.size)
            image = image.resize(size, Image.Resampling.BILINEAR)
            left, top = ((side - view.crop) // 2 for side in image.size)
            image = image.crop((left, top, left + view.crop, top + view.crop))
        return np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        first_row = decode(encoded[0])
        pixels = np.empty((len(encoded), *first_row.shape), np.uint8)
        for row, image in enumerate(pool.map(decode, encoded, chunksize=64)):
            pixels[row] = image
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), labels
