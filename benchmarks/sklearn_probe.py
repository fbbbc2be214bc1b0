"""Contestant (c): scikit-learn's LogisticRegression on features that the checkpoint computes once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from contest import options, report
from datasets import Dataset, load_dataset
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoImageProcessor, AutoModel


def main() -> None:
    """Compute the features, fit, and write the scores down."""
    parser = options(__doc__)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    data = load_dataset(
        "parquet", data_files={"train": str(args.data / "train.parquet"), "test": str(args.data / "test.parquet")}
    )
    processor = AutoImageProcessor.from_pretrained(args.checkpoint)
    model = AutoModel.from_pretrained(args.checkpoint).eval()
    started = time.perf_counter()
    features = {name: _features(data[name], processor, model, args) for name in ("train", "test")}
    fill = time.perf_counter() - started
    labels = {name: np.asarray(data[name]["label"]) for name in ("train", "test")}
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(features["train"], labels["train"])
    score = float((classifier.predict(features["test"]) == labels["test"]).mean())
    report(args.out, score, len(labels["test"]), fill_seconds=round(fill, 4))


@torch.inference_mode()
def _features(split: Dataset, processor: Any, model: Any, args: Any) -> np.ndarray:
    """The class token's last state, (N, width), or the pooled output where the model has no class token."""
    found = []
    for start in range(0, len(split), args.batch_size):
        images = [image.convert("RGB") for image in split[start : start + args.batch_size]["image"]]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            outputs = model(pixels)
        states = outputs.last_hidden_state
        pooled = states[:, 0] if states.ndim == 3 else states.mean(dim=(2, 3))
        found.append(pooled.float().numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()
