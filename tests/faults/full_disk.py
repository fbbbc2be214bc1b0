"""Runs on a disk that is full, at many levels of what is free: is anything half taken for whole, is the disk named?

    python tests/faults/full_disk.py [--levels 20]      needs root, for a tmpfs of its own

For each strategy a run with plenty of room tells how much it takes at most. Then it runs again at each level between
nothing and a little more than that: at even levels the disk is that full before the run begins, at odd levels it
becomes so when training has begun. At every second pair of levels the cache and the temporary folder lie on the same
disk, so that there is nowhere else to go. Then room is made, what the message says is done, and the same command runs
again. Every run is a process of its own, and the command line as people use it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parent.parent.parent
sys.path[:0] = [str(REPOSITORY), str(HERE.parent.parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fault_samples import fill, outcome, small_disk, weights_of  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "results" / "faults_disk.json"
SIZE = 32 << 20
STRATEGIES = ("full", "lora", "head")
JOB = (
    *("recipe=digits", "data.max_train_samples=120", "data.max_eval_samples=40", "training.num_train_epochs=4"),
    *("evaluation.bootstrap=50", "precision=no", "cache.prefix=off", "model.checkpoint=package:digits-vit"),
)


def forked(work: Callable[[], Any], meanwhile: Callable[[], None] = lambda: None) -> Any:
    """What a process of its own comes to; this one imports everything once, and trains nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        meanwhile()
        time.sleep(0.003)
    with os.fdopen(read, "rb") as answer:
        return json.loads(answer.read())


def run(arguments: list[str], home: Path, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """The command line in a process of its own: its exit code, and what it said on standard error."""
    said = Path(tempfile.mkdtemp()) / "stderr.txt"

    def command() -> int:
        os.environ["HF_FINETUNE_CACHE"], tempfile.tempdir = str(home / "cache"), str(home / "tmp")
        (home / "tmp").mkdir(exist_ok=True)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from hf_finetune.cli import main

        try:
            return main(["train", *arguments])
        except BaseException:
            traceback.print_exc()
            return 1

    code = forked(command, meanwhile)
    told = said.read_text()
    shutil.rmtree(said.parent)
    return code, told


class Watch:
    """The most that a disk has held; and fills it when training begins.

    Args:
        disk: to be looked at.
        leave: bytes that stay free when it is filled; None to leave it alone.
    """

    def __init__(self, disk: Path, leave: int | None = None) -> None:
        self.disk, self.leave, self.most, self.filled = disk, leave, 0, False

    def __call__(self) -> None:
        """Look now."""
        self.most = max(self.most, shutil.disk_usage(self.disk).used)
        if self.leave is not None and not self.filled and (self.disk / "run" / "state.json").exists():
            fill(self.disk, self.leave)
            self.filled = True


def loads(folder: Path, expected: Any) -> str:
    """Whether there is a model, and whether it is the one that the recipe gives."""

    def look() -> str:
        from hf_finetune.errors import UserError
        from hf_finetune.model import load_finished

        try:
            load_finished(folder)
        except (UserError, OSError):
            return "none"
        return "the trained one" if weights_of(folder) == expected[0] else "ANOTHER"

    return str(forked(look))


def level(work: Path, strategy: str, leave: int, during: bool, alone: bool, expected: Any) -> dict[str, Any]:
    """One run at one level, and what becomes of it when there is room again."""
    elsewhere = work / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    with small_disk(work / "disk", str(SIZE)) as disk:
        home = disk if alone else elsewhere
        arguments = [*JOB, f"strategy={strategy}", f"output_dir={disk / 'run'}"]
        if not during:
            fill(disk, leave)
        watch = Watch(disk, leave if during else None)
        code, said = run(arguments, home, watch)
        found: dict[str, Any] = {
            "strategy": strategy,
            "free_bytes": leave,
            "filled": "during the run" if during else "before the run",
            "another_disk": not alone,
            "exit_code": code,
            "model": loads(disk / "run", expected),
            "finished": (disk / "run" / "metrics.json").exists(),
            "names_the_disk": code == 0 or f"mounted at {disk}" in said,
            "traceback": "Traceback" in said,
            "says": next((line for line in said.splitlines() if "the disk of" in line and "warning" not in line), ""),
        }
        (disk / "filler").unlink(missing_ok=True)
        moves = [shlex.split(line) for line in said.splitlines() if line.strip().startswith("mv ")]
        found["rescued"] = bool(moves)
        for move in moves:
            subprocess.run(move, check=True)
        again, told = run(arguments, home)
        found["again"] = again
        found["equal_in_the_end"] = again == 0 and outcome(disk / "run") == expected
        if not found["equal_in_the_end"]:
            found["again_says"] = told[-2000:]
    shutil.rmtree(elsewhere)
    return found


def plenty(work: Path, strategy: str) -> tuple[Any, int]:
    """The run with room: what it comes to, and the most that it took."""
    with small_disk(work / "disk", str(SIZE)) as disk:
        arguments = [*JOB, f"strategy={strategy}", f"output_dir={disk / 'run'}"]
        watch = Watch(disk)
        code, said = run(arguments, work, watch)
        assert code == 0, said
        return outcome(disk / "run"), watch.most


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=20, help="of each strategy")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in ("hf_finetune.training", "hf_finetune.publish", "hf_finetune.data"):
        importlib.import_module(name)  # once, for all the forked runs

    rows: list[dict[str, Any]] = []
    most: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        for strategy in options.strategies:
            expected, most[strategy] = plenty(work, strategy)
            print(f"{strategy}: takes {most[strategy]:,} bytes at most", flush=True)
            for number in range(options.levels):
                leave = int(1.05 * most[strategy] * number / max(1, options.levels - 1)) // 4096 * 4096
                rows.append(level(work, strategy, leave, bool(number % 2), bool(number // 2 % 2), expected))
                shown = {name: value for name, value in rows[-1].items() if name not in ("strategy", "says")}
                print(f"{strategy} {json.dumps(shown)}", flush=True)
                write(options.out, rows, most)  # after each: it takes a while
    print(json.dumps(summary(rows, most), indent=1))


def summary(rows: list[dict[str, Any]], most: dict[str, int]) -> dict[str, Any]:
    """The figures."""
    failed = [row for row in rows if row["exit_code"] != 0]
    return {
        "runs": len(rows),
        "failed_for_room": len(failed),
        "models_that_differ": sum(row["model"] == "ANOTHER" for row in rows),
        "failed_but_finished": sum(row["finished"] for row in failed),
        "messages_without_the_disk": sum(not row["names_the_disk"] for row in rows),
        "tracebacks": sum(row["traceback"] for row in rows),
        "rescued_elsewhere": sum(row["rescued"] for row in rows),
        "equal_in_the_end": sum(row["equal_in_the_end"] for row in rows),
        "most_bytes": most,
    }


def write(out: Path, rows: list[dict[str, Any]], most: dict[str, int]) -> None:
    """The figures and the runs behind them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"summary": summary(rows, most), "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
