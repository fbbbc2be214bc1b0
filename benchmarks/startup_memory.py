"""Bar 6: from command to the first training step, and peak memory with 5,000 and with 50,000 images.

python benchmarks/startup_memory.py --rounds 5
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from arena import Contestant
from harness import Bar, Contest, main
from problems import cifar10, prepared


def contests(scale: str, work: Path) -> list[Contest]:
    """How soon the first step is taken, and the most memory in use."""
    return [_startup(scale, work), _memory(scale, work)]


def _startup(scale: str, work: Path) -> Contest:
    problem = prepared(cifar10(320, 64), scale, work)
    ours = problem.ours("ours", work)
    launched = ("-m", "accelerate.commands.launch", "--num_processes", "1", "-m", *ours.command[1:])
    runs = (
        ours,
        # The launcher imports torch in a process of its own before ours starts.
        Contestant("ours, accelerate launch", launched, ours.batch_size),
        problem.contestant("plain", "plain_image"),
    )
    bar = Bar("seconds to the first step, more than plain's", "ours", "first_step_seconds", minus="plain", at_most=1.5)
    title = "From command to the first training step: ViT-Tiny (224 px), everything learns, 320 images of CIFAR-10."
    return Contest("startup", title, runs, (bar,))


def _memory(scale: str, work: Path) -> Contest:
    runs = []
    for rows in (5_000, 50_000):
        problem = prepared(cifar10(rows, 200, learning_rate=1e-4), scale, work)
        head = replace(problem, strategy="head", epochs=2)
        runs += [
            problem.ours(f"full, {rows:,}", work, "training.max_steps=20"),
            head.ours(f"head, {rows:,}", work),
        ]
    bars = tuple(
        Bar(
            f"{kind}: peak memory with 50,000 images over that with 5,000", *(f"{kind}, 50,000", "peak_mb"), at_most=1.1
        )
        for kind in ("full", "head")
    )
    bars = tuple(replace(bar, over=bar.of.replace("50,000", "5,000")) for bar in bars)
    title = (
        "Peak memory with 5,000 and 50,000 images of CIFAR-10, ViT-Tiny (224 px): 20 steps of full, 2 epochs of head."
    )
    return Contest("memory", title, tuple(runs), bars)


if __name__ == "__main__":
    main(contests, "startup_memory", __doc__)
