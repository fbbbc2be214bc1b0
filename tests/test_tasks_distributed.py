"""Several tasks, labels missing, data sets mixed by weight, weights learned: two processes give what one gives."""

import pandas as pd
import pytest
from run_samples import check_same, on_one_and_on_two_processes
from tasks_samples import KIND, SIZE, recipe_for, rows

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def job(folder, balance):
    mixed = {"dataset": str(folder / "other.csv"), "text": "text", "weight": 2, "validation": 0.3}
    recipe = recipe_for(folder, "bert", {"size": SIZE, "kind": KIND})
    written = recipe.written()
    written["tasks"]["mark"] = {"label": "size", "data": mixed}
    written["data"] |= {"dataset": str(folder / "rows.csv"), "text": "text", "weight": 1.0}
    written["loss"]["balance"] = balance
    # Adam divides by the size of the gradient, so it turns float noise where that is 0 into steps.
    written["training"] |= {"optim": "sgd", "learning_rate": 0.02}
    written["model"]["dropout"] = 0.0  # drawn by each process for itself
    file = folder / "recipe.yaml"
    file.write_text(type(recipe).model_validate(written).to_yaml())
    return f"recipe={file}", "precision=no", "data.on_error=skip"


@pytest.mark.parametrize(
    "balance", ["equal", *(pytest.param(one, marks=pytest.mark.long) for one in ("fixed", "uncertainty"))]
)
def test_two_processes_equal_one(tmp_path, call, run_in, balance):
    rows(True, size=60, missing=True).to_csv(tmp_path / "rows.csv", index=False)
    rows(True, size=30, seed=4).remove_columns("kind").to_csv(tmp_path / "other.csv", index=False)
    both = on_one_and_on_two_processes(call, run_in, job(tmp_path, balance), 12)
    one, two = check_same(both, "model.safetensors")
    assert two["train"]["task_weights"] == pytest.approx(one["train"]["task_weights"], rel=1e-4)
    assert two["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-4)
    assert two["test"]["samples"] == one["test"]["samples"]
    tables = [pd.read_parquet(folder / "predictions.parquet") for folder in both[:2]]
    assert list(tables[0]["id"]) == list(tables[1]["id"])
