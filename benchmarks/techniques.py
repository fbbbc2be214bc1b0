"""Every technique of transfer learning on three small problems, several seeds each, through the public entry.

    python benchmarks/techniques.py --out benchmarks/results/techniques.jsonl

writes one line for every finished run and skips those that are there, so an interrupted call is given again. The table
in benchmarks/README.md is made from the file by `python benchmarks/tables.py`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from circumstances import circumstances
from techniques_problems import PROBLEMS, STUDENT, TEACHER, WIDTHS, Technique


def main() -> None:
    """Run what is not in --out yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "techniques.jsonl")
    parser.add_argument("--work", type=Path, default=Path("runs/techniques"), help="folder of the runs, emptied")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=("toy", "full"), default="full")
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--techniques", default="", help="names, with commas; all if left out")
    options = parser.parse_args()
    done = {(line["problem"], line["technique"], line["seed"]) for line in read_lines(options.out)}
    for seed, problem, technique in _order(options):
        if (problem, technique.name, seed) not in done:
            _one(options, problem, technique, seed)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The finished runs in a file; a line that was cut off by an interruption is none."""
    written = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in written if line.endswith("}\n")]


def _order(options: argparse.Namespace) -> Iterator[tuple[int, str, Technique]]:
    """Every run, one seed after the other, so that an early stop leaves whole tables."""
    wanted = set(filter(None, options.techniques.split(",")))
    for seed in range(options.seeds):
        for problem in options.problems.split(","):
            for technique in PROBLEMS[problem].techniques:
                if not wanted or technique.name in wanted:
                    yield seed, problem, technique


def _one(options: argparse.Namespace, problem: str, technique: Technique, seed: int) -> None:
    """One run, and its line; a failure is reported and leaves the others their turn."""
    from hf_finetune import finetune, load_recipe

    work = options.work / options.scale / f"{problem}-{seed}"
    recipe_file = _recipe_file(work, problem, options.scale)
    places = {TEACHER: str(work / _teacher_of(problem)), STUDENT: str(work / "student-checkpoint")}
    overrides = [_filled(pair, places) for pair in technique.overrides]
    if STUDENT in "".join(technique.overrides):
        _write_student(Path(places[STUDENT]), WIDTHS[problem])
    if options.scale == "toy" and "training.num_train_epochs=10" in overrides:
        overrides.remove("training.num_train_epochs=10")
    folder = work / technique.name
    started = time.perf_counter()
    try:
        run = finetune(load_recipe(str(recipe_file), *overrides, f"seed={seed}", f"output_dir={folder}"))
    except Exception:  # one technique that fails must not cost the others their night
        traceback.print_exc()
        return
    line = {
        "problem": problem,
        "technique": technique.name,
        "seed": seed,
        "scale": options.scale,
        "overrides": list(technique.overrides),
        "learning_rate": _rate(run.recipe),
        "test": run.metrics["test"],
        "train": run.metrics["train"],
        "correct": _correct(folder),
        "seconds": round(time.perf_counter() - started, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        **circumstances(),
    }
    with options.out.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
    print(f"--- {problem} {technique.name} seed {seed}: {line['test']['accuracy']:.4f} {line['seconds']} s", flush=True)
    if not technique.teacher:
        shutil.rmtree(folder)
    gc.collect()


def _teacher_of(problem: str) -> str:
    return next(technique.name for technique in PROBLEMS[problem].techniques if technique.teacher)


def _filled(pair: str, places: dict[str, str]) -> str:
    for word, value in places.items():
        pair = pair.replace(word, value)
    return pair


def _recipe_file(work: Path, problem: str, scale: str) -> Path:
    recipe = {
        name: dict(value) if isinstance(value, dict) else value for name, value in PROBLEMS[problem].recipe.items()
    }
    for section, values in PROBLEMS[problem].toy.items() if scale == "toy" else ():
        recipe[section].update(values)
    work.mkdir(parents=True, exist_ok=True)
    file = work / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file


def _write_student(folder: Path, widths: tuple[int, ...]) -> None:
    """A small ResNet with random weights, drawn anew by strategy=scratch, and its processor."""
    if (folder / "config.json").is_file():
        return
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    side = 32
    config = ResNetConfig(
        embedding_size=widths[0], hidden_sizes=list(widths), depths=[1, 1, 1, 1], layer_type="basic", num_labels=10
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)


def _rate(recipe: Any) -> float:
    from hf_finetune.recipes.rates import default_learning_rate

    return float(recipe.training.values().get("learning_rate") or default_learning_rate(recipe))


def _correct(folder: Path) -> str:
    """Which test rows were right, as the hexadecimal digits of their bits, in the order of the rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "predictions.parquet")
    right = np.array([a == b for a, b in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)])
    return np.packbits(right).tobytes().hex()


if __name__ == "__main__":
    main()
