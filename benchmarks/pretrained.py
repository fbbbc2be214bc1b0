"""What a pretrained start is worth: accuracy by step of ViT-Tiny on CIFAR-10, from its checkpoint or random weights.

    python benchmarks/pretrained.py                # goes on where the last call stopped, within a run too
    python benchmarks/pretrained.py --scale toy    # handwritten digits, anywhere in under a minute, no network

Three starts: pretrained, pretrained with a tenth of the labels, random. All are scored on the same test images during
training. Nothing is chosen by these scores: what is compared is the whole curve. Every finished run is a line of
results/pretrained.jsonl; `pretrained_page.py` writes docs/pretrained.md and its picture from the file.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circumstances import circumstances
from techniques import read_lines

RESULTS = Path(__file__).resolve().parent / "results" / "pretrained.jsonl"
BATCH = 32


@dataclass(frozen=True)
class Start:
    """One curve.

    Args:
        name: as the page shows it.
        strategy: full or scratch.
        rows: labelled training rows.
        steps: of BATCH images.
        every: steps between two scores.
        rate: the peak of the cosine schedule.
    """

    name: str
    strategy: str
    rows: int
    steps: int
    every: int
    rate: float

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return self.name.replace(", ", "-").replace(" ", "-")


# The rates are usual ones for AdamW and were not tuned on this problem, for any of the three.
STARTS = {
    "full": (
        Start("pretrained, a tenth of the labels", "full", 400, 100, 20, 1e-4),
        Start("pretrained", "full", 4_000, 200, 20, 1e-4),
        Start("random weights", "scratch", 4_000, 1_000, 100, 5e-4),
    ),
    "toy": (
        Start("pretrained, a tenth of the labels", "full", 64, 4, 2, 1e-3),
        Start("pretrained", "full", 640, 8, 2, 1e-3),
        Start("random weights", "scratch", 640, 12, 4, 1e-3),
    ),
}
PROBLEMS = {
    "full": (
        "cifar10",
        "model.checkpoint=WinKawaks/vit-tiny-patch16-224",
        "model.image_size=64",
        "data.augment={pad_crop: 4, flip: 0.5}",
        "data.max_eval_samples=500",
    ),
    "toy": ("digits", "model.checkpoint=package:digits-vit", "data.max_eval_samples=100"),
}


def main() -> None:
    """Runs what is missing, one seed after the other, so that an early stop leaves whole pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/pretrained"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=tuple(STARTS), default="full")
    options = parser.parse_args()
    done = {(line["name"], line["seed"]) for line in read_lines(options.out)}
    for seed in range(options.seeds):
        for start in STARTS[options.scale]:
            if (start.name, seed) not in done:
                line = run_one(start, seed, options.scale, options.work)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(line) + "\n")
                print(f"--- {start.name}, seed {seed}: {line['curve'][-1]['accuracy']:.4f}", flush=True)


def run_one(start: Start, seed: int, scale: str, work: Path) -> dict[str, Any]:
    """One run, gone on with where it was interrupted, as a line of the results."""
    from hf_finetune import finetune, load_recipe

    began = time.process_time()
    run = finetune(load_recipe(PROBLEMS[scale][0], *_pairs(start, seed, scale, work)))
    history = json.loads((run.path / "about.json").read_text(encoding="utf-8"))["history"]
    curve = [
        {"step": entry["step"], "samples": entry["step"] * BATCH, "accuracy": entry["eval_accuracy"]}
        for entry in history
        if "eval_accuracy" in entry
    ]
    gc.collect()
    return {
        "name": start.name,
        "strategy": start.strategy,
        "rows": start.rows,
        "learning_rate": start.rate,
        "seed": seed,
        "scale": scale,
        # The score of the checkpoint that was kept comes last, at the step of an earlier one: not a point of the curve.
        "curve": list({point["step"]: point for point in reversed(curve)}.values())[::-1],
        "test_rows": run.metrics["validation"]["samples"],
        "seconds": run.metrics["train"]["total_seconds"],
        "processor_seconds": round(time.process_time() - began, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        **circumstances(),
    }


def _pairs(start: Start, seed: int, scale: str, work: Path) -> tuple[str, ...]:
    """Scored on test rows while it trains (data.validation=test), with no other test."""
    return (
        *PROBLEMS[scale][1:],
        f"strategy={start.strategy}",
        f"data.max_train_samples={start.rows}",
        "data.validation=test",
        "data.test_split=null",
        "training.num_train_epochs=null",
        f"training.max_steps={start.steps}",
        "training.eval_strategy=steps",
        "training.save_strategy=steps",
        f"training.eval_steps={start.every}",
        f"training.save_steps={start.every}",
        f"training.learning_rate={start.rate}",
        f"training.per_device_train_batch_size={BATCH}",
        "training.per_device_eval_batch_size=250",
        "evaluation.metrics=accuracy",
        "evaluation.bootstrap=0",
        f"seed={seed}",
        f"output_dir={work / scale / start.folder}-{seed}",
    )


if __name__ == "__main__":
    main()
