"""Bar 4: MiniLM on SST-2, everything learns, 4,000 sentences, one epoch.

python benchmarks/text.py --rounds 5
"""

from __future__ import annotations

from pathlib import Path

from harness import Bar, Contest, main
from problems import prepared, sst2


def contests(scale: str, work: Path) -> list[Contest]:
    """MiniLM on SST-2."""
    problem = prepared(sst2(4_000, learning_rate=5e-5), scale, work)
    runs = (
        problem.ours("ours", work),
        problem.contestant("plain, padded to 128", "plain_text"),
        problem.contestant("plain, dynamic padding", "plain_text", "--dynamic"),
        problem.contestant("plain, dynamic padding, bf16", "plain_text", "--dynamic", "--bf16"),
        problem.contestant("bare", "bare_text"),
    )
    padded, dynamic = "plain, padded to 128", "plain, dynamic padding"
    bars = (
        Bar("times the sentences a second of plain, padded", "ours", "samples_per_second", padded, at_least=10),
        Bar("times the sentences a second of plain, dynamic", "ours", "samples_per_second", dynamic, at_least=2.5),
        Bar("bare's sentences a second over ours", "bare", "samples_per_second", "ours", at_most=1.15),
        Bar("times faster than plain, padded, end to end", padded, "seconds", "ours", at_least=10),
        Bar("times faster than plain, dynamic, end to end", dynamic, "seconds", "ours", at_least=2.5),
        Bar("peak memory over plain's (dynamic), MB", "ours", "peak_mb", minus=dynamic, at_most=0),
    )
    title = "Full fine-tuning of MiniLM on SST-2, 4,000 sentences, one epoch; its 872 validation sentences score."
    return [Contest("text", title, runs, bars)]


if __name__ == "__main__":
    main(contests, "text", __doc__)
