"""Bar 2: ViT-Tiny with 2 of 12 blocks learning, CIFAR-10, 3,000 training and 1,000 test images, 5 epochs.

python benchmarks/freeze.py --rounds 5
"""

from __future__ import annotations

from pathlib import Path

from harness import Bar, Contest, main
from problems import cifar10, prepared


def contests(scale: str, work: Path) -> list[Contest]:
    """The last two blocks of ViT-Tiny."""
    problem = prepared(cifar10(3_000, 1_000, strategy="freeze", epochs=5, learning_rate=2e-4), scale, work)
    runs = (
        problem.ours("ours", work),
        problem.contestant("plain", "plain_image"),
        problem.contestant("plain bf16", "plain_image", "--bf16"),
        problem.contestant("timm", "timm_loop", "--amp"),
        problem.contestant("bare", "bare_loop"),
    )
    # 4,000 images x 197 tokens x 192 values, of 2 bytes in training and 4 in evaluation.
    cache = (3_000 * 2 + 1_000 * 4) * 197 * 192 / 2**20
    bars = (
        Bar("times faster than plain in bf16, end to end", "plain bf16", "seconds", "ours", at_least=4),
        Bar(
            f"peak memory over plain's, MB (the cache is {cache:.0f} MB)",
            *("ours", "peak_mb"),
            minus="plain bf16",
            at_most=round(cache),
        ),
    )
    title = "ViT-Tiny (224 px), 2 of 12 blocks learn, CIFAR-10, 3,000 training and 1,000 test images, 5 epochs."
    return [Contest("freeze", title, runs, bars)]


if __name__ == "__main__":
    main(contests, "freeze", __doc__)
