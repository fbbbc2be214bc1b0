"""Runs contestants in turn, each round all of them, each in a process of its own; medians, and ratios within a round.

A contest is a list of commands on the same data and the same checkpoint. For each run it notes: seconds from command to
exit, from command to the first optimizer step, samples a second between the first and the last step, processor seconds,
peak memory, and the accuracy that the contestant reports. Every finished run is written at once to
benchmarks/results/NAME.json, and a call that finds it there does not run it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arena import HERE, Arena, Contestant, run_once
from circumstances import circumstances

RESULTS = HERE / "results"


@dataclass(frozen=True)
class Bar:
    """A promise: (`of` - `minus`) / `over` of a measure, within each round.

    Args:
        words: what is promised, for the table.
        of: contestant.
        measure: name of a measure, such as "seconds".
        over: contestant of the denominator; 1 where left out.
        minus: contestant that is taken off; 0 where left out.
        over_measure: of the denominator, where it is another one.
        at_least: or
        at_most: the bound.
    """

    words: str
    of: str
    measure: str
    over: str = ""
    minus: str = ""
    over_measure: str = ""
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Contest:
    """Contestants and what is promised of them.

    Args:
        name: of the results file.
        title: what is compared on what, in one sentence.
        contestants: in the order of each round.
        bars: promises that the table judges.
        facts: further numbers that the table needs, such as flops_per_sample.
    """

    name: str
    title: str
    contestants: tuple[Contestant, ...]
    bars: tuple[Bar, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def hold(contest: Contest, arena: Arena, rounds: int, scale: str, only: set[str], results: Path = RESULTS) -> Path:
    """Runs what is missing of a contest, writing after each run.

    Returns:
        the results file.

    Raises:
        RuntimeError: the file holds rounds of another commit or another machine: they would not be comparable.
    """
    file = results / (f"{contest.name}.json" if scale == "full" else f"{contest.name}-{scale}.json")
    now = circumstances()
    record: dict[str, Any] = {
        "contest": contest.name,
        "title": contest.title,
        "scale": scale,
        "threads": arena.threads or "all",
        "bars": [vars(bar) for bar in contest.bars],
        "facts": contest.facts,
        **now,
        "rounds": [],
    }
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if differing := [name for name in ("commit", "versions", "hardware") if before[name] != now[name]]:
            raise RuntimeError(f"{file} was made with another {', '.join(differing)}: move it away, or give --fresh.")
        record["rounds"] = before["rounds"]
    for number in range(rounds):
        if number == len(record["rounds"]):
            record["rounds"].append({})
        for contestant in contest.contestants:
            if contestant.name in record["rounds"][number] or (only and contestant.name not in only):
                continue
            print(f"round {number + 1} of {rounds}: {contestant.name} ... ", end="", flush=True)
            measures = run_once(contestant, arena)
            print(f"{measures['seconds']:.1f} s", flush=True)
            record["rounds"][number][contestant.name] = measures
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return file


def main(contests: Callable[[str, Path], list[Contest]], name: str, description: str | None) -> None:
    """The command line that every script here shares.

    Args:
        contests: from scale ("toy" or "full") and work folder (data and checkpoints are prepared there) to contests.
        name: of the script, for its work folder.
        description: for --help.
    """
    from tables import contest_table

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", choices=("toy", "full"), default="full")
    parser.add_argument("--only", action="append", default=[], help="a contestant; may be given again; all if left out")
    parser.add_argument("--contest", default="", help="names of contests, with commas; all if left out")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of every contestant; unset if left out")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true", help="forget the rounds that were run")
    options = parser.parse_args()
    arena = Arena(options.work / name, options.threads)
    wanted = [word for word in options.contest.split(",") if word]
    known = contests(options.scale, arena.work)
    _refuse_unknown(parser, "--contest", wanted, {contest.name for contest in known})
    _refuse_unknown(parser, "--only", options.only, {one.name for contest in known for one in contest.contestants})
    for contest in known:
        if wanted and contest.name not in wanted:
            continue
        if options.fresh:
            (options.results / f"{contest.name}{'' if options.scale == 'full' else '-toy'}.json").unlink(
                missing_ok=True
            )
        file = hold(contest, arena, options.rounds, options.scale, set(options.only), options.results)
        print(contest_table(json.loads(file.read_text(encoding="utf-8"))))


def _refuse_unknown(parser: argparse.ArgumentParser, option: str, given: list[str], names: set[str]) -> None:
    if unknown := sorted({*given} - names):
        parser.error(f"{option}: there is no {', '.join(unknown)}; there are {', '.join(sorted(names))}")
