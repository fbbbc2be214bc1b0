"""The same readers under a fuzzer that follows the branches taken (atheris, libFuzzer).

    pip install --target /tmp/atheris atheris      # a wheel for Python 3.11 and later; no dependency of hf_finetune
    PYTHONPATH=/tmp/atheris python tests/faults/fuzz_atheris.py -max_total_time=120

It ends at the first input that is read wrongly, as `faults.fuzz` judges it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["hf_finetune.recipes", "yaml"]):
    from faults.fuzz import Overrides, Yaml, _outcome, make_inputs

OVERRIDES, YAML = Overrides(), Yaml()
KEYS = make_inputs(0).keys


def one(data: bytes) -> None:
    """An override for a known key, any override, or a recipe, by the first byte."""
    drawn = atheris.FuzzedDataProvider(data)
    kind = drawn.ConsumeIntInRange(0, 2)
    text = drawn.ConsumeUnicode(2000)
    target = YAML if kind == 2 else OVERRIDES
    outcome = _outcome(target, f"{KEYS[len(text) % len(KEYS)]}={text}" if kind == 1 else text, again=True)
    if outcome not in ("accepted", "refused"):
        raise AssertionError(outcome)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
