"""Fuzzing what reads recipes: override strings and YAML.

    python tests/faults/fuzz.py --overrides 1000000 --yaml 200000

No input may raise anything but a RecipeError, take more than five seconds, or be accepted with a key that recipes do
not have: every key of an accepted input must be in the recipe that it became, and what is written must read as the
same recipe again. Figures go to benchmarks/results/faults_fuzz.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from faults.fuzz_inputs import Inputs  # noqa: E402

from hf_finetune.errors import RecipeError  # noqa: E402
from hf_finetune.recipes import load  # noqa: E402
from hf_finetune.recipes.keys import known_keys, mapping_keys  # noqa: E402
from hf_finetune.recipes.schema import Recipe  # noqa: E402
from hf_finetune.recipes.shipped import shipped_files  # noqa: E402
from hf_finetune.recipes.yaml_text import read_yaml  # noqa: E402

SLOWEST = 5.0  # seconds
_AGAIN = 10  # one accepted input in so many is written and read again


@dataclass
class Tally:
    """What became of the inputs."""

    counts: Counter[str] = field(default_factory=lambda: Counter(inputs=0, accepted=0, refused=0))
    wrong: list[dict[str, str]] = field(default_factory=list)
    slowest: float = 0.0
    slowest_input: str = ""
    seconds: float = 0.0

    def figures(self) -> dict[str, Any]:
        """As they are written down."""
        inputs = self.counts["inputs"]
        return {
            **self.counts,
            "wrong": len(self.wrong),
            "slowest_seconds": round(self.slowest, 3),
            "seconds": round(self.seconds, 1),
            "inputs_a_second": round(inputs / max(self.seconds, 1e-9)),
            "first_wrong": self.wrong[:20],
        }


def texts() -> list[str]:
    """The shipped recipes."""
    return [file.read_text(encoding="utf-8") for file in shipped_files().values()]


def make_inputs(seed: int) -> Inputs:
    """Inputs about the keys that recipes have."""
    usual: dict[str, list[str]] = {}
    for name in shipped_files():
        written = load.load_recipe(name).written()
        for key in known_keys():
            value: Any = written
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                usual.setdefault(key, []).append(json.dumps(value))
    return Inputs(seed, sorted(known_keys()), texts(), usual)


class Overrides:
    """A pair laid over one of the shipped recipes."""

    def __init__(self) -> None:
        self.bases = [load._read(text, "base.yaml") for text in texts()]
        self.turn = 0

    def __call__(self, pair: str) -> Recipe:
        """The recipe.

        Raises:
            RecipeError: it is refused.
        """
        self.turn += 1
        tree, faults = self.bases[self.turn % len(self.bases)]
        return load._resolved(tree, [pair], "command line", faults).recipe

    def lacking(self, pair: str, recipe: Recipe) -> str | None:
        """A key that was accepted and is not in the recipe."""
        key = pair.partition("=")[0].strip()
        known = key in known_keys() or key.startswith(tuple(f"{name}." for name in mapping_keys()))
        return None if known else key


class Yaml:
    """A whole recipe as text."""

    def __call__(self, text: str) -> Recipe:
        """The recipe.

        Raises:
            RecipeError: it is refused.
        """
        tree, faults = load._read(text, "fuzz.yaml")
        return load._resolved(tree, [], "command line", faults).recipe

    def lacking(self, text: str, recipe: Recipe) -> str | None:
        """A key of the text that is not in the recipe: where a value stood, there must be one."""
        written = recipe.written()
        given = read_yaml(text).value
        return next(_absent(given, written, ""), None)


def _absent(given: Any, written: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict):
        for key, value in given.items():
            here = f"{path}.{key}".lstrip(".")
            if isinstance(written, dict) and key in written:
                yield from _absent(value, written[key], here)
            elif not (path == "training" and value is None):  # what is unset there is left out
                yield here
    elif isinstance(given, list) and isinstance(written, list):
        for place, (one, other) in enumerate(zip(given, written, strict=False)):
            yield from _absent(one, other, f"{path}.{place}")


def fuzz(target: Overrides | Yaml, make: Callable[[], str], count: int, tally: Tally) -> Tally:
    """Give so many inputs to a reader of recipes."""
    began = time.perf_counter()
    for number in range(count):
        text = make()
        start = time.perf_counter()
        try:
            outcome = _outcome(target, text, again=number % _AGAIN == 0)
        except Exception as fault:
            outcome = f"crash: {type(fault).__name__}: {fault}"[:300]
        took = time.perf_counter() - start
        tally.counts["inputs"] += 1
        tally.counts[outcome if outcome in ("accepted", "refused") else "wrong inputs"] += 1
        if took > SLOWEST and outcome in ("accepted", "refused"):
            outcome = f"{took:.1f} s"
        if outcome not in ("accepted", "refused"):
            tally.wrong.append({"input": repr(text)[:2000], "what": outcome})
        if took > tally.slowest:
            tally.slowest, tally.slowest_input = took, repr(text)[:300]
    tally.seconds += time.perf_counter() - began
    return tally


def _outcome(target: Overrides | Yaml, text: str, again: bool) -> str:
    try:
        recipe = target(text)
    except RecipeError as error:
        return "refused" if str(error) else "a fault without words"
    if strange := target.lacking(text, recipe):
        return f"accepted with the unknown key {strange}"
    if again:
        written = recipe.to_yaml()
        written.encode()
        tree, faults = load._read(written, "again.yaml")
        if load._resolved(tree, [], "again", faults).recipe != recipe:
            return "what is written reads as another recipe"
    return "accepted"


def main() -> int:
    """Fuzz, and write the figures; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overrides", type=int, default=1_000_000)
    parser.add_argument("--yaml", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(REPOSITORY / "benchmarks" / "results" / "faults_fuzz.json"))
    given = parser.parse_args()
    inputs = make_inputs(given.seed)
    pairs, recipes = Tally(), Tally()
    overrides, whole = Overrides(), Yaml()
    steps = 100  # so that figures are there whenever it is ended
    for step in range(steps):
        for target, make, count, tally in (
            (overrides, inputs.override, given.overrides, pairs),
            (whole, inputs.recipe, given.yaml, recipes),
        ):
            fuzz(target, make, count * (step + 1) // steps - count * step // steps, tally)
        figures = {
            "seed": given.seed,
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "overrides": pairs.figures(),
            "yaml": recipes.figures(),
        }
        Path(given.out).write_text(json.dumps(figures, indent=1, ensure_ascii=True) + "\n")
        print(step + 1, pairs.figures()["inputs"], recipes.figures()["inputs"], len(pairs.wrong), len(recipes.wrong))
    return bool(pairs.wrong or recipes.wrong)


if __name__ == "__main__":
    sys.exit(main())
