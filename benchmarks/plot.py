"""Draws benchmarks/time_accuracy.png from the results: time from command to exit against accuracy, one panel a contest.

python benchmarks/plot.py        # needs matplotlib
"""

from __future__ import annotations

import json
from pathlib import Path

from measures import medians, wilson

HERE = Path(__file__).resolve().parent
_CONTESTS = ("head", "freeze", "full-vit", "full-mobilenet", "full-efficientnet", "text")


def main(results: Path = HERE / "results", out: Path = HERE / "time_accuracy.png") -> None:
    """Writes the picture, where there is at least one result."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    files = [file for name in _CONTESTS if (file := results / f"{name}.json").is_file()]
    if not files:
        raise SystemExit(f"No results in {results}: run the benchmarks first.")
    width = min(3, len(files))
    height = -(-len(files) // width)
    figure, axes = pyplot.subplots(height, width, figsize=(4.6 * width, 3.6 * height), squeeze=False)
    for place, file in zip(axes.flat, files, strict=False):
        record = json.loads(file.read_text(encoding="utf-8"))
        for name, measures in medians(record).items():
            if "accuracy" not in measures:
                continue
            low, high = wilson(measures["accuracy"], measures["test_rows"])
            error = [[measures["accuracy"] - low], [high - measures["accuracy"]]]
            ours = name.startswith("ours")
            place.errorbar(
                *(measures["seconds"], measures["accuracy"], error),
                fmt="o" if ours else "s",
                color="tab:red" if ours else "tab:gray",
                capsize=2,
            )
            where = (measures["seconds"], measures["accuracy"])
            place.annotate(name, where, xytext=(4, 4), textcoords="offset points", fontsize=7, rotation=35)
        place.set_xscale("log")
        place.xaxis.set_major_formatter("{x:g}")
        place.xaxis.set_minor_formatter("{x:g}")
        place.tick_params(axis="x", which="both", labelsize=7, labelrotation=45)
        place.set_title(file.stem, fontsize=10)
        place.set_xlabel("command to exit, s", fontsize=8)
        place.set_ylabel("accuracy, 95%", fontsize=8)
        place.grid(alpha=0.3, which="both")
        place.margins(x=0.25)
    for place in axes.flat[len(files) :]:
        place.set_axis_off()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
