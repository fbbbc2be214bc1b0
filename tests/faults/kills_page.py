"""What came of all cases: in counts, and as the section of benchmarks/faults.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from kills_cases import Case
from kills_legs import started

_BEGIN, _END = "<!-- kills -->", "<!-- end kills -->"
_TITLE = """# Faults

What was done to runs on purpose, and what came of it. Each section names the script that does it again.
"""


def figures_of(cases: list[Case]) -> dict[str, Any]:
    """All counts."""
    found: dict[str, Any] = {}
    for name, signals in {"kills": ("SIGKILL",), "signals": ("SIGTERM", "SIGINT")}.items():
        blows = [(case, blow) for case in cases for blow in case.blows if blow["signal"] in signals]
        struck = [case for case in cases if any(blow["signal"] in signals for blow in case.blows)]
        found[name] = {
            "blows": len(blows),
            "runs": len(struck),
            "equal": sum(not case.faults for case in struck),
            "places": dict(Counter(blow["place"] for _, blow in blows).most_common()),
            "variations": dict(Counter(case.variation.name for case, _ in blows)),
            "through the command line": sum(case.launch is started for case, _ in blows),
            "codes": dict(Counter(f"{blow['signal']} {blow['code']}" for _, blow in blows)),
            "saved a checkpoint": sum(blow.get("saved") is not None for _, blow in blows),
        }
    found["faults"] = [f"{case.variation.name}: {fault}" for case in cases for fault in case.faults]
    return found


def write_page(page: Path, figures: dict[str, Any]) -> None:
    """Put the figures in the place of the section, or behind what there is."""
    text = page.read_text() if page.exists() else _TITLE
    section = f"{_BEGIN}\n{_section(figures)}{_END}"
    if _BEGIN in text:
        before, _, rest = text.partition(_BEGIN)
        text = before + section + rest.partition(_END)[2]
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    page.write_text(text)


def _section(figures: dict[str, Any]) -> str:
    kills, signals = figures["kills"], figures["signals"]
    codes = ", ".join(f"{code} ({count})" for code, count in signals["codes"].items())
    faults = "".join(f"- {fault}\n" for fault in figures["faults"])
    return f"""## Kills, Ctrl-C and SIGTERM

    python tests/faults/kills.py

Tiny random models, {len(kills["variations"])} variations: head, freeze, full, LoRA and LP-FT on images and texts, with
checkpoints every fifth step or every epoch, workers 0 and 2, augmentation, mixup and CutMix, accumulation, dropout, an
EMA, a soup, early stopping, `max_steps` in the middle of an epoch. One process, one thread, CPU. Each struck run was
started again with the same command; weights, metrics.json without times, log, predictions.parquet and the newest
checkpoint were compared to the bit with those of a run that nobody struck.

**{kills["blows"]} SIGKILLs in {kills["runs"]} runs, {kills["equal"]} of which ended equal.**
{kills["through the command line"]} kills met the true command line, the rest forks that call its entry point.

{_table("where the kill fell", kills["places"])}
**{signals["blows"]} SIGTERMs and Ctrl-Cs in {signals["runs"]} runs, {signals["equal"]} of which ended equal.**
Exit codes: {codes}. In training {signals["saved a checkpoint"]} of them left a whole checkpoint of the step in which
they came; outside of it there was nothing to save.

{_table("where the signal came", signals["places"])}
{faults}"""


def _table(title: str, counts: dict[str, int]) -> str:
    rows = "".join(f"| {place} | {count} |\n" for place, count in counts.items())
    return f"| {title} | times |\n|---|---|\n{rows}"
