"""The section of README.md on search, from results/search.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def search_table(file: Path) -> str:
    """Markdown; empty where there is no result."""
    if not file.is_file():
        return ""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    gain, test, name = found["gain"], found["test"], found["metric"]
    states = [trial["state"] for trial in found["trials"]]
    rows = [
        "| trial | validation | seconds | values |",
        "|---|---|---|---|",
        *(_row(trial, found["winner"]) for trial in found["trials"]),
    ]
    facts = [
        f"- as shipped {found['as_given']:.4f}, best {found['best']:.4f} (validation {name}, trial {found['winner']}); "
        f"{states.count('complete')} trials complete, {states.count('pruned')} given up early, "
        f"{states.count('failed')} failed."
    ]
    if gain:
        low, high = gain["interval"]
        fair_low, fair_high = gain["unbiased_interval"] or (float("nan"), float("nan"))
        verdict = "better by more than chance" if gain["sure"] else "within noise, or not certain"
        facts.append(
            f"- difference **{gain['value']:+.4f}** (95% {low:+.4f} to {high:+.4f}, paired bootstrap over "
            f"{gain['rows']:,} rows); on rows that did not choose the winner {gain['unbiased']:+.4f} ({fair_low:+.4f} "
            f"to {fair_high:+.4f}): {verdict}."
        )
    killed = found["killed"]
    facts.append(
        f"- killed by SIGKILL in trial {killed['in_trial']} and gone on with by the same command: "
        f"{found['ended_trials_run_again']} ended trials were run again; {found['seconds']['in all']:.0f} s in all."
    )
    if test:
        low, high = test[f"{name}_ci95"]
        facts.append(
            f"- the test split was read once, for the winner: {name} {test[name]:.4f} ({low:.4f} to {high:.4f}, "
            f"{test['samples']} rows); test predictions lie in {', '.join(found['test_predictions'])} alone."
        )
    end = f"{found['date']}, {found['hardware']}, 1 thread; commit {found['commit']}."
    return "\n".join([f"`{found['command']}`", "", *facts, "", *rows, "", end])


def _row(trial: dict[str, Any], winner: int) -> str:
    score = "" if trial["validation"] is None else f"{trial['validation']:.4f}"
    mark = {"pruned": " (given up)", "failed": "failed"}.get(trial["state"], "")
    values = " ".join(f"`{key}={value}`" for key, value in trial["values"].items()) or "as shipped"
    number = f"**{trial['trial']}**" if trial["trial"] == winner else str(trial["trial"])
    return f"| {number} | {score}{mark} | {trial['seconds']:.0f} | {values} |"
