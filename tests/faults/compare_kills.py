"""A real comparison that is killed again and again, and one that nobody touches: is the table the same?

    HF_HOME=/some/hf_home HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python tests/faults/compare_kills.py --folder scratch

Three strategies x five seeds of ViT-Tiny on ants and bees (`local/ants_bees` of hf_home). SIGKILL falls at moments
drawn at random; the same command is then given again until it ends. Scores, intervals and tests must be those of the
comparison that was left alone; seconds are not compared, since no two starts have them alike.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
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
    """The command, in forks of a process that has imported all that it needs, and an output_dir of its own.

    Args:
        folder: scratch, with ants_bees.yaml in it; the working directory.
        name: of the output_dir.
        words: of the command.
    """

    def __init__(self, folder: Path, name: str, words: list[str]) -> None:
        self.folder, self.name = folder, name
        self.words = ["compare", "recipe=ants_bees.yaml", *words, f"output_dir={name}"]

    def start(self) -> int:
        """Start it, and give the number of its process; what it says goes to NAME.log."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            log = os.open(self.folder / f"{self.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            from hf_finetune.cli import main

            code = main(self.words)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def found(self) -> dict[str, Any]:
        """What compare.json holds."""
        found: dict[str, Any] = json.loads((self.folder / self.name / "compare.json").read_text())
        return found


def struck(comparison: Comparison, kills: int, draw: random.Random, most: float) -> list[float]:
    """Kill it so many times, then let it end; the seconds after which each blow fell."""
    blows: list[float] = []
    while True:
        child, began = comparison.start(), time.monotonic()
        wait = draw.uniform(1.0, most) if len(blows) < kills else float("inf")
        status = None
        while status is None and time.monotonic() - began < wait:
            ended, told = os.waitpid(child, os.WNOHANG)
            status = told if ended else None
            time.sleep(0.05)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            blows.append(round(wait, 1))
            print(f"killed after {wait:.1f} s", flush=True)
        elif os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"it failed: see {comparison.folder / comparison.name}.log")
        else:
            return blows


def table_of(found: dict[str, Any]) -> dict[str, Any]:
    """What must be the same: all but seconds, and what is chosen by them."""
    cells = [
        {key: value for key, value in cell.items() if "seconds" not in key and key != "folder"}
        for cell in found["cells"]
    ]
    kept = ("metric", "split", "samples", "seeds", "baseline", "pairs", "notes", "failed")
    return {**{key: found[key] for key in kept}, "cells": cells, "best": found["take"]["best"]}


def imported() -> None:
    """Import here, with one thread, what each fork would import again for many seconds."""
    sys.path.insert(0, str(REPOSITORY))
    import torch

    torch.set_num_threads(1)
    for name in ("cli", "finetune", "training", "advice.compare", "publish.report_trials", "publish.report_gallery"):
        importlib.import_module(f"hf_finetune.{name}")
    for name in ("peft", "scipy.stats", "transformers.models.vit.modeling_vit"):
        importlib.import_module(name)


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
    # What was measured of this machine (which number format is faster) is kept, and the same for both.
    os.environ["HF_FINETUNE_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    imported()
    killed = Comparison(folder, "killed", options.words)
    blows = struck(killed, options.kills, random.Random(options.seed), options.most)
    middle = time.monotonic()
    whole = Comparison(folder, "whole", options.words)
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
