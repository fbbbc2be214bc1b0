"""The table of interval_coverage.py's results, for benchmarks/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def interval_table(file: Path) -> str | None:
    """How often intervals and sets held, or None where nothing has been counted."""
    if not file.is_file():
        return None
    results = json.loads(file.read_text(encoding="utf-8"))
    problems = results["problems"]
    lines = _head("problem", "rows drawn, of", "metric", "score on all", "held", "truth below, above the interval")
    for name, found in problems.items():
        for counted in found["intervals"]:
            lines += _rows(name, counted)
    every = [counted for found in problems.values() for counted in found["intervals"]]
    verdicts = [_share(told, counted) for counted in every for told in counted["metrics"].values()]
    inside = sum(0.93 <= share <= 0.97 for share in verdicts)
    together = "All draws of a metric together (runs of one data set share test rows):"
    lines += ["", f"{inside} of {len(verdicts)} lie from 93% to 97%. {together}", ""]
    lines += [*_together(every), ""]
    of_a_run = ("problem", "seed", "accuracy", "validation rows", "sets hold the right class", "mean size", "empty")
    lines += _head(*of_a_run, "temperature", "ECE before, after")
    for name, found in problems.items():
        for seed, run in enumerate(found.get("sets", {}).get("runs", [])):
            lines.append(_run(name, seed, run))
    lines += ["", *[_method(name, found["sets"]["method"]) for name, found in problems.items() if "sets" in found], ""]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines.append(f"{results['date']}, {results['hardware']}; commit {results['commit']}; {versions}.")
    return "\n".join(lines)


def _together(every: list[dict[str, Any]]) -> list[str]:
    """Each metric over all problems and sizes, where chance is small."""
    held: dict[str, list[int]] = {}
    for counted in every:
        for metric, told in counted["metrics"].items():
            both = held.setdefault(metric, [0, 0])
            both[0], both[1] = both[0] + told["held"], both[1] + counted["draws"]
    return [f"- {metric}: {in_all / draws:.1%} of {draws:,}" for metric, (in_all, draws) in held.items()]


def _head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def _share(metric: dict[str, Any], counted: dict[str, Any]) -> float:
    return float(metric["held"] / counted["draws"])


def _rows(name: str, counted: dict[str, Any]) -> list[str]:
    lines = []
    for metric, told in counted["metrics"].items():
        share = _share(told, counted)
        shown = f"{share:.1%}" if 0.93 <= share <= 0.97 else f"**{share:.1%}**"
        drawn = f"{counted['rows']:,} of {counted['of']:,}"
        lines.append(
            f"| {name} | {drawn} | {metric} | {counted['truth'][metric]:.4f} | {shown} | "
            f"{told['too_high']}, {told['too_low']} of {counted['draws']:,} |"
        )
    return lines


def _run(name: str, seed: int, run: dict[str, Any]) -> str:
    low, high = run["set_coverage_ci95"]
    covered = f"{run['set_coverage']:.1%} ({low:.1%} to {high:.1%})"
    ece = f"{run['ece']['before']:.4f}, {run['ece']['after']:.4f}"
    cells = [name, str(seed), f"{run['accuracy']:.4f}", f"{run['validation']:,}", covered, f"{run['set_size']:.2f}"]
    return "| " + " | ".join([*cells, f"{run['empty_sets']:.1%}", f"{run['temperature']:.3f}", ece]) + " |"


def _method(name: str, told: dict[str, Any]) -> str:
    return (
        f"- {name}, {told['draws']:,} draws of {told['calibration_rows']:,} calibration rows that chose nothing: "
        f"coverage {told['mean']:.2%} on average, from 88% to 92% in {told['within']:.1%} of draws."
    )
