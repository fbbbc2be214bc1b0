"""Images a second of two processes over those of one, a thread and a core each.

    python benchmarks/scaling.py --rounds 3

The same work a process: the same batch, the same number of steps. Each process is pinned to a core of its own, the
single one too, so that two have twice what one has. What is lost goes into averaging gradients and waiting for each
other. Rounds of one and two alternate. Results: results/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from circumstances import circumstances

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "scaling.json"
_PINNED = """
import os, sys
os.sched_setaffinity(0, {int(os.environ["LOCAL_RANK"])})
import torch
torch.set_num_threads(1)
from hf_finetune.cli import main
main()
"""


def run(processes: int, args: argparse.Namespace, folder: Path) -> float:
    """Images a second of all processes together, between the first and the last step."""
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
        *("data.validation=0.05", f"output_dir={folder / f'run{processes}'}"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    metrics = json.loads((folder / f"run{processes}" / "metrics.json").read_text())["train"]
    return float(metrics["samples_per_second"])


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
        rounds.append({"one": one, "two": two, "efficiency": two / (2 * one)})
        print(rounds[-1], flush=True)
    found = {
        "efficiency": statistics.median(each["efficiency"] for each in rounds),
        "rounds": rounds,
        **{name: value for name, value in vars(args).items() if name != "rounds"},
        "circumstances": circumstances(),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
