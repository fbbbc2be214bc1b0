"""The test rows of a finished model, and several processes that load the same data."""

import json
import sys

import pandas as pd
import pytest
from data_samples import make_recipe, private_cache  # noqa: F401
from datasets import Dataset, DatasetDict

from hf_finetune.data import LabelSpace, load_data, load_test
from hf_finetune.errors import DataError

MODEL = LabelSpace("single_label_classification", ("neg", "neutral", "pos"))


def rows(labels):
    return Dataset.from_dict({"text": [f"text {n}" for n in range(len(labels))], "label": labels})


def test_labels_are_the_models_even_where_the_data_has_fewer():
    test, skipped = load_test(make_recipe("memory"), MODEL, rows(["pos", "pos"]))
    assert test["label"][:] == [2, 2] and not skipped
    assert test.column_names == ["id", "text", "label"]


def test_the_named_split_alone_is_looked_at():
    data = DatasetDict(train=rows(["something else", "unknown"]), test=rows(["neg", "pos"]))
    assert load_test(make_recipe("memory"), MODEL, data)[0]["label"][:] == [0, 2]
    with pytest.raises(DataError, match=r"split train has labels that the model does not know .*: 'something else'"):
        load_test(make_recipe("memory", test_split="train", train_split="other"), MODEL, data)


def test_a_share_of_train_is_the_one_training_held_out():
    recipe = make_recipe("memory", test_split=0.3)
    task = load_data(recipe, rows(["neg", "neutral", "pos"] * 10))
    test, _ = load_test(recipe, task.labels, rows(["neg", "neutral", "pos"] * 10))
    assert test["id"][:] == task.test["id"][:]
    with pytest.raises(DataError, match="the model knows a, b"):
        load_test(recipe, LabelSpace("single_label_classification", ("a", "b")), rows(["neg", "neutral", "pos"] * 10))


def test_limits_and_broken_rows():
    data = rows(["neg", "pos"] * 20)
    assert len(load_test(make_recipe("memory", max_eval_samples=10), MODEL, data)[0]) == 10
    broken = Dataset.from_dict({"text": ["x", " ", "y"], "label": ["neg", "pos", None]})
    with pytest.raises(DataError, match="2 of 3 rows cannot be used"):
        load_test(make_recipe("memory"), MODEL, broken)
    test, skipped = load_test(make_recipe("memory", on_error="skip"), MODEL, broken)
    assert test["id"][:] == [0] and [row["row"] for row in skipped] == [1, 2]
    with pytest.raises(DataError, match=r"data\.test_split is null"):
        load_test(make_recipe("memory", test_split=None), MODEL, data)


SCRIPT = """
import json, os, sys
import torch.distributed as dist
from hf_finetune.data import load_data
from hf_finetune.errors import DataError
from hf_finetune.recipes.schema import Recipe

dist.init_process_group("gloo")
data = {"dataset": sys.argv[1], "test_split": 0.25}
try:
    task = load_data(Recipe(task="text-classification", model={"checkpoint": "none"}, data=data))
    answer = [task.fingerprint, task.train["id"][:]]
except DataError as error:
    answer = str(error)
with open(f"{sys.argv[2]}.{os.environ['RANK']}", "w") as file:
    json.dump(answer, file)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("broken", [pytest.param(False, marks=pytest.mark.long), True])
def test_every_process_loads_the_same_or_meets_the_same_error(run_in, tmp_path, broken):
    (tmp_path / "script.py").write_text(SCRIPT)
    texts = [f"text {n}" for n in range(40)]
    if broken:
        texts[3] = " "
    lines = [json.dumps({"text": text, "label": "ab"[n % 2]}) for n, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [str(tmp_path / "script.py"), str(tmp_path / "rows.jsonl"), str(tmp_path / "answer")]
    result = run_in(*command, *arguments, HF_DATASETS_CACHE=str(tmp_path / "cache"), OMP_NUM_THREADS="1", timeout=120)
    assert result.returncode == 0, result.stderr
    answers = [json.loads((tmp_path / f"answer.{rank}").read_text()) for rank in range(2)]
    assert answers[0] == answers[1]
    assert ("1 of 40 rows cannot be used" in answers[0]) == broken


def csv(path, columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


def test_other_data_is_scored_whole_in_the_columns_of_the_run(tmp_path):
    columns = {"title": ["t"] * 30, "review": [f"text {n}" for n in range(30)], "stars": ["neg", "pos"] * 15}
    trained_by = make_recipe(csv(tmp_path / "a.csv", columns), text="review", label="stars", test_split=0.2)
    one_class = {**columns, "stars": ["POS"] * 30}
    for name, given in (("b.csv", columns), ("c.csv", one_class)):
        other = make_recipe(csv(tmp_path / name, given))
        test, _ = load_test(other, MODEL, trained_by=trained_by.data)
        assert len(test) == 30 and test["text"][0] == "text 0"
    assert set(test["label"][:]) == {2}, "upper and lower case are one spelling"
    own, _ = load_test(trained_by, LabelSpace(MODEL.problem_type, ("neg", "pos")), trained_by=trained_by.data, own=True)
    assert len(own) == 6


def test_a_model_of_pairs_is_not_scored_on_single_texts():
    trained_by = make_recipe("memory", text="a", text_pair="b")
    with pytest.raises(DataError, match=r"takes pairs of texts, and the data has no column 'b'"):
        load_test(make_recipe("memory"), MODEL, rows(["pos", "neg"]), trained_by=trained_by.data)
