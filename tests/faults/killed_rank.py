"""One of two processes is killed at random moments under torchrun with restarts: does every run end equal?

    python tests/faults/killed_rank.py [--runs 20] [--seed 0]

A run of two processes (gloo, CPU) that nothing befalls says what the others must come to: weights, metrics and
predictions, to the bit. In each of the others one process, drawn by chance, gets SIGKILL at a moment drawn from the
whole length of the run, imports and final save included.
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


def killed(folder: Path, rank: int, after: float, expected: Any) -> dict[str, Any]:
    """One run."""
    began = time.monotonic()
    launcher = launch(folder, restarts=3)
    time.sleep(max(0.0, after - (time.monotonic() - began)))
    victim = process_of(launcher.pid, rank) if launcher.poll() is None else None
    while victim is None and launcher.poll() is None:
        time.sleep(0.02)
        victim = process_of(launcher.pid, rank)
    at = moment(folder / "run")
    if victim is not None:
        os.kill(victim.pid, signal.SIGKILL)
    code = launcher.wait(timeout=600)
    said, told = (folder / "out.txt").read_text(), (folder / "err.txt").read_text()
    whole = code == 0 and (folder / "run" / "metrics.json").exists()
    return {
        "rank": rank,
        "after_seconds": round(after, 2),
        "killed": victim is not None,
        "in": at,
        "went_on_from": [line.split(" (")[-1].rstrip(").") for line in said.splitlines() if "Continuing from" in line],
        "exit_code": code,
        "equal": whole and outcome(folder / "run") == expected,
        **({} if whole else {"says": told[-3000:]}),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        outcomes = []
        for name in ("whole", "again"):
            (work / name).mkdir()
            began = time.monotonic()
            code = launch(work / name, 0).wait(timeout=600)
            seconds = time.monotonic() - began
            assert code == 0, (work / name / "err.txt").read_text()
            outcomes.append(outcome(work / name / "run"))
        assert outcomes[0] == outcomes[1], "two runs that nothing befalls differ already"
        print(f"uninterrupted: {seconds:.1f} s; two of them are equal to the bit", flush=True)
        rows = []
        for number in range(options.runs):
            folder = work / f"run-{number}"
            folder.mkdir()
            rows.append(killed(folder, draw.randrange(2), draw.uniform(0.1, 1.0) * seconds, outcomes[0]))
            print(json.dumps(rows[-1]), flush=True)
    summary = {
        "runs": len(rows),
        "killed": sum(row["killed"] for row in rows),
        "equal": sum(row["equal"] for row in rows),
        "moments": {at: sum(row["in"] == at for row in rows) for at in sorted({row["in"] for row in rows})},
        "uninterrupted_seconds": round(seconds, 1),
    }
    print(json.dumps(summary, indent=1))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"summary": summary, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
