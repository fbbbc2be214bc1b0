"""Do 95% intervals hold the truth in 95% of cases, and prediction sets the right class as often as they promise?

    python benchmarks/interval_coverage.py                          # trains what is not in --work yet, then counts
    python benchmarks/interval_coverage.py --only cifar10 --draws 2000
    python benchmarks/interval_coverage.py --only cifar10_full=runs/cifar10      # a finished run, whatever trained it

Intervals: the whole test split stands for the world, so that the truth is known: the score on all of it. A small test
set is drawn from it, as a user would have one, `with_intervals` makes an interval of that alone, and it is counted how
often the interval holds the truth. Rows are drawn with replacement: then the draws are independent rows of that world,
which is what the intervals speak of. Without replacement a draw of 500 of 10,000 rows would vary by 1 - 500/10,000 less
than independent rows, and the intervals would seem a little better than they are.

Sets: `evaluation.conformal=0.9` in the runs themselves, whose validation split has also chosen the checkpoint and the
temperature; the share of test rows whose set holds the right class. And, for the method alone, the same with rows of
the test split that have chosen nothing as calibration rows, drawn many times.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import circumstances

HERE = Path(__file__).resolve().parent
VIT = {"checkpoint": "WinKawaks/vit-tiny-patch16-224"}
MINILM = {"checkpoint": "sentence-transformers/all-MiniLM-L6-v2"}
# 2,000 rows train, 1,000 validate.
ROWS = {"max_train_samples": 3000, "validation": 1 / 3}
PROBLEMS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "task": "image-classification",
        "model": VIT,
        "data": {"dataset": "uoft-cs/cifar10", "augment": "none", **ROWS},
    },
    "fashion_mnist": {
        "task": "image-classification",
        "model": VIT,
        "data": {"dataset": "zalando-datasets/fashion_mnist", "augment": "none", **ROWS},
    },
    "ag_news": {
        "task": "text-classification",
        "model": MINILM,
        "data": {"dataset": "fancyzhx/ag_news", "max_length": 128, **ROWS},
    },
    # Its validation split has 872 rows: too few to stand for a world, so the world is a part of train.
    "sst2": {
        "task": "text-classification",
        "model": MINILM,
        "data": {"dataset": "stanfordnlp/sst2", "test_split": 0.2, **ROWS},
    },
    "movie_ratings": {
        "task": "text-classification",
        "model": MINILM,
        "data": {"dataset": "local/movie_ratings", "text": "text", "label": "rating", "test_split": "test", **ROWS},
    },
}
TRAINING = {"num_train_epochs": 20, "learning_rate": 3e-3, "per_device_train_batch_size": 64}
COVERAGE = 0.9
SETS_DRAWN = 1000  # calibration rows of the method alone


def main() -> None:
    """Train what is missing, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "interval_coverage.json")
    parser.add_argument("--work", type=Path, default=Path("runs/interval_coverage"), help="folder of the runs")
    parser.add_argument("--only", default=",".join(PROBLEMS), help="problems, or NAME=FOLDER of runs, with commas")
    parser.add_argument("--test-rows", type=int, default=10_000, help="of each problem, at most")
    parser.add_argument("--seeds", type=int, default=3, help="runs a problem; intervals are counted on the first")
    parser.add_argument("--draws", type=int, default=200, help="small test sets of each size")
    parser.add_argument("--sizes", default="500,1000", help="rows of them")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap behind each interval")
    options = parser.parse_args()
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"problems": {}}
    for given in options.only.split(","):
        name, _, folder = given.partition("=")
        folders = [trained(name, seed, options) for seed in range(0 if folder else options.seeds)] or [Path(folder)]
        found: dict[str, Any] = {"metrics": scores_in(folders[0])}
        found["intervals"] = [
            counted(folders[0], int(rows), options.draws, options.resamples) for rows in options.sizes.split(",")
        ]
        if "accuracy" in found["metrics"]:
            own = [] if folder else [of_run(each) for each in folders]
            found["sets"] = {"runs": own, "method": of_method(folders[0], options.draws)}
        results["problems"][name] = found
        results = {**circumstances(), **results}
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found, indent=1), flush=True)


