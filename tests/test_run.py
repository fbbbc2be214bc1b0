"""The main job through its public entry points, on the shipped digits: what it prints, what it leaves.

In this process, and in `slow` as a user starts it.
"""

import json

import pandas as pd
import pytest

SMALL = (
    "recipe=digits",
    "data.max_train_samples=120",
    "data.max_eval_samples=60",
    "training.num_train_epochs=2",
    "evaluation.bootstrap=200",
)
ENTRY_POINTS = {
    "accelerate launch": ("accelerate", "launch", "--num_processes", "1", "{run.py}"),
    "torchrun": ("torchrun", "--standalone", "--nproc_per_node", "1", "{run.py}"),
    "python run.py": ("python", "{run.py}"),
    "python -m": ("python", "-m", "hf_finetune.run"),
    "console command": ("hf-finetune", "train"),
}


def command(entry, *arguments):
    from conftest import REPOSITORY

    script = str(REPOSITORY / "hf_finetune" / "run.py")
    return (*(part.replace("{run.py}", script) for part in ENTRY_POINTS[entry]), *arguments)


@pytest.fixture(params=["called", *(pytest.param(entry, marks=pytest.mark.slow) for entry in ENTRY_POINTS)])
def train(request):
    """train(*arguments) -> CompletedProcess, in the folder `train.folder`."""
    run_in, call = request.getfixturevalue("run_in"), request.getfixturevalue("call")

    def run(*arguments):
        if request.param == "called":
            return call("train", *arguments)
        return run_in(*command(request.param, *arguments))

    run.folder = run_in.folder
    return run


def test_entry_points_train_and_leave_a_whole_run(train):
    result = train(*SMALL)
    assert result.returncode == 0, result.stderr
    run = train.folder / "runs" / "digits"
    expected = (
        "README.md config.json metrics.json model.safetensors predictions.parquet preprocessor_config.json recipe.yaml"
    )
    assert set(expected.split()) <= {path.name for path in run.iterdir()}
    metrics = json.loads((run / "metrics.json").read_text())
    low, high = metrics["test"]["accuracy_ci95"]
    assert low <= metrics["test"]["accuracy"] <= high
    assert metrics["test"]["samples"] == 60
    predictions = pd.read_parquet(run / "predictions.parquet")
    assert (predictions["label"] == predictions["prediction"]).mean() == pytest.approx(metrics["test"]["accuracy"])
    for word in ("block", "head", "learning rate", "validation", "95%"):
        assert word in result.stdout
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr, result.stderr


def test_the_same_command_again_keeps_the_finished_run(call):
    first = call("train", *SMALL)
    assert first.returncode == 0, first.stderr
    saved = (call.folder / "runs/digits/model.safetensors").read_bytes()
    again = call("train", *SMALL)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    other = call("train", *SMALL, "training.learning_rate=1e-5")
    assert other.returncode == 2 and "training.learning_rate" in other.stderr and "another recipe" in other.stderr
    assert (call.folder / "runs/digits/model.safetensors").read_bytes() == saved


def test_a_foreign_folder_is_never_written_to(call):
    call.folder.mkdir()
    thesis = call.folder / "runs" / "digits" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("three years of work")
    result = call("train", *SMALL)
    assert result.returncode == 2 and "holds no run" in result.stderr
    assert [path.name for path in thesis.parent.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_a_diverging_run_says_so_instead_of_reporting_zero(run_in):
    result = run_in(*command("python -m", *SMALL, "training.learning_rate=1e30", "training.max_grad_norm=0"))
    assert result.returncode == 2, result.stdout + result.stderr
    assert "loss is nan" in result.stderr and "training.learning_rate" in result.stderr
    assert "Traceback" not in result.stderr


IN_MEMORY = """
import sys
import numpy as np
from datasets import Dataset, DatasetDict, Image
from hf_finetune import finetune
from hf_finetune.recipes import digits

images = [np.full((8, 8), 20 * (i % 10), dtype=np.uint8) for i in range(100)]
rows = Dataset.from_dict({"image": images, "digit": [i % 10 for i in range(100)]}).cast_column("image", Image())
recipe = digits.with_overrides("training.num_train_epochs=1", "data.label=digit", "output_dir=" + sys.argv[1])
run = finetune(recipe, data=DatasetDict({"train": rows, "test": rows}))
assert 0 <= run.metrics["test"]["accuracy"] <= 1
assert len(run.predict(images[:3])) == 3
print(run.path, type(run.model).__name__)
"""


@pytest.mark.slow
def test_from_code_with_data_in_memory(run_in):
    result = run_in("python", "-c", IN_MEMORY, "run")
    assert result.returncode == 0, result.stderr
    assert "ResNetForImageClassification" in result.stdout
    assert "exact copies" in result.stderr  # the test rows are the training rows, and the user is told
