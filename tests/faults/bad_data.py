"""The corpus of bad data, and what comes of each case: a message that names the rows, or a documented handling.

    python -m tests.faults.bad_data [--only PATTERN] [--out FILE]

runs every case through the public entry point in a process whose memory is limited, one after the other, and prints
what came of it. More than 60 seconds of processor time are a fault; a case that does not end, or ends its process, is
told as hung or died, and the rest goes on in a new process. FILE gets the figures, as
benchmarks/results/faults_data.json has them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import bad_columns, bad_folders, bad_hub, bad_images, bad_labels, bad_tables, bad_texts
from .bad_case import MOST_BYTES, Case, Outcome, checkpoints, run

CASES: list[Case] = [
    *bad_tables.CORPUS.cases,
    *bad_columns.CORPUS.cases,
    *bad_labels.CORPUS.cases,
    *bad_texts.SPLITS.cases,
    *bad_texts.CORPUS.cases,
    *bad_images.CORPUS.cases,
    *bad_folders.CORPUS.cases,
    *bad_hub.CORPUS.cases,
]
_TESTS = Path(__file__).resolve().parent.parent
_PATIENCE = 180.0  # seconds by the clock, of a machine that may be busy, in which a case or the start is to end


def measured(cases: list[Case], folder: Path) -> Iterator[Outcome]:
    """Run cases in processes of limited memory; every case has an outcome."""
    waiting = [case.name for case in cases]
    while waiting:
        for outcome in _in_a_process([*waiting], folder):
            waiting.remove(outcome.case)
            yield outcome


def _in_a_process(names: list[str], folder: Path) -> Iterator[Outcome]:
    """What came of these cases up to the first that ended the process, that one included."""
    task = folder / f"task-{time.monotonic_ns()}.json"
    task.write_text(json.dumps(names))
    command = [sys.executable, "-m", "tests.faults.bad_data", "--worker", str(task)]
    with (folder / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, bufsize=0, cwd=_TESTS.parent, env=_environment(folder)
        )
        try:
            yield from _listen(worker, names)
        finally:
            worker.kill()
            worker.wait()


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_TESTS.parent), os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "HF_FINETUNE_CACHE": str(folder / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }


def _listen(worker: subprocess.Popen[bytes], names: list[str]) -> Iterator[Outcome]:
    assert worker.stdout is not None
    selector = selectors.DefaultSelector()
    selector.register(worker.stdout, selectors.EVENT_READ)
    done = 0
    while done < len(names):
        if not selector.select(_PATIENCE):
            yield Outcome(names[done], "hung", [f"no end after {_PATIENCE:.0f} s"], seconds=_PATIENCE)
            return
        line = worker.stdout.readline()
        if not line:
            yield Outcome(names[done], "died", [f"its process ended with {worker.wait()}"])
            return
        if line.startswith(b"{"):
            done += 1
            yield Outcome(**json.loads(line))


def _work(task: Path) -> None:
    """Inside the process: run the cases of a list, a line of JSON each."""
    sys.path.insert(0, str(_TESTS))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    by_name = {case.name: case for case in CASES}
    with tempfile.TemporaryDirectory(dir=task.parent) as place:
        models = checkpoints(Path(place) / "models")
        gc.collect()
        gc.freeze()  # else every run of the Trainer looks at a million objects of the libraries
        print("ready", file=answers, flush=True)
        for number, name in enumerate(json.loads(task.read_text())):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                _forget_peak()
                outcome = run(by_name[name], Path(folder) / str(number), models)
                outcome.mib = _peak() // 2**20
            if outcome.mib * 2**20 > MOST_BYTES:
                outcome.faults.append(f"{outcome.mib:,} MiB")
            outcome.said = outcome.said[-3000:]
            print(json.dumps(asdict(outcome)), file=answers, flush=True)


def _forget_peak() -> None:
    """The kernel counts a process's most memory from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """Counts and maxima, by group and in all, and every case in one line."""
    groups = {case.name: case.group for case in CASES}
    by_group: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_group.setdefault(groups[outcome.case], []).append(outcome)
    return {
        "groups": {name: _summary(group) for name, group in by_group.items()},
        "all": _summary(outcomes),
        "cases": [
            {
                "group": groups[o.case],
                "case": o.case,
                "outcome": o.kind,
                "seconds": o.seconds,
                "mib": o.mib,
                "faults": o.faults,
            }
            for o in outcomes
        ],
    }


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    kinds = Counter(outcome.kind for outcome in outcomes)
    return {
        "cases": len(outcomes),
        **{kind: kinds[kind] for kind in ("refused", "finished", "traceback", "hung", "died")},
        "as documented": sum(not outcome.faults for outcome in outcomes),
        "most seconds": max(outcome.seconds for outcome in outcomes),
        "most MiB": max(outcome.mib for outcome in outcomes),
    }


def table(found: dict[str, Any]) -> str:
    """The figures as a table of Markdown."""
    heads = list(found["all"])
    rows = [*found["groups"].items(), ("**all**", found["all"])]
    lines = [f"| group | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{value:,}" for value in summary.values()) + " |" for name, summary in rows]
    return "\n".join(lines)


def main() -> int:
    """Run what is asked for; 0 where every case came out as documented."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="a regular expression for groups and names")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--say", action="store_true", help="print what each case said")
    given = parser.parse_args()
    if given.worker:
        _work(given.worker)
        return 0
    cases = [case for case in CASES if re.search(given.only, f"{case.group} {case.name}", re.IGNORECASE)]
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for outcome in measured(cases, Path(folder)):
            outcomes.append(outcome)
            faults = f"  FAULT: {'; '.join(outcome.faults)}" if outcome.faults else ""
            print(f"{outcome.kind:9} {outcome.seconds:6.1f} s {outcome.mib:6,} MiB  {outcome.case}{faults}", flush=True)
            if given.say or outcome.faults:
                print("    | " + outcome.said.strip().replace("\n", "\n    | "), flush=True)
    found = figures(outcomes)
    print(table(found))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
