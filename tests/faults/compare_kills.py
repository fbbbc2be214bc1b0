"""A real comparison that is killed again and again, and one that nobody touches: is the table the same?

    HF_HOME=/some/hf_home HF_HUB_OFFLINE=1 python tests/faults/compare_kills.py --folder scratch

Three strategies x five seeds of ViT-Tiny on ants and bees (`local/ants_bees` of hf_home). SIGKILL falls at moments
drawn at random; the same command is then given again until it ends. Scores, intervals and tests must be those of the
comparison that was left alone; seconds are not compared, since no two starts have them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results" / "faults_compare.json"
RECIPE = """\
task: image-classification
model:
  checkpoint: WinKawaks/vit-tiny-patch16-224
data:
  dataset: local/ants_bees
  validation: 0.2
  augment: none
strategy:
  kind: full
training:
  num_train_epochs: 3
  per_device_train_batch_size: 16
  per_device_eval_batch_size: 32
evaluation:
  metrics: [accuracy, macro_f1, log_loss]
"""


class Comparison:
    """The command, in a folder of its own.

    Args:
        folder: scratch, with ants_bees.yaml in it.
        name: of the output_dir.
        words: of the command.
        cache: HF_FINETUNE_CACHE.
    """

    def __init__(self, folder: Path, name: str, words: list[str], cache: Path) -> None:
        self.folder, self.name = folder, name
        self.words = ["compare", "recipe=ants_bees.yaml", *words, f"output_dir={name}"]
        self.environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_FINETUNE_CACHE": str(cache)}

    def start(self) -> subprocess.Popen[str]:
        """Start it; what it says goes to NAME.log."""
        with (self.folder / f"{self.name}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "hf_finetune.cli", *self.words],
                cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

    def found(self) -> dict[str, Any]:
        """What compare.json holds."""
        found: dict[str, Any] = json.loads((self.folder / self.name / "compare.json").read_text())
        return found


def struck(comparison: Comparison, kills: int, draw: random.Random, most: float) -> list[float]:
    """Kill it so many times, then let it end; the seconds after which each blow fell."""
    blows: list[float] = []
    while True:
        running = comparison.start()
        wait = draw.uniform(3.0, most) if len(blows) < kills else None
        try:
            if running.wait(wait) != 0:
                raise SystemExit(f"it failed: see {comparison.folder / comparison.name}.log")
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            blows.append(round(float(wait or 0.0), 1))
            continue
        return blows


def table_of(found: dict[str, Any]) -> dict[str, Any]:
    """What must be the same: all but seconds, and what is chosen by them."""
    cells = [
        {key: value for key, value in cell.items() if "seconds" not in key and key != "folder"}
        for cell in found["cells"]
    ]
    kept = ("metric", "split", "samples", "seeds", "baseline", "pairs", "notes", "failed")
    return {**{key: found[key] for key in kept}, "cells": cells, "best": found["take"]["best"]}


def main() -> int:
    """Strike, compare, print, write the figures; 1 where the tables differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--most", type=float, default=90.0, help="seconds until a blow, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the blows")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("words", nargs="*", default=["strategy=head,lora,full", "seeds=5"])
    options = parser.parse_intermixed_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ants_bees.yaml").write_text(RECIPE)
    began = time.monotonic()
    killed = Comparison(folder, "killed", options.words, folder / "cache_killed")
    blows = struck(killed, options.kills, random.Random(options.seed), options.most)
    middle = time.monotonic()
    # Which number format is faster is measured once on a machine, and kept: both are to compute in the same.
    whole = Comparison(folder, "whole", options.words, folder / "cache_killed")
    struck(whole, 0, random.Random(0), 0.0)
    first, second = table_of(killed.found()), table_of(whole.found())
    figures = {
        "words": options.words,
        "runs": sum(len(cell["seeds"]) for cell in first["cells"]),
        "kills": blows,
        "seconds_killed": round(middle - began),
        "seconds_whole": round(time.monotonic() - middle),
        "same_table": first == second,
        "found": whole.found(),
    }
    options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({key: value for key, value in figures.items() if key != "found"}, indent=1))
    print(figures["found"]["take"]["sentence"])
    if first != second:
        print(f"they differ: {folder / 'killed' / 'compare.json'} and {folder / 'whole' / 'compare.json'}")
    return 0 if first == second else 1


if __name__ == "__main__":
    sys.exit(main())
