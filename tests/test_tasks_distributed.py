"""Several tasks, labels missing, data sets mixed by weight, weights learned: two processes give what one gives."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from safetensors.numpy import load_file
from tasks_samples import KIND, SIZE, recipe_for, rows

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
SCRIPT = str(REPOSITORY / "hf_finetune" / "run.py")


def job(folder, balance, batch, name):
    mixed = {"dataset": str(folder / "other.csv"), "text": "text", "weight": 2, "validation": 0.3}
    recipe = recipe_for(folder, "bert", {"size": SIZE, "kind": KIND})
    written = recipe.written()
    written["tasks"]["mark"] = {"label": "size", "data": mixed}
    written["data"] |= {"dataset": str(folder / "rows.csv"), "text": "text", "weight": 1.0}
    written["loss"]["balance"] = balance
    # Adam divides by the size of the gradient, so it turns float noise where that is 0 into steps.
    written["training"] |= {"per_device_train_batch_size": batch, "optim": "sgd", "learning_rate": 0.02}
    written["output_dir"] = str(folder / name)
    written["model"]["dropout"] = 0.0  # drawn by each process for itself
    file = folder / f"{name}.yaml"
    file.write_text(type(recipe).model_validate(written).to_yaml())
    return f"recipe={file}"


@pytest.mark.parametrize("balance", ["fixed", "uncertainty", "equal"])
def test_two_processes_equal_one(tmp_path, run_in, balance):
    rows(True, size=60, missing=True).to_csv(tmp_path / "rows.csv", index=False)
    rows(True, size=30, seed=4).remove_columns("kind").to_csv(tmp_path / "other.csv", index=False)
    pairs = ("precision=no", "data.on_error=skip")
    one, two = job(tmp_path, balance, 12, "one"), job(tmp_path, balance, 6, "two")
    subprocess.run([sys.executable, SCRIPT, one, *pairs], check=True, capture_output=True, timeout=300)
    result = run_in("torchrun", "--standalone", "--nproc_per_node", "2", SCRIPT, two, *pairs)
    assert result.returncode == 0, result.stderr
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in weights.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-3, atol=2e-5, err_msg=name)
    metrics, other = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert other["train"]["task_weights"] == pytest.approx(metrics["train"]["task_weights"], rel=1e-4)
    assert other["validation"]["loss"] == pytest.approx(metrics["validation"]["loss"], rel=1e-4)
    assert other["test"]["samples"] == metrics["test"]["samples"]
    tables = [pd.read_parquet(tmp_path / name / "predictions.parquet") for name in ("one", "two")]
    assert list(tables[0]["id"]) == list(tables[1]["id"])
