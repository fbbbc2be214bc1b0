"""Streamed rows beside rows in memory, and a run on ten million rows that are made as they are read.

    python benchmarks/streaming.py speed --dataset uoft-cs/cifar10 --image img --rows 5000 --rounds 5
    python benchmarks/streaming.py simulate --rows 10000000 --steps 1500

`speed` alternates both in one process, on the same rows with the same work: a pass of the loader alone (decoding and
the checkpoint's preprocessing, no workers; images a second of the processor, so that a machine that others use too
gives the same), and training steps of a ViT-Tiny. Nothing was kept of an earlier pass.
`simulate` runs `finetune` on a made source and notes the process's memory, then lets reader and order go through a
whole pass without decoding. Results: results/streaming.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from circumstances import circumstances

RESULTS = Path(__file__).parent / "results" / "streaming.json"
_MIB = 2**20
_PICTURES = 32  # different ones of a made source


class Made:
    """Rows that are made when they are read, the same every time: small JPEGs, each with its number behind it.

    Args:
        rows: how many.
        chunk: of them read together.
    """

    def __init__(self, rows: int, chunk: int = 1_000) -> None:
        from datasets import ClassLabel, Features, Image

        self.features = Features({"image": Image(), "label": ClassLabel(names=[str(n) for n in range(10)])})
        self.sizes = np.full(rows // chunk, chunk, dtype=np.int64)
        self.stamp, self.weight, self._chunk = f"made {rows} {chunk}", 1_500.0 * chunk, chunk
        self._pictures = [_picture(number) for number in range(_PICTURES)]

    def read(self, chunk: int, columns: Sequence[str]) -> pa.Table:
        """See `RowSource`."""
        numbers = range(chunk * self._chunk, (chunk + 1) * self._chunk)
        values: dict[str, list[Any]] = {"image": [], "label": []}
        for number in numbers:
            place = number * 7 % _PICTURES
            values["label"].append(place % 10)
            if "image" in columns:
                picture = self._pictures[place] + number.to_bytes(8, "little")
                values["image"].append({"bytes": picture, "path": None})
        schema = self.features.arrow_schema
        return pa.table({name: pa.array(values[name], schema.field(name).type) for name in columns})


def _picture(number: int) -> bytes:
    from PIL import Image

    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Images a second, streamed and not, and the ratio in each round."""
    with tempfile.TemporaryDirectory() as folder:
        shards = _shards(args, Path(folder))
        loader = [_loader_round(args, shards) for _ in range(args.rounds)]
        training = [_training_round(args, shards, Path(folder), number) for number in range(args.train_rounds)]
    return {
        "rows": args.rows,
        "dataset": args.dataset,
        "checkpoint": args.checkpoint,
        "loader": _told(loader),
        "training": _told(training),
    }


def _told(rounds: list[dict[str, float]]) -> dict[str, Any]:
    ratios = [each["streamed"] / each["in_memory"] for each in rounds]
    return {"rounds": rounds, "streamed_over_in_memory": statistics.median(ratios) if ratios else None}


def _shards(args: argparse.Namespace, folder: Path) -> list[str]:
    import pyarrow.parquet as pq
    from datasets import Image, load_dataset

    split = load_dataset(args.dataset, split="train").shuffle(seed=0).select(range(args.rows)).flatten_indices()
    split = split.cast_column(args.image, Image(decode=False)).cast_column(args.image, Image())
    paths = [str(folder / f"train-{shard}.parquet") for shard in range(4)]
    for shard, path in enumerate(paths):
        part = split.shard(4, shard, contiguous=True)
        pq.write_table(part.with_format("arrow")[:], path, row_group_size=100)
    return paths


def _recipe(args: argparse.Namespace, shards: list[str], streaming: bool, folder: str = "none") -> Any:
    from hf_finetune.recipes.schema import Recipe

    data = {"dataset": shards, "image": args.image, "label": args.label, "streaming": streaming, "augment": "none"}
    data |= {"test_split": None, "validation": 0.02, "max_eval_samples": 100}
    return Recipe.model_validate(
        {
            "task": "image-classification",
            "model": {"checkpoint": args.checkpoint},
            "data": data,
            "training": {"max_steps": args.steps, "per_device_train_batch_size": 32, "logging_steps": 1000},
            "evaluation": {"bootstrap": 0},
            "output_dir": folder,
        }
    )


def _loader_round(args: argparse.Namespace, shards: list[str]) -> dict[str, float]:
    return {name: _one_pass(args, shards, name == "streamed") for name in ("in_memory", "streamed")}


def _one_pass(args: argparse.Namespace, shards: list[str], streaming: bool) -> float:
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    from hf_finetune.data import collate_images, image_samples, load_data
    from hf_finetune.data.streamed_samples import streamed_samples
    from hf_finetune.training.stream_order import StreamOrder

    recipe = _recipe(args, shards, streaming)
    task = load_data(recipe)
    rows: Any = task.train
    processor = _processor(recipe, task)
    if streaming:
        samples: Any = streamed_samples(recipe, rows, processor, None, False)
        sampler: Any = StreamOrder(rows.ends, 32, 0, weight=rows.weight)
    else:
        samples = image_samples(rows, processor)
        sampler = RandomSampler(samples, generator=torch.Generator().manual_seed(0))
    started, seen = time.process_time(), 0
    for batch in DataLoader(samples, batch_size=32, sampler=sampler, collate_fn=collate_images):
        seen += len(batch["labels"])
    return seen / (time.process_time() - started)