def trained(name: str, seed: int, options: argparse.Namespace) -> Path:
    """A head on frozen features, with a temperature and sets where there are classes."""
    from hf_finetune import Recipe, finetune

    classes = name != "movie_ratings"
    problem = PROBLEMS[name]
    recipe = Recipe.model_validate(
        {
            **problem,
            "data": {**problem["data"], "max_eval_samples": options.test_rows},
            "strategy": "head",
            "training": TRAINING,
            "evaluation": {"calibration": "temperature", "conformal": COVERAGE} if classes else {},
            "seed": seed,
            "output_dir": str(options.work / f"{name}-{seed}"),
        }
    )
    return finetune(recipe).path


def scores_in(folder: Path) -> dict[str, float]:
    """The test scores of a run."""
    scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    return {name: value for name, value in scores.items() if not name.endswith("_ci95")}


def answers_in(folder: Path) -> Any:
    """The test answers of a run, which are the world here."""
    from hf_finetune.publish.fold_scores import problem_of
    from hf_finetune.publish.report_answers import read_answers

    file = folder / "predictions.parquet"
    return read_answers(file, [{"name": "", "problem": problem_of(file)}])[0]


def counted(folder: Path, rows: int, draws: int, resamples: int) -> dict[str, Any]:
    """How often intervals of small test sets hold the score on all rows; misses below and above it; mean widths."""
    from hf_finetune.evaluation import compute_metrics, default_metrics, with_intervals

    world = answers_in(folder)
    logits, labels = world.logits, world.truth
    names = default_metrics(world.problem, logits.shape[1])
    truth = compute_metrics(logits, labels, world.problem, names)
    rng = np.random.default_rng(rows)
    found = {name: {"held": 0, "too_high": 0, "too_low": 0, "width": 0.0} for name in names}
    for draw in range(draws):
        picked = rng.integers(0, len(logits), rows)
        scores = with_intervals(logits[picked], labels[picked], world.problem, names, resamples=resamples, seed=draw)
        for name in names:
            interval: Any = scores[f"{name}_ci95"]
            low, high = interval
            verdict = "too_high" if low > truth[name] else "too_low" if high < truth[name] else "held"
            found[name][verdict] += 1
            found[name]["width"] += (high - low) / draws
    return {"rows": rows, "of": len(logits), "draws": draws, "truth": truth, "metrics": found}


def of_run(folder: Path) -> dict[str, Any]:
    """Coverage and size of a run's own sets on its test rows, and what its temperature did."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    test, calibration = metrics["test"], metrics["calibration"]
    told: dict[str, Any] = {"accuracy": test["accuracy"], **metrics["conformal"]["test"]}
    ece = calibration["test"]["ece"]
    return {
        **told,
        "validation": metrics["validation"]["samples"],
        "temperature": calibration["temperature"],
        "ece": ece,
    }


def of_method(folder: Path, draws: int) -> dict[str, Any]:
    """Coverage with calibration rows that have chosen nothing: its mean, and how often it is from 0.88 to 0.92."""
    from hf_finetune.evaluation.conformal import conformal_quantile, set_scores
    from hf_finetune.outputs import Rule

    world = answers_in(folder)
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(draws):
        order = rng.permutation(len(world))
        own, rest = order[:SETS_DRAWN], order[SETS_DRAWN:]
        rule = Rule(coverage=COVERAGE, quantile=conformal_quantile(world.scores[own], world.truth[own], COVERAGE))
        covered.append(set_scores(rule, world.scores[rest], world.truth[rest], resamples=0)["set_coverage"])
    within = np.mean([0.88 <= one <= 0.92 for one in covered])
    return {"draws": draws, "calibration_rows": SETS_DRAWN, "mean": float(np.mean(covered)), "within": float(within)}


if __name__ == "__main__":
    main()
