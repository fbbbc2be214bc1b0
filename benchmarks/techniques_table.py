"""The table of techniques from results/techniques.jsonl, and sentences on what did not come out as expected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from techniques import read_lines
from techniques_problems import PROBLEMS, STUDENT

Lines = list[dict[str, Any]]
_RESAMPLES = 2000
# (technique, what it is expected to reach, on which problems)
_EXPECTED = (("lp_ft", "full"), ("layer_decay", "full"), ("distillation", "student"))


def techniques_table(file: Path) -> str:
    """Markdown of every problem that has finished runs; empty where there are none."""
    lines = [line for line in read_lines(file) if line["scale"] == "full"]
    parts = [_problem(name, [line for line in lines if line["problem"] == name]) for name in PROBLEMS]
    return "\n\n".join(part for part in parts if part)


def summary(file: Path) -> str:
    """Markdown of what the two pretrained problems have in common: a line a technique, for the first page."""
    shown = {"cifar10": "CIFAR-10, ViT-Tiny", "sst2": "SST-2, MiniLM"}
    lines = [line for line in read_lines(file) if line["scale"] == "full" and line["problem"] in shown]
    rows = [
        "| technique | recipe, of CIFAR-10's | " + " | ".join(shown.values()) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for technique in PROBLEMS["cifar10"].techniques:
        if any(STUDENT in pair for pair in technique.overrides):
            continue  # students are other models
        found = [
            [line for line in lines if (line["problem"], line["technique"]) == (name, technique.name)] for name in shown
        ]
        if all(found):
            rows.append(f"| {technique.name} | {_pairs(found[0])} | " + " | ".join(map(_spread, found)) + " |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _spread(found: Lines) -> str:
    scores = [line["test"]["accuracy"] for line in found]
    return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"


def _pairs(found: Lines) -> str:
    return " ".join(f"`{pair}`" for pair in found[0]["overrides"])


def _problem(name: str, lines: Lines) -> str:
    if not lines:
        return ""
    baseline = "full" if name != "fashion_mnist" else "scratch"
    order = [technique.name for technique in PROBLEMS[name].techniques]
    by_technique = {key: [line for line in lines if line["technique"] == key] for key in order}
    rows = [
        f"| technique | recipe | rate | seeds | accuracy, mean | min to max | less {baseline} (95%) | training, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, found in by_technique.items():
        if found:
            rows.append(_row(key, found, by_technique[baseline]))
    sentences = list(_surprises(by_technique))
    first = lines[0]
    made = f"{first['date']}, {first['hardware']}, {first['threads']} thread(s); commit {first['commit']}."
    notes = (
        "Seeds draw other rows for training and test too. The interval resamples seeds and test rows together "
        "(bootstrap over paired rows); with three seeds it is rather too narrow. Seconds were taken beside other work "
        "and say little."
    )
    return "\n".join([f"#### {PROBLEMS[name].title}", "", *rows, "", *sentences, "", notes, "", made])


def _row(key: str, found: Lines, baseline: Lines) -> str:
    scores = [line["test"]["accuracy"] for line in found]
    recipe = " ".join(f"`{pair}`" for pair in found[0]["overrides"])
    rate = f"{found[0]['learning_rate']:g}" if found[0]["learning_rate"] else ""
    seconds = np.median([line["seconds"] for line in found])
    spread = f"{min(scores):.4f} to {max(scores):.4f}"
    return (
        f"| {key} | {recipe} | {rate} | {len(scores)} | {np.mean(scores):.4f} | {spread} | "
        f"{_in_words(paired(found, baseline))} | {seconds:.0f} |"
    )


def paired(found: Lines, baseline: Lines) -> tuple[float, float, float] | None:
    """Mean difference of accuracy over the seeds that both have, and its 95% interval over seeds and test rows."""
    theirs = {line["seed"]: _bits(line) for line in baseline}
    pairs = [(_bits(line), theirs[line["seed"]]) for line in found if line["seed"] in theirs]
    if not pairs or found is baseline:
        return None
    differences = [one.astype(int) - other for one, other in pairs]
    draw = np.random.default_rng(0)
    means = []
    for _ in range(_RESAMPLES):
        seeds = draw.integers(len(differences), size=len(differences))
        means.append(np.mean([draw.choice(differences[seed], len(differences[seed])).mean() for seed in seeds]))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.mean([difference.mean() for difference in differences])), float(low), float(high)


def _bits(line: dict[str, Any]) -> np.ndarray:
    packed = np.frombuffer(bytes.fromhex(line["correct"]), dtype=np.uint8)
    return np.unpackbits(packed)[: line["test"]["samples"]]


def _in_words(difference: tuple[float, float, float] | None) -> str:
    return "" if difference is None else f"{difference[0]:+.4f} ({difference[1]:+.3f} to {difference[2]:+.3f})"


def _surprises(by_technique: dict[str, Lines]) -> Iterator[str]:
    """A sentence for each expectation: kept, or not, and whether the difference is larger than chance."""
    for technique, other in _EXPECTED:
        difference = paired(by_technique.get(technique, []), by_technique.get(other, []))
        if difference is None:
            continue
        mean, low, high = difference
        if mean >= 0:
            verdict = "above" if low > 0 else "at or above, within chance"
        else:
            verdict = "**below, by more than chance**" if high < 0 else "**below**, within chance"
        yield f"- {technique} against {other}: {verdict} ({_in_words(difference)})."


if __name__ == "__main__":
    print(techniques_table(Path(__file__).parent / "results" / "techniques.jsonl"))
