"""Several tasks from a recipe to a saved model: one backbone, a head each, scores and answers for each."""

import json
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from data_samples import private_cache  # noqa: F401
from datasets import DatasetDict
from model_samples import sweep
from safetensors.torch import load_file
from tasks_samples import KIND, SIZE, recipe_for, rows, run_of, splits

from hf_finetune.data import LabelSpace
from hf_finetune.data.task_labels import ManyLabels
from hf_finetune.errors import UserError
from hf_finetune.model import load_finished
from hf_finetune.model.multi_task import MultiTaskModel
from hf_finetune.publish.card import model_card
from hf_finetune.runs import Run

BOTH = {"kind": KIND, "size": SIZE}


def inputs_of(split):
    return split["text"][:] if "text" in split.column_names else split["image"][:]


@pytest.mark.parametrize("family", sweep(["vit", "resnet", "timm_efficientnet", "bert"]))
def test_one_model_tells_every_task_and_answers_as_it_was_scored(tmp_path, family):
    run = run_of(tmp_path, family, BOTH)
    test, told = splits(family == "bert")["test"], pd.read_parquet(run.path / "predictions.parquet")
    scores = run.metrics["test"]
    assert scores["kind_samples"] == scores["size_samples"] == scores["samples"] == 18
    for name in ("kind_accuracy", "size_mae", "size_r2"):
        assert len(scores[f"{name}_ci95"]) == 2
    assert scores["kind_accuracy"] == pytest.approx((told["kind_label"] == told["kind_prediction"]).mean())
    assert scores["size_mae"] == pytest.approx((told["size_label"] - told["size_prediction"]).abs().mean(), rel=1e-4)
    answers = Run.load(run.path).predict(inputs_of(test))
    assert [answer["kind"]["label"] for answer in answers] == list(told["kind_prediction"])
    assert [answer["size"] for answer in answers] == pytest.approx(list(told["size_prediction"]), rel=1e-4)
    assert 40 < np.mean([answer["size"] for answer in answers]) < 80  # in its own unit
    assert isinstance(run.model, MultiTaskModel)


