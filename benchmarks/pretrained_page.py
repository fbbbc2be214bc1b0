"""Writes docs/pretrained.md and its picture from results/pretrained.jsonl.

python benchmarks/pretrained_page.py        # needs matplotlib
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from measures import wilson
from pretrained import RESULTS, STARTS
from techniques import read_lines

DOCS = Path(__file__).resolve().parent.parent / "docs"
_COLOURS = ("tab:orange", "tab:red", "tab:gray")
_MARK = ("<!-- measured -->", "<!-- end -->")


def main(results: Path = RESULTS, docs: Path = DOCS) -> None:
    """Writes both, where all three starts were run at least once."""
    lines = [line for line in read_lines(results) if line["scale"] == "full"]
    if {line["name"] for line in lines} != {start.name for start in STARTS["full"]}:
        raise SystemExit(f"{results} does not hold every start yet: python benchmarks/pretrained.py")
    draw(lines, docs / "images" / "pretrained.svg")
    page = docs / "pretrained.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(_MARK[0])
    after = rest.partition(_MARK[1])[2]
    page.write_text(f"{before}{_MARK[0]}\n{measured(lines)}\n{_MARK[1]}{after}", encoding="utf-8")


def mean_curve(lines: list[dict[str, Any]], name: str) -> list[tuple[int, int, float]]:
    """(step, samples, mean accuracy over the seeds) of one start."""
    curves = [line["curve"] for line in lines if line["name"] == name]
    return [
        (points[0]["step"], points[0]["samples"], statistics.mean(point["accuracy"] for point in points))
        for points in zip(*curves, strict=True)
    ]


def first_at(curve: list[tuple[int, int, float]], score: float) -> tuple[int, int, float] | None:
    """The first scored point that is at least as good."""
    return next((point for point in curve if point[2] >= score), None)


def measured(lines: list[dict[str, Any]]) -> str:
    """The part of the page that the results say."""
    starts = STARTS["full"]
    curves = {start.name: mean_curve(lines, start.name) for start in starts}
    scratch = starts[-1].name
    step, samples, goal = max(curves[scratch], key=lambda point: point[2])
    rows = []
    for start in starts:
        end, reached = curves[start.name][-1], first_at(curves[start.name], goal)
        low, high = wilson(end[2], lines[0]["test_rows"])
        at = f"step {reached[0]:,} ({reached[1]:,} images seen)" if reached else "not reached"
        rows.append(f"| {start.name} | {start.rows:,} | {end[0]:,} | {end[2]:.3f} ({low:.3f} to {high:.3f}) | {at} |")
    said = [
        f"The best score from random weights was {goal:.3f}, after {step:,} steps ({samples:,} images seen). "
        + " ".join(_saving(start.name, first_at(curves[start.name], goal), step, start.rows) for start in starts[:-1]),
        "",
        "![Accuracy on test images by training step, for the three starts](images/pretrained.svg)",
        "",
        f"| start | labelled images | steps | accuracy at the end (95%) | first at {goal:.3f} or more |",
        "|---|---|---|---|---|",
        *rows,
        "",
        _circumstances(lines),
    ]
    return "\n".join(said)


def _saving(name: str, reached: tuple[int, int, float] | None, step: int, rows: int) -> str:
    if reached is None:
        return f"*{name}* did not reach it."
    share = f"at most 1/{step / reached[0]:.0f} of the steps"
    return f"*{name}* ({rows:,} labels) was there by step {reached[0]:,}: {share}."


def _circumstances(lines: list[dict[str, Any]]) -> str:
    seeds = len({line["seed"] for line in lines})
    seconds = sum(line["processor_seconds"] for line in lines)
    threads = {line["threads"] for line in lines}
    first = lines[0]
    return (
        f"{seeds} seed{'s' if seeds > 1 else ''}; {first['test_rows']:,} test images, whose chance alone is in the "
        f"intervals; {first['hardware']}, threads: {', '.join(sorted(threads))}; "
        f"{seconds / 60:.0f} minutes of processor time in all; "
        f"torch {first['versions']['torch']}, transformers {first['versions']['transformers']}; {first['date']}."
    )


def draw(lines: list[dict[str, Any]], out: Path) -> None:
    """Accuracy by step: a thin line for each seed, a thick one for their mean."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "pretrained"  # the same bytes from the same results
    figure, place = pyplot.subplots(figsize=(7.2, 4.2))
    for start, colour in zip(STARTS["full"], _COLOURS, strict=True):
        for line in (line for line in lines if line["name"] == start.name):
            points = [(point["step"], point["accuracy"]) for point in line["curve"]]
            place.plot(*zip(*points, strict=True), color=colour, alpha=0.35, linewidth=1)
        mean = mean_curve(lines, start.name)
        label = f"{start.name} ({start.rows:,} images)"
        place.plot(
            [p[0] for p in mean], [p[2] for p in mean], color=colour, linewidth=2.2, marker="o", ms=3, label=label
        )
    goal = max(point[2] for point in mean_curve(lines, STARTS["full"][-1].name))
    place.axhline(goal, color="tab:gray", linestyle=":", linewidth=1)
    place.set_xscale("log")
    place.xaxis.set_major_formatter("{x:g}")
    place.set_xlabel("training steps of 32 images (log scale)")
    place.set_ylabel("accuracy on test images")
    place.set_ylim(0, 1)
    place.grid(alpha=0.3)
    place.legend(loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
