"""Bar 3: everything learns, CIFAR-10, 2,000 training and 1,000 test images, one epoch; three models.

python benchmarks/full.py --rounds 5
python benchmarks/full.py --rounds 5 --contest full-mobilenet
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import Bar, Contest, main
from problems import cifar10, prepared

# name -> checkpoint, how it is called, how many times faster than plain, whether timm can load it
MODELS = {
    "vit": ("WinKawaks/vit-tiny-patch16-224", "ViT-Tiny", 1.6, True),
    "mobilenet": ("google/mobilenet_v2_1.0_224", "MobileNetV2", 2.2, False),
    "efficientnet": ("timm/tf_efficientnet_lite0.in1k", "EfficientNet-Lite0", 1.5, True),
}


def contests(scale: str, work: Path) -> list[Contest]:
    """Each model of MODELS, everything in it."""
    found = []
    for name, (checkpoint, called, times, timm) in MODELS.items():
        problem = prepared(replace(cifar10(2_000, 1_000), checkpoint=checkpoint), scale, work)
        runs = [
            problem.ours("ours", work),
            problem.contestant("plain", "plain_image"),
            problem.contestant("plain bf16", "plain_image", "--bf16"),
            *([problem.contestant("timm", "timm_loop")] if timm else []),
            problem.contestant("bare", "bare_loop"),
        ]
        bars = (
            Bar("times plain's training images a second", "ours", "samples_per_second", "plain", at_least=times),
            Bar("bare's training images a second over ours", "bare", "samples_per_second", "ours", at_most=1.15),
            Bar("times faster than plain, end to end", "plain", "seconds", "ours", at_least=times),
            Bar("peak memory over plain's, MB", "ours", "peak_mb", minus="plain", at_most=0),
        )
        title = f"Full fine-tuning of {called} (224 px), CIFAR-10, 2,000 training and 1,000 test images, one epoch."
        found.append(Contest(f"full-{name}", title, tuple(runs), bars))
    return found


if __name__ == "__main__":
    main(contests, "full", __doc__)
