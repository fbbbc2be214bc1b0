"""Bar 1: a head on CIFAR-10, 10,000 training and 2,000 test images, 10 epochs, ViT-Tiny at 224 px.

    python benchmarks/head.py --rounds 5

The plain script would take an hour: one of its epochs is run, and counts ten times; it does the same in each.
"""

from __future__ import annotations

from pathlib import Path

from harness import Bar, Contest, main
from problems import cifar10, prepared


def contests(scale: str, work: Path) -> list[Contest]:
    """A head on a frozen ViT-Tiny."""
    problem = prepared(cifar10(10_000, 2_000, strategy="head", epochs=10, learning_rate=1e-3), scale, work)
    runs = (
        problem.ours("ours", work),
        # Another head on the same backbone: what the first run computed is still there.
        problem.ours("ours, another head", work, "model.head=cosine", warm=True),
        plain := problem.one_epoch_of("plain", "plain_image"),
        bf16 := problem.one_epoch_of("plain bf16", "plain_image", "--bf16"),
        problem.one_epoch_of("timm", "timm_loop", "--amp"),
        problem.contestant("sklearn", "sklearn_probe"),
        problem.contestant("bare", "bare_loop"),
    )
    bars = (
        Bar("times faster than plain, end to end", plain.name, "seconds", "ours", at_least=25),
        Bar("times faster than plain in bf16, end to end", bf16.name, "seconds", "ours", at_least=8),
        Bar(
            "time to compute the features (first run less second run) over bare's pass over the same images",
            *("ours", "seconds", "bare", "ours, another head", "fill_seconds"),
            at_most=1.25,
        ),
        Bar("seconds of a second run with another head", "ours, another head", "seconds", at_most=10),
        Bar("peak memory over plain's, MB (the cache is 4 MB)", "ours", "peak_mb", minus=plain.name, at_most=4),
    )
    title = "A head on frozen ViT-Tiny (224 px), CIFAR-10, 10,000 training and 2,000 test images, 10 epochs."
    return [Contest("head", title, runs, bars)]


if __name__ == "__main__":
    main(contests, "head", __doc__)
