"""The student's images as its teacher takes them: the same pixels, in another size and normalization."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hf_finetune.data.final_pixels import FinalPixels
from hf_finetune.errors import UserError

# Tensors are resized in these ways alone; the others (lanczos, box, hamming) are nearest to bicubic.
_WAYS = {0: v2.InterpolationMode.NEAREST, 2: v2.InterpolationMode.BILINEAR}


class SamePixels:
    """Turns what a student's processor and augmentation made into what its teacher's processor would have made of it.

    Args:
        student: the student's image processor.
        teacher: the teacher's.

    Raises:
        UserError: one of them has no fixed output size or does not normalize linearly.
    """

    def __init__(self, student: Any, teacher: Any) -> None:
        self.student = _final(student, "the student")
        self.teacher = _final(teacher, "the teacher")

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) of the student's images, and of the teacher's."""
        return (self.student.height, self.student.width), (self.teacher.height, self.teacher.width)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixel_values of the student (N, 3, H, W) as those of the teacher (N, 3, h, w), float32."""
        here, there = self.sizes
        levels = (pixels.float() - self.student.offset.to(pixels.device)) / self.student.scale.to(pixels.device)
        if here != there:
            way = _WAYS.get(int(self.teacher.resample), v2.InterpolationMode.BICUBIC)
            levels = functional.resize(levels, list(there), interpolation=way, antialias=True)
        return torch.addcmul(self.teacher.offset.to(pixels.device), levels, self.teacher.scale.to(pixels.device))


def _final(processor: Any, whose: str) -> FinalPixels:
    try:
        return FinalPixels(processor)
    except UserError as fault:
        raise UserError(
            f"distill: the teacher sees training images as the student does, changed at random; with {whose}: {fault} "
            "(and no data.mixup, data.cutmix): the teacher then answers each row once."
        ) from fault
