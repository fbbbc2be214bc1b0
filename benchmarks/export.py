"""Bar: ONNX under onnxruntime is the model that torch runs, on 1,000 real samples; what int8 costs and saves.

python benchmarks/export.py [NAME ...] [--work DIR] [--samples N]

A short run (300 training rows) of each checkpoint, exported and checked. Each result is written at once to
results/export.json; a name that is there already is measured anew. The exit code is 1 where one is not the same model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "export.json"
_SHORT = (
    "data.max_train_samples=300",
    "data.max_eval_samples=1000",
    "training.num_train_epochs=4",
    "training.per_device_train_batch_size=16",
    "evaluation.bootstrap=100",
)
_HEAD = ("strategy=head", "training.learning_rate=3e-3")
RUNS = {
    "vit": ("cifar10", "WinKawaks/vit-tiny-patch16-224", *_HEAD),
    "mobilenet": ("cifar10", "google/mobilenet_v2_1.0_224", *_HEAD),
    "lite0": ("cifar10", "timm/tf_efficientnet_lite0.in1k", *_HEAD),
    "minilm": ("ag_news", "sentence-transformers/all-MiniLM-L6-v2", "training.learning_rate=1e-4"),
}


def measured(name: str, work: Path, samples: int) -> dict[str, Any]:
    """Train where there is no run yet, export, check."""
    from hf_finetune.cli import main as command
    from hf_finetune.publish.export import export_run

    recipe, checkpoint, *pairs = RUNS[name]
    run = work / name
    if not (run / "metrics.json").is_file():
        given = [f"recipe={recipe}", f"model.checkpoint={checkpoint}", *pairs, *_SHORT, f"output_dir={run}"]
        if command(["train", *given]):
            raise SystemExit(f"{name} could not be trained")
    figures = export_run(run, "onnx", quantize="int8", out=work / f"{name}-onnx", samples=samples).figures
    return {"checkpoint": checkpoint, "recipe": recipe, **figures}


def main() -> int:
    """Train, export and check each; 1 where one is not the same model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)}; all if left out")
    parser.add_argument("--work", type=Path, help="folder of the runs, which are kept there")
    parser.add_argument("--samples", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        good = True
        for name in given.names or RUNS:
            found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
            found[name] = measured(name, work, given.samples)
            found["versions"] = {each: version(each) for each in ("torch", "onnx", "onnxscript", "onnxruntime")}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=2) + "\n")
            good = good and found[name]["good"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
