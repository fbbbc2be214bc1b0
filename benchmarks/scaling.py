"""Images a second of two processes over those of one, a thread and a core each.

    python benchmarks/scaling.py --rounds 3

The same work a process: the same batch, the same number of steps. Each process is pinned to a core of its own, the
single one too. What is lost goes into averaging gradients and waiting for each other, and into what cores share
(memory, caches, the clock): two runs beside each other that know nothing of each other (`apart`) tell the latter.
Rounds of all three alternate. Results: results/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from circumstances import circumstances

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "scaling.json"
_PINNED = """
import os, sys, time
os.sched_setaffinity(0, {int(os.environ["LOCAL_RANK"]) + int(os.environ["FIRST_CORE"])})
import torch
from torch.optim import optimizer
torch.set_num_threads(1)
from hf_finetune.cli import main
steps = []
optimizer.register_optimizer_step_pre_hook(lambda *_: steps.append(time.perf_counter()))
main()
if os.environ["LOCAL_RANK"] == "0":
    print("STEPS", len(steps) - 1, steps[-1] - steps[0])
"""


def run(processes: int, args: argparse.Namespace, folder: Path, first_core: int = 0) -> float:
    """Images a second of all processes together, between the first and the last step."""
    output = folder / f"run{processes}_{first_core}"
    script = folder / "pinned.py"
    script.write_text(_PINNED)
    # Three processes hold what a step needs; `train` is the verb.
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)),
        *(str(script), "train", "recipe=digits", f"model.checkpoint={args.checkpoint}", f"data.dataset={args.dataset}"),
        *(f"data.image={args.image}", "data.test_split=test", f"data.max_train_samples={args.batch * 64 * 2}"),
        *("data.max_eval_samples=64", f"training.max_steps={args.steps}", f"strategy={args.strategy}"),
        *(f"training.per_device_train_batch_size={args.batch}", "training.eval_strategy=steps"),
        *(f"training.eval_steps={args.steps}", "precision=no", "evaluation.bootstrap=0", "cache.prefix=off"),
        *("data.validation=0.05", f"output_dir={output}"),
    ]
    more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent), "FIRST_CORE": str(first_core)}
    environment = {**os.environ, **more}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    steps, seconds = done.stdout.split("STEPS", 1)[1].split()[:2]
    return int(steps) * args.batch * processes / float(seconds)


def apart(args: argparse.Namespace, folder: Path) -> float:
    """Images a second of two single processes at the same time."""
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda core: run(1, args, folder, core), (0, 1)))


def main() -> None:
    """Alternate, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="uoft-cs/cifar10")
    parser.add_argument("--image", default="img")
    parser.add_argument("--checkpoint", default="WinKawaks/vit-tiny-patch16-224")
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--batch", type=int, default=16, help="of a process")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            one, two = run(1, args, Path(folder)), run(2, args, Path(folder))
        with tempfile.TemporaryDirectory() as folder:
            beside = apart(args, Path(folder))
        told = {"efficiency": two / (2 * one), "of_apart": two / beside}
        rounds.append({"one": one, "two": two, "apart": beside, **told})
        print(rounds[-1], flush=True)
    found = {
        **{name: statistics.median(each[name] for each in rounds) for name in ("efficiency", "of_apart")},
        "rounds": rounds,
        **{name: value for name, value in vars(args).items() if name != "rounds"},
        "circumstances": circumstances(),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
