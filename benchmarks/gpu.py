"""Bar 7: ViT-B/16 and ResNet-50 with random weights on a GPU: CIFAR-sized and 500-px JPEG input; full, LoRA and head.

    benchmarks/gpu.sh                        # everything, and the tests that need a GPU
    python benchmarks/gpu.py --contest gpu-vit-cifar-full,gpu-resnet-jpeg-full --rounds 3

Images are noise with some structure and weights are random, so accuracies mean nothing: only speed is compared.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from arena import Contestant
from harness import Bar, Contest, main
from problems import Problem

_CLASSES = 10
# name -> timm's name of the same architecture, batch size
MODELS = {"vit": ("vit_base_patch16_224", 128), "resnet": ("resnet50", 256)}
# name -> rows of train and test, size of the images
INPUTS = {"cifar": ((50_000, 2_000), (32, 32)), "jpeg": ((16_384, 1_024), (500, 375))}
# Random changes that a GPU run is likely to have; made by the batch on the device, and by Pillow on the host.
CHANGES = {"crop": [0.6, 1.0], "flip": 0.5, "color_jitter": 0.4, "erasing": 0.25}
# Dense bf16 products, FLOP/s, as the makers state them.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}


def contests(scale: str, work: Path) -> list[Contest]:
    """Each model, kind of input and strategy."""
    return [
        _contest(scale, work, model, images, strategy)
        for model in MODELS
        for images in INPUTS
        for strategy in ("full", "lora", "head")
    ]


def _contest(scale: str, work: Path, model: str, images: str, strategy: str) -> Contest:
    toy = scale == "toy"
    architecture, batch_size = MODELS[model]
    rows, size = INPUTS[images]
    side = 32 if toy else 224
    checkpoint = write_checkpoint(work / scale / model, model, side, toy)
    problem = Problem(
        task="image-classification",
        dataset="random",
        rows=(32, 16) if toy else rows,
        splits=("train", "test"),
        column="image",
        checkpoint=str(checkpoint.resolve()),
        strategy=strategy,
        epochs=3 if strategy == "head" else 1,
        batch_size=8 if toy else batch_size,
    )
    folder = write_images(work / scale / images, problem.rows, (48, 36) if toy and images == "jpeg" else size)
    problem = Problem(**(vars(problem) | {"data": folder.resolve()}))
    workers = str(min(8, len(os.sched_getaffinity(0))))
    ours = problem.ours("ours", work / scale)
    plain = problem.contestant("plain bf16", "plain_image", "--bf16", "--workers", workers)
    bare = problem.contestant("bare", "bare_loop", *([] if toy else ["--compile"]))
    synthetic = problem.contestant("bare, synthetic data", "bare_loop", "--synthetic", *([] if toy else ["--compile"]))
    runs: list[Contestant] = [ours, plain, bare, synthetic]
    if strategy == "head":
        runs.insert(1, problem.ours("ours, another head", work / scale, "model.head=cosine", warm=True))
    if strategy == "full":
        runs += [
            problem.ours(f"ours, changed on the {place}", work / scale, augment=CHANGES, augment_on=on)
            for place, on in (("device", "device"), ("host", "samples"))
        ]
    if strategy != "lora":  # timm has none
        model_flag = [] if toy and model == "vit" else ["--model", "resnet18" if toy else architecture]
        flags = ("--amp", "--channels-last", "--workers", workers, *model_flag)
        runs.append(problem.contestant("timm", "timm_loop", *flags))
    title = f"{architecture} with random weights at {side} px, {strategy}; {rows[0]:,} images of {size[0]} x {size[1]}."
    name = f"gpu-{model}-{images}-{strategy}"
    return Contest(name, title, tuple(runs), _bars(model, images, strategy), _facts(checkpoint, side, strategy))


def _bars(model: str, images: str, strategy: str) -> tuple[Bar, ...]:
    if strategy == "head":
        words = "first run less second run, s, over bare's pass over the same images"
        return (Bar(words, "ours", "seconds", "bare", "ours, another head", "fill_seconds", at_most=1.25),)
    share = Bar(
        "images a second, as a share of the same model on synthetic data",
        *("ours", "samples_per_second", "bare, synthetic data"),
        at_least=0.9 if images == "cifar" else 0.75,
    )
    if strategy == "lora":
        return (share,)
    over_timm = Bar("images a second over timm's", "ours", "samples_per_second", "timm", at_least=1)
    words = "images a second, changed at random on the device, over changed on the host"
    places = ("ours, changed on the device", "samples_per_second", "ours, changed on the host")
    return share, over_timm, Bar(words, *places, at_least=1)


def _facts(checkpoint: Path, side: int, strategy: str) -> dict[str, Any]:
    """FLOPs of a training step for one image, and what the GPU could do at most; a head has no such step."""
    if strategy == "head":
        return {}
    import torch

    if not torch.cuda.is_available():
        return {}
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(checkpoint)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, side, side))
    name = torch.cuda.get_device_name()
    peak = next((flops for key, flops in PEAK.items() if key in name.split() or key in name), None)
    # Backward costs twice forward; with LoRA the weights' own gradients are left out: once.
    passes = 3 if strategy == "full" else 2
    return {"flops_per_sample": passes * counter.get_total_flops(), "peak_flops": peak}


def write_checkpoint(folder: Path, model: str, side: int, toy: bool) -> Path:
    """A model by its configuration with random weights, and its processor."""
    if (folder / "config.json").is_file():
        return folder
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    if model == "vit":
        small: dict[str, Any] = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        }
        vit = ViTConfig(image_size=side, num_labels=_CLASSES, **(small | {"patch_size": 8} if toy else {}))
        ViTForImageClassification(vit).save_pretrained(folder)
    else:
        tiny: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        ResNetForImageClassification(ResNetConfig(num_labels=_CLASSES, **(tiny if toy else {}))).save_pretrained(folder)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def write_images(folder: Path, rows: tuple[int | None, int | None], size: tuple[int, int]) -> Path:
    """JPEGs of coarse noise: photos' sizes of files and costs of decoding, and no two alike."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature
    from PIL import Image

    def encoded(seed: int) -> dict[str, Any]:
        draw = np.random.default_rng(seed)
        coarse = draw.integers(0, 256, (max(2, size[1] // 8), max(2, size[0] // 8), 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        return {"bytes": buffer.getvalue(), "path": None}

    if (folder / "test.parquet").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    features = Features({"image": ImageFeature(), "label": ClassLabel(num_classes=_CLASSES)})
    for place, name in enumerate(("train", "test")):
        count = rows[place] or 0
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(encoded, range(place * 10**6, place * 10**6 + count)))
        labels = [number % _CLASSES for number in range(count)]
        Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(folder / f"{name}.parquet")
    return folder


if __name__ == "__main__":
    main(contests, "gpu", __doc__)
