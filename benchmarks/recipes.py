"""What the shipped recipes reach: `expected` of each that runs here, and others with a checkpoint for two cores.

    python benchmarks/recipes.py run                  # those not in results/recipes.jsonl yet; three seeds each
    python benchmarks/recipes.py run --only digits    # one
    python benchmarks/recipes.py write                # `expected` in recipes/*.yaml, and the tables of their README

A line of the results is one command, `hf-finetune train ... seeds=3`, and what it left in metrics.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from circumstances import circumstances
from techniques import read_lines

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "recipes.jsonl"
VIT, MINILM = "WinKawaks/vit-tiny-patch16-224", "sentence-transformers/all-MiniLM-L6-v2"


class Case(NamedTuple):
    """A recipe, and what is changed of it so that it fits two cores; `expected` is of recipes without changes."""

    recipe: str
    changes: tuple[str, ...] = ()
    seeds: int = 3


_VIT, _MINILM = f"model.checkpoint={VIT}", f"model.checkpoint={MINILM}"
CASES = (
    Case("digits"),
    Case("pretrain_digits_resnet"),
    Case("pretrain_digits_vit"),
    Case("cifar10", (_VIT, "strategy=head", "data.augment=none"), seeds=1),
    Case("cifar10", (_VIT, "data.augment={pad_crop: 4, flip: 0.5}"), seeds=1),
    Case("ag_news", (_MINILM, "data.max_train_samples=3000")),
    Case("sst2", (_MINILM, "data.max_train_samples=3000")),
    Case("fashion_mnist", (_VIT, "model.image_size=96", "data.max_train_samples=3000")),
)


def main() -> None:
    """Run, or write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "write"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "recipes", help="folder of the runs")
    parser.add_argument("--only", action="append", default=[], metavar="RECIPE")
    options = parser.parse_args()
    if options.what == "write":
        write(read_lines(options.out))
        return
    done = {(line["recipe"], *line["changes"]) for line in read_lines(options.out)}
    for number, case in enumerate(CASES):
        if (not options.only or case.recipe in options.only) and (case.recipe, *case.changes) not in done:
            line = json.dumps(_measured(case, options.work / f"{number}_{case.recipe}"))
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _measured(case: Case, folder: Path) -> dict[str, Any]:
    """One command, and what it left."""
    command = [f"recipe={case.recipe}", *case.changes, *([f"seeds={case.seeds}"] if case.seeds > 1 else [])]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hf_finetune.run", *command, f"output_dir={folder}"], cwd=ROOT, check=True)
    seconds = time.perf_counter() - began
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    split = "test" if "test" in metrics else "validation"
    name = "accuracy"
    if case.seeds > 1:
        found = metrics["seeds"]["metrics"][name]
        value, interval, values = found["mean"], found["ci95"], found["values"]
    else:
        value, interval = metrics[split][name], metrics[split][f"{name}_ci95"]
        values = [value]
    return {
        "recipe": case.recipe,
        "changes": case.changes,
        "metric": name,
        "split": split,
        "value": round(value, 4),
        "interval": [round(end, 4) for end in interval],
        "values": values,
        "seeds": case.seeds,
        "samples": metrics[split]["samples"],
        "seconds": round(seconds / case.seeds, 1),
        **circumstances(),
    }


def write(lines: Sequence[dict[str, Any]]) -> None:
    """`expected` of the recipes as they are shipped, its column, and the table of changed ones."""
    readme = ROOT / "recipes" / "README.md"
    text = readme.read_text(encoding="utf-8")
    for line in lines:
        if not line["changes"]:
            _expect(ROOT / "recipes" / f"{line['recipe']}.yaml", line)
            row = re.compile(rf"^(\| \[{line['recipe']}\]\(.*\|)[^|]*\|$", re.MULTILINE)
            text = row.sub(lambda match, line=line: f"{match[1]} {_value(line)} |", text)  # type: ignore[misc]
    begin, end = "<!-- table: changed -->\n", "<!-- end -->"
    before, _, rest = text.partition(begin)
    table = "\n".join(_table([line for line in lines if line["changes"]]))
    readme.write_text(f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def _expect(file: Path, line: dict[str, Any]) -> None:
    keys = ("metric", "split", "value", "interval", "seeds", "seconds", "hardware", "commit")
    told = "".join(f"  {key}: {json.dumps(line[key])}\n" for key in keys)
    text = file.read_text(encoding="utf-8")
    file.write_text(
        re.sub(r"^expected:.*\n(  .*\n)*", f"expected:\n{told}", text, flags=re.MULTILINE), encoding="utf-8"
    )


def _value(line: dict[str, Any]) -> str:
    low, high = line["interval"]
    return f"{line['metric']} {line['value']:.4f} ({low:.4f} to {high:.4f}), {line['seconds']:,.0f} s"


def _table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not lines:
        yield "Not run yet."
        return
    yield "| command | seeds | test rows | accuracy (95%) | seconds of a run |"
    yield "|---|---|---|---|---|"
    for line in lines:
        low, high = line["interval"]
        words = " ".join(
            f'"{word}"' if " " in word else word for word in (f"recipe={line['recipe']}", *line["changes"])
        )
        yield (
            f"| `{words}` | {line['seeds']} | {line['samples']:,} | {line['value']:.4f} ({low:.4f} to {high:.4f}) "
            f"| {line['seconds']:,.0f} |"
        )
    hardware = "; ".join(dict.fromkeys(line["hardware"] for line in lines))
    yield f"\n{hardware}."


if __name__ == "__main__":
    main()