def test_the_saved_class_answers_by_itself(tmp_path):
    run = run_of(tmp_path, "vit", BOTH)
    loaded, test = load_finished(run.path), splits(False)["test"]
    pixels = loaded.processor(test["image"][:4], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = loaded.model(pixel_values=pixels).logits
    expected = run.predict(test["image"][:4])
    for answer, other in zip(loaded.model.decode(logits), expected, strict=True):
        assert answer["kind"] == {**other["kind"], "score": pytest.approx(other["kind"]["score"], rel=1e-4)}
        assert answer["size"] == pytest.approx(other["size"], rel=1e-4)
    assert {name: part.shape for name, part in loaded.model.split(logits).items()} == {"kind": (4, 2), "size": (4, 1)}
    with pytest.raises(ValueError, match="takes no labels"):
        loaded.model(pixel_values=pixels, labels=torch.zeros(4))


@pytest.mark.slow
def test_a_saved_model_loads_without_hf_finetune(tmp_path, run_in):
    run = run_of(tmp_path, "bert", BOTH)
    code = (
        "import sys; from transformers import AutoModel, AutoTokenizer\n"
        f"m = AutoModel.from_pretrained({str(run.path)!r}, trust_remote_code=True).eval()\n"
        f"t = AutoTokenizer.from_pretrained({str(run.path)!r}, trust_remote_code=True)\n"
        "print(m.decode(m(**t(['w3 w4'], return_tensors='pt')).logits)[0]['size'], 'hf_finetune' in sys.modules)"
    )
    result = run_in("python", "-c", code, PYTHONPATH="", HF_HOME=str(tmp_path / "home"))
    number, imported = result.stdout.split()
    assert float(number) == pytest.approx(run.predict("w3 w4")["size"], rel=1e-4)
    assert imported == "False"


def test_evaluate_scores_its_own_test_rows_again_and_other_rows_by_their_columns(tmp_path):
    data = splits(True, missing=True)
    for name, split in data.items():
        split.to_parquet(tmp_path / f"{name}.parquet")
    files = f"data.dataset={{train: {tmp_path / 'train.parquet'}, test: {tmp_path / 'test.parquet'}}}"
    run = run_of(tmp_path, "bert", BOTH, files, "data.text=text", data=data, name="memory")
    from hf_finetune import finetune

    run = finetune(run.recipe.with_overrides(files, f"output_dir={tmp_path / 'run'}"), precision="no")
    again = run.evaluate()
    assert again == {name: pytest.approx(run.metrics["test"][name], rel=1e-4) for name in again}
    rows(True, size=12, seed=4).remove_columns("kind").to_csv(tmp_path / "other.csv", index=False)
    other = run.evaluate(f"data.dataset={tmp_path / 'other.csv'}")
    assert other["size_samples"] == 12
    assert "kind_accuracy" not in other


def test_labels_that_are_missing_are_null_and_counted(tmp_path):
    data = splits(False, missing=True)
    data["test"] = rows(False, size=18, seed=1, missing=True)
    run = run_of(tmp_path, "resnet", BOTH, data=data)
    told = pd.read_parquet(run.path / "predictions.parquet")
    assert list(told["kind_label"].isna()) == [row % 3 == 0 for row in range(18)]
    assert told["kind_prediction"].notna().all()
    assert run.metrics["test"]["kind_samples"] == run.metrics["test"]["size_samples"] == 12
    meta = json.loads(pq.read_schema(run.path / "predictions.parquet").metadata[b"label_names"])
    assert meta == {"kind": ["a", "b"], "size": ["size"]}


def test_classes_and_numbers_are_both_learned(tmp_path):
    run = run_of(
        tmp_path, "resnet", BOTH, "training.num_train_epochs=12", "training.learning_rate=0.003",
        size=80,
    )  # fmt: skip
    assert run.metrics["test"]["kind_accuracy"] > 0.85
    assert run.metrics["test"]["size_r2"] > 0.7
    assert run.metrics["validation"]["mean_score"] == pytest.approx(
        (run.metrics["validation"]["kind_accuracy"] + run.metrics["validation"]["size_r2"]) / 2
    )


@pytest.mark.parametrize("family", sweep(["vit", "timm_efficientnet", "bert"]))
@pytest.mark.parametrize("strategy", ["head", "freeze", "lora"])
def test_what_is_frozen_stays_bit_for_bit(tmp_path, family, strategy):
    more = {"freeze": ["strategy.train_blocks=1"], "lora": ["strategy.merge=false"]}.get(strategy, [])
    run = run_of(tmp_path, family, BOTH, f"strategy={strategy}", *more)
    before, after = load_file(tmp_path / family / "model.safetensors"), load_file(run.path / "model.safetensors")
    stem = [name for name in before if "embed" in name or "conv_stem" in name]
    assert stem
    for name in stem:
        assert torch.equal(before[name], after[f"model.{name}"]), name
    assert any("task_size" in name for name in after)


def test_the_card_and_the_log_tell_of_every_task(tmp_path, capsys):
    run = run_of(tmp_path, "bert", {"kind": KIND, "size": {**SIZE, "weight": 0.5}}, missing=True)
    card, log = (run.path / "README.md").read_text(), capsys.readouterr().out
    assert "`kind` (column `kind`): one of 2 classes: `a`, `b`" in card
    assert "`size` (column `size`): a number" in card
    assert "AutoModel.from_pretrained" in card
    assert "| size_mae |" in card
    assert "kind (20 labelled)  single label classification, 2 classes: a, b" in log
    assert "best validation mean_score is kept" in log
    assert "size_mae" in log.partition("test (18 samples)")[2]
    assert run.metrics["train"]["task_weights"] == {"kind": 1.0, "size": 0.5}


def test_a_model_of_several_tasks_is_no_checkpoint_to_start_from(tmp_path):
    run = run_of(tmp_path, "bert", BOTH)
    with pytest.raises(UserError, match=r"model of several tasks \(kind, size\)"):
        run_of(tmp_path, "bert", BOTH, f"model.checkpoint={run.path}", name="again")


def test_a_multi_label_task_of_one_label_is_written_with_its_answers(tmp_path):
    data = DatasetDict(
        {name: split.add_column("tags", [["x"] if kind == "a" else [] for kind in split["kind"]])
         for name, split in splits(True).items()}
    )  # fmt: skip
    run = run_of(tmp_path, "bert", {"kind": KIND, "tags": {"label": "tags"}}, data=data)
    told = pd.read_parquet(run.path / "predictions.parquet")
    assert [list(names) for names in told["tags_label"]] == [
        ["x"] if kind == "a" else [] for kind in told["kind_label"]
    ]
    assert {tuple(names) for names in told["tags_prediction"]} <= {(), ("x",)}


def test_a_name_from_the_data_is_no_markdown_in_the_card(tmp_path):
    nasty = ["<img src=x>", "a`b", "``", "`, [x](http://y)", "two\n\n# lines", "  ", "*"]
    space = LabelSpace("single_label_classification", tuple(nasty))
    labels = ManyLabels.of({"kind": ("k`<b>\n# x", space)})
    recipe = recipe_for(tmp_path, "bert", {"kind": KIND})
    told = model_card(recipe, labels, {}, "").partition("at once:")[2].partition("## ")[0].strip()
    assert "\n" not in told
    spans = re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", told)  # as CommonMark finds them
    bare = re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", told)
    assert bare == "-  (column ): one of 7 classes: , , , , , , "
    assert [text.strip() for _, text in spans] == [" ".join(name.split()) for name in ["kind", "k`<b>\n# x", *nasty]]
