"""Is the advice good? Every strategy on many problems, and what the advice would have taken before them.

    python benchmarks/advice.py run                       # the whole grid: days of two cores, hours of a GPU
    python benchmarks/advice.py run --sizes 100,500 --checkpoints vit,minilm --minutes 40
    python benchmarks/advice.py fit                       # hf_finetune/assets/advice.json from the results
    python benchmarks/advice.py table                     # the section of benchmarks/README.md

`run` writes one line for every measurement and every training into results/advice.jsonl and skips those that are there,
so an interrupted call is given again; `fit` and `table` are in advice_fit.py. A cell is a problem, a size, a
checkpoint and a seed; in it every strategy runs with the settings, rate and epochs that the advice would give it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from advice_fit import BIT, fit, table
from advice_problems import MINILM, PROBLEMS, SIZES, VIT, recipe_of, rows_of
from circumstances import circumstances
from techniques import read_lines

RESULTS = Path(__file__).resolve().parent / "results" / "advice.jsonl"
KINDS = ("head", "freeze", "lora", "lp_ft", "full", "scratch", BIT)
SHORT = {"vit": VIT, "minilm": MINILM}


class Cell(NamedTuple):
    """Where strategies are compared."""

    problem: str
    size: int
    checkpoint: str
    seed: int

    def facts(self) -> dict[str, Any]:
        """As a line of the results holds it."""
        return self._asdict()


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "fit", "table"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/advice"), help="folder of the runs, emptied")
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--checkpoints", default="", help="vit, minilm or whole names, with commas; all if left out")
    parser.add_argument("--strategies", default=",".join(KINDS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell after so long")
    options = parser.parse_args()
    if options.what == "run":
        run(options)
    else:
        lines = read_lines(options.out), read_lines(RESULTS.parent / "techniques.jsonl")
        print(fit(*lines) if options.what == "fit" else table(*lines))


def run(options: argparse.Namespace) -> None:
    """Every cell that is not whole yet, the small ones of all problems first."""
    until = time.monotonic() + 60 * options.minutes
    done = {(*(line[name] for name in Cell._fields), line["what"]) for line in read_lines(options.out)}
    for cell in cells(options):
        wanted = [kind for kind in options.strategies.split(",") if (*cell, kind) not in done]
        if not wanted:
            continue
        if time.monotonic() > until:
            print("the time is up")
            return
        try:
            _cell(cell, wanted, (*cell, "advice") not in done, options)
        except Exception:  # one problem that fails must not cost the others their night
            traceback.print_exc()


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """In the order in which they run."""
    chosen = [SHORT.get(name, name) for name in filter(None, options.checkpoints.split(","))]
    sizes = [int(size) for size in options.sizes.split(",")]
    for seed, size, name in itertools.product(range(options.seeds), sizes, options.problems.split(",")):
        for checkpoint in PROBLEMS[name].checkpoints:
            if not chosen or checkpoint in chosen:
                yield Cell(name, size, checkpoint, seed)


def _cell(cell: Cell, kinds: list[str], with_advice: bool, options: argparse.Namespace) -> None:
    """What the advice says, and one run of each strategy."""
    from hf_finetune import finetune
    from hf_finetune.advice.trials import run_trials
    from hf_finetune.choice.advise import advise
    from hf_finetune.recipes.schema import Recipe

    data = rows_of(PROBLEMS[cell.problem])
    if cell.size > len(data["train"]):
        return
    folder = options.work / "-".join(str(part).replace("/", "_").replace(" ", "_") for part in cell)
    recipe = Recipe.model_validate(
        recipe_of(PROBLEMS[cell.problem], cell.checkpoint, cell.size, cell.seed, str(folder))
    )
    advice = advise(recipe, data=data)
    if with_advice and advice.measures is not None:
        _write(options.out, cell, "advice", _of_advice(advice))
    plan = {
        kind: advice.recipes[kind].model_copy(update={"output_dir": str(folder / kind)})
        for kind in kinds
        if kind in advice.recipes
    }
    if BIT in kinds:
        plan[BIT] = _by_size(advice, str(folder / BIT))
    runner: Any = partial(finetune, data=data)
    for kind, each in plan.items():
        trial = run_trials({kind: each}, runner)[kind]
        if trial.run is not None:
            scores = trial.run.metrics
            _write(
                options.out,
                cell,
                kind,
                {
                    "accuracy": scores["test"]["accuracy"],
                    "interval": scores["test"]["accuracy_ci95"],
                    "validation": scores["validation"]["accuracy"],
                    "seconds": round(trial.seconds, 1),
                    "epochs": scores["train"]["epochs"],
                    "right": _right(trial.run.path),
                },
            )
        shutil.rmtree(folder / kind, ignore_errors=True)
        gc.collect()


def _right(folder: Path) -> dict[str, Any]:
    """Which test rows are answered rightly, a bit each, in the order of the rows."""
    from hf_finetune.publish.report_answers import SINGLE, read_answers

    (answers,) = read_answers(folder / "predictions.parquet", [{"name": "", "problem": SINGLE}])
    right = np.asarray(answers.decided == answers.truth)[np.argsort(answers.ids)]
    return {"rows": len(right), "bits": np.packbits(right).tobytes().hex()}


def _by_size(advice: Any, output_dir: str) -> Any:
    """Everything learns, for as many steps as the rows say."""
    from hf_finetune.choice.candidates import bit_steps
    from hf_finetune.recipes.schema import Recipe

    values = advice.recipes["full"].written()
    values["training"].pop("num_train_epochs")
    values["training"]["max_steps"] = bit_steps(advice.train_rows)
    return Recipe.model_validate({**values, "output_dir": output_dir})


def _of_advice(advice: Any) -> dict[str, Any]:
    from hf_finetune.choice.verdict import corner_of, facts_of

    measures = advice.measures
    text = advice.recipe.task == "text-classification"
    return {
        "facts": asdict(facts_of(measures, text)),
        "costs": {option.kind: round(option.seconds, 2) for option in advice.options},
        "corner": corner_of(measures),
        "measures": {**asdict(measures), "classes": len(measures.classes)},
        "seconds": round(advice.seconds, 2),
        "full_seconds": round(advice.full_seconds, 2),
    }


def _write(out: Path, cell: Cell, what: str, values: dict[str, Any]) -> None:
    line = {**cell.facts(), "what": what, **values, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **circumstances()}) + "\n")
    told = values.get("accuracy", values.get("facts"))
    print(f"--- {cell.problem} {cell.size} {cell.checkpoint} {what}: {told} {values['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