def _processor(recipe: Any, task: Any) -> Any:
    from hf_finetune.model import load_pretrained

    loaded = load_pretrained(
        recipe.model,
        recipe.task,
        num_labels=task.labels.num_labels,
        label_names=task.labels.names,
        problem_type=task.labels.problem_type,
        seed=0,
    )
    return loaded.processor


def _training_round(args: argparse.Namespace, shards: list[str], folder: Path, number: int) -> dict[str, float]:
    from hf_finetune import finetune

    found = {}
    for name in ("in_memory", "streamed"):
        recipe = _recipe(args, shards, name == "streamed", str(folder / f"{name}-{number}"))
        found[name] = float(finetune(recipe, precision="no").metrics["train"]["samples_per_second"])
    return found


class Memory(threading.Thread):
    """Notes the process's memory every few seconds: (seconds, MiB)."""

    def __init__(self, every: float) -> None:
        super().__init__(daemon=True)
        self.every, self.noted, self._done = every, [], threading.Event()
        self._began = time.perf_counter()

    noted: list[tuple[float, float]]

    def run(self) -> None:
        """See the class."""
        process = psutil.Process()
        while not self._done.wait(self.every):
            passed = time.perf_counter() - self._began
            self.noted.append((round(passed, 1), round(process.memory_info().rss / _MIB, 1)))

    def stop(self) -> list[tuple[float, float]]:
        """What was noted."""
        self._done.set()
        self.join()
        return self.noted


def simulate(args: argparse.Namespace) -> dict[str, Any]:
    """A run on made rows, and a pass of reader and order."""
    from hf_finetune import finetune
    from hf_finetune.recipes.schema import Recipe
    from hf_finetune.training.trainer import FinetuneTrainer

    began = time.perf_counter()
    first: dict[str, float] = {}
    step = FinetuneTrainer.training_step

    def noting(self: Any, *inputs: Any, **options: Any) -> Any:
        found = step(self, *inputs, **options)
        first.setdefault("seconds", round(time.perf_counter() - began, 1))
        first.setdefault("processor", round(time.process_time(), 1))  # with the start of Python
        return found

    FinetuneTrainer.training_step = noting  # type: ignore[method-assign]
    memory = Memory(2.0)
    memory.start()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.model_validate(
            {
                "task": "image-classification",
                "model": {"checkpoint": "package:digits-vit"},
                "data": {"dataset": "memory:", "streaming": True, "validation": 0.001, "test_split": 0.001},
                "training": {"max_steps": args.steps, "per_device_train_batch_size": 32, "logging_steps": 500}
                | {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": args.steps}
                | {"save_steps": args.steps},
                "evaluation": {"bootstrap": 0},
                "output_dir": f"{folder}/run",
            }
        )
        run = finetune(recipe, data={"train": Made(args.rows)}, precision="no")  # type: ignore[dict-item]
        train = run.metrics["train"]
    trained = memory.stop()
    return {
        "rows": args.rows,
        "steps": args.steps,
        "rows_trained_on": 32 * args.steps,
        "seconds_to_the_end_of_the_first_step": first["seconds"],
        "processor_seconds_to_the_end_of_the_first_step": first["processor"],
        "train": train,
        "memory_mib": trained,
        "whole_pass": _whole_pass(args),
    }


def _whole_pass(args: argparse.Namespace) -> dict[str, Any]:
    """Every row of a pass once, read and not decoded."""
    from hf_finetune.data.columns import Columns
    from hf_finetune.data.labels import LabelSpace
    from hf_finetune.data.streamed import StreamedRows
    from hf_finetune.training.stream_order import StreamOrder

    space = LabelSpace("single_label_classification", tuple(map(str, range(10))))
    rows = StreamedRows(Made(args.rows), "train", Columns(image="image", label="label"), space)
    memory, times, taken = Memory(2.0), np.zeros(args.rows, np.uint8), 0
    memory.start()
    started = time.process_time()
    order = iter(StreamOrder(rows.ends, 32, 0, weight=rows.weight))
    while batch := list(islice(order, 32 if args.pass_rows is None else min(32, args.pass_rows - taken))):
        times[[found.id for found in rows.read(batch)]] += 1
        taken += len(batch)
    return {
        "rows": int(times.sum()),
        "rows_that_came_once": int((times == 1).sum()),
        "processor_seconds": round(time.process_time() - started, 1),
        "memory_mib": memory.stop(),
    }


def main() -> None:
    """Run one of them and write down what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "simulate"))
    parser.add_argument("--dataset", default="uoft-cs/cifar10")
    parser.add_argument("--image", default="img")
    parser.add_argument("--label", default="label")
    parser.add_argument("--checkpoint", default="WinKawaks/vit-tiny-patch16-224")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pass-rows", type=int, help="of the pass without decoding; all if left out")
    parser.add_argument("--rounds", type=int, default=5, help="of the loader")
    parser.add_argument("--train-rounds", type=int, default=3)
    args = parser.parse_args()
    found = speed(args) if args.what == "speed" else simulate(args)
    found |= {"circumstances": circumstances(), "threads": os.environ.get("OMP_NUM_THREADS")}
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**kept, args.what: found}, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "circumstances"}, indent=1))


if __name__ == "__main__":
    main()
