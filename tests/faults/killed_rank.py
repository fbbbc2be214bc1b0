"""One of two processes is killed at random moments under torchrun with restarts: does every run end equal?

    python tests/faults/killed_rank.py [--total 20] [--kills 3] [--seed 0]

A run of two processes (gloo, CPU) that nothing befalls says what the others must come to: weights, metrics and
predictions, to the bit. In each of the others one process, drawn by chance, gets SIGKILL at a moment drawn from the
whole length of a start, imports and final save included; then, when torchrun has started both again, another one. A
run that ends before its moment counts no kill; runs follow until there are enough kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parent.parent.parent
sys.path[:0] = [str(REPOSITORY), str(HERE.parent.parent)]

from fault_samples import outcome  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "results" / "faults_ranks.json"
JOB = (
    *("recipe=digits", "data.max_train_samples=400", "data.max_eval_samples=80", "training.num_train_epochs=12"),
    *("evaluation.bootstrap=50", "precision=no", "training.per_device_train_batch_size=8", "output_dir=run"),
)


def launch(folder: Path, restarts: int) -> subprocess.Popen[str]:
    """Two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = str(REPOSITORY / "hf_finetune" / "run.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    environment["HF_FINETUNE_CACHE"] = str(folder / "cache")
    with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
        command = [*torchrun, "--max-restarts", str(restarts), script, *JOB]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err, text=True)


def process_of(launcher: int, rank: int) -> psutil.Process | None:
    """The process of a rank, if it is there."""
    for process in psutil.Process(launcher).children():
        with suppress(psutil.Error, OSError):
            if process.environ().get("RANK") == str(rank):
                return process
    return None


def moment(run: Path) -> str:
    """What the run is at."""
    if (run / "metrics.json").exists():
        return "at its end"
    if (run / "config.json").exists() or list(run.glob(".saving-*")):
        return "the final save"
    if (run / "checkpoints" / "partial").exists():
        return "a checkpoint"
    return "training" if (run / "state.json").exists() else "before training"


def killed(folder: Path, draw: random.Random, kills: int, seconds: float, expected: Any) -> dict[str, Any]:
    """One run, of which a process is killed so many times."""
    launcher = launch(folder, restarts=kills + 1)
    hit: list[dict[str, Any]] = []
    before: set[int] = set()
    for _ in range(kills):
        rank, after = draw.randrange(2), draw.uniform(0.05, 0.95) * seconds
        victim = None
        while launcher.poll() is None and (victim is None or victim.pid in before):
            time.sleep(0.02)
            victim = process_of(launcher.pid, rank)
        time.sleep(after)
        if launcher.poll() is not None or victim is None or not victim.is_running():
            break
        at = moment(folder / "run")
        before |= {process.pid for process in psutil.Process(launcher.pid).children()}
        os.kill(victim.pid, signal.SIGKILL)
        hit.append({"rank": rank, "after_seconds": round(after, 1), "in": at})
    code = launcher.wait(timeout=900)
    said, told = (folder / "out.txt").read_text(), (folder / "err.txt").read_text()
    whole = code == 0 and (folder / "run" / "metrics.json").exists()
    return {
        "kills": hit,
        "went_on_from": [line.split(" (")[-1].rstrip(").") for line in said.splitlines() if "Continuing from" in line],
        "exit_code": code,
        "equal": whole and outcome(folder / "run") == expected,
        **({} if whole else {"says": told[-3000:]}),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--total", type=int, default=20, help="kills in all")
    parser.add_argument("--kills", type=int, default=3, help="in each run, at most: it may end before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        outcomes, seconds = [], float("inf")
        for name in ("whole", "again"):
            (work / name).mkdir()
            began = time.monotonic()
            code = launch(work / name, 0).wait(timeout=600)
            seconds = min(seconds, time.monotonic() - began)
            assert code == 0, (work / name / "err.txt").read_text()
            outcomes.append(outcome(work / name / "run"))
        assert outcomes[0] == outcomes[1], "two runs that nothing befalls differ already"
        print(f"uninterrupted: {seconds:.1f} s; two of them are equal to the bit", flush=True)
        rows: list[dict[str, Any]] = []
        while sum(len(row["kills"]) for row in rows) < options.total and len(rows) < 3 * options.total:
            folder = work / f"run-{len(rows)}"
            folder.mkdir()
            rows.append(killed(folder, draw, options.kills, seconds, outcomes[0]))
            print(json.dumps(rows[-1]), flush=True)
            write(options.out, rows, seconds)  # after each: it takes a while
    print(json.dumps(summary(rows, seconds), indent=1))


def summary(rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The figures."""
    moments = [hit["in"] for row in rows for hit in row["kills"]]
    return {
        "runs": len(rows),
        "kills": len(moments),
        "equal": sum(row["equal"] for row in rows),
        "moments": {at: moments.count(at) for at in sorted(set(moments))},
        "uninterrupted_seconds": round(seconds, 1),
    }


def write(out: Path, rows: list[dict[str, Any]], seconds: float) -> None:
    """The figures and the runs behind them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"summary": summary(rows, seconds), "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
