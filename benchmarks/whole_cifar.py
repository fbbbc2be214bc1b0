"""Bar 5: all of CIFAR-10 (50,000 and 10,000 images), a head on ViT-Tiny, from command to report.

python benchmarks/whole_cifar.py --rounds 3
"""

from __future__ import annotations

from pathlib import Path

from harness import Bar, Contest, main
from problems import cifar10, prepared


def contests(scale: str, work: Path) -> list[Contest]:
    """A head, from the command to the report."""
    problem = prepared(cifar10(None, None, strategy="head", epochs=10, learning_rate=1e-3), scale, work)
    # As a user has it: a tenth of train validates, the test split is read once at the end.
    run = problem.ours("ours", work, validation=0.1, test_split="test")
    bars = (Bar("seconds from command to report", "ours", "seconds", at_most=480),)
    title = "A head on frozen ViT-Tiny (224 px), all of CIFAR-10: 45,000 train, 5,000 validate, 10,000 test, 10 epochs."
    return [Contest("whole_cifar", title, (run,), bars)]


if __name__ == "__main__":
    main(contests, "whole_cifar", __doc__)
