"""What the contestants' scripts share: their options, and the report that they leave."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every contestant takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", type=Path, required=True, help="file for the report")
    parser.add_argument("--strategy", choices=("full", "head", "freeze", "lora"), default="full")
    parser.add_argument("--train-blocks", type=int, default=2, help="of --strategy freeze")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def report(out: Path, accuracy: float | None, test_rows: int, **more: object) -> None:
    """Leave the score, and whatever else the contestant measured itself."""
    out.write_text(json.dumps({"accuracy": accuracy, "test_rows": test_rows, **more}), encoding="utf-8")
