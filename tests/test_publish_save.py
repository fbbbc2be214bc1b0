"""What a run leaves: complete, readable by others, and whole or not there."""

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from datasets import Dataset, Image
from evaluation_samples import image_model, images, save_model, text_model, texts
from huggingface_hub import ModelCard
from transformers import pipeline

from hf_finetune.data import LabelSpace, TaskData, collate_images, image_samples, text_samples
from hf_finetune.data.columns import Columns
from hf_finetune.data.text_samples import TextCollator
from hf_finetune.evaluation import with_intervals
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.files import write_whole
from hf_finetune.model import load_finished
from hf_finetune.publish import save_run
from hf_finetune.recipes import Recipe, load_recipe
from hf_finetune.strategy import apply_strategy

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


@dataclass
class Report:
    metrics: dict
    test_logits: np.ndarray | None
    test_labels: np.ndarray | None


def save(folder, made, problem=SINGLE, strategy="full", skipped=(), with_test=True, **changes):
    """Save a run of a tiny model that has not learned; returns (folder, recipe, test rows, report)."""
    model, processor = made
    is_image = hasattr(model.config, "patch_size")
    base = save_model(folder.parent / f"{folder.name}-base", made)
    loaded = load_finished(base)
    names = tuple(model.config.id2label[index] for index in range(len(model.config.id2label)))
    labels = LabelSpace(problem, names)
    count = 14
    truth = {
        SINGLE: [n % len(names) for n in range(count)],
        MULTI: [[float((n >> c) & 1) for c in range(len(names))] for n in range(count)],
        REGRESSION: [n / 3 for n in range(count)],
    }[problem]
    shown = {"image": images(count)} if is_image else {"text": texts(count)}
    rows = Dataset.from_dict({"id": list(range(100, 100 + count)), **shown, "label": truth})
    if is_image:
        rows = rows.cast_column("image", Image(decode=False))
    task = "image-classification" if is_image else "text-classification"
    recipe = Recipe.model_validate(
        {
            "task": task,
            "model": {"checkpoint": str(base)},
            "data": {"dataset": "owner/things"},
            "strategy": strategy,
            "output_dir": str(folder),
            **changes,
        }
    )
    applied = apply_strategy(loaded, recipe)
    samples = image_samples(rows, processor) if is_image else text_samples(rows, processor)
    collate = collate_images if is_image else TextCollator(processor)
    logits = predict_logits(applied.model, samples, collate, 4, "cpu")
    scores = with_intervals(
        logits,
        np.asarray(truth),
        problem,
        {SINGLE: ["accuracy", "log_loss"], MULTI: ["micro_f1"], REGRESSION: ["mse", "r2"]}[problem],
        resamples=100,
    )
    metrics = {
        "train": {"loss": 0.5, "seconds": 1.0, "samples_per_second": 10.0},
        "validation": {"loss": float("nan"), "samples": 3},
        **({"test": {"loss": 0.25, **scores, "samples": count}} if with_test else {}),
    }
    report = Report(metrics, logits if with_test else None, np.asarray(truth))
    data = TaskData(rows, rows, rows if with_test else None, labels, Columns("label"), True, list(skipped))
    save_run(
        folder, recipe=recipe, task=data, loaded=loaded, applied=applied, report=report, table="part  learns\nhead  yes"
    )
    return folder, recipe, rows, report


@pytest.mark.parametrize("strategy", ["full", "head", "lora", {"kind": "lora", "merge": True}])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_pipeline_gives_the_saved_predictions(tmp_path, kind, strategy):
    made = image_model() if kind == "image" else text_model()
    folder, recipe, rows, _ = save(tmp_path / "run", made, strategy=strategy)
    saved = pd.read_parquet(folder / "predictions.parquet")
    from hf_finetune.data import decode_image

    shown = [decode_image(value) for value in rows["image"]] if kind == "image" else rows["text"][:]
    answers = pipeline(recipe.task, model=str(folder))(shown, top_k=1)
    answers = [answer[0] if isinstance(answer, list) else answer for answer in answers]
    assert saved["prediction"].tolist() == [answer["label"] for answer in answers]
    likeliest = saved["probabilities"].map(max)
    np.testing.assert_allclose(likeliest, [answer["score"] for answer in answers], atol=1e-5)
    assert (
        saved["id"].tolist() == list(range(100, 114))
        and saved["label"].tolist()[:2] == list(made[0].config.id2label.values())[:2]
    )
    assert set(saved["prediction"]) <= set(made[0].config.id2label.values())


def test_predictions_of_several_labels_are_lists_of_names(tmp_path):
    folder, _, _, report = save(tmp_path / "run", image_model(problem=MULTI), MULTI)
    saved = pd.read_parquet(folder / "predictions.parquet")
    assert saved["label"].map(list).tolist()[5] == ["ant", "cat"]
    expected = [
        [name for name, logit in zip(("ant", "bee", "cat"), row, strict=True) if logit > 0]
        for row in report.test_logits
    ]
    assert saved["prediction"].map(list).tolist() == expected
    sigmoid = 1 / (1 + np.exp(-report.test_logits.astype(float)))
    np.testing.assert_allclose(np.stack(saved["probabilities"]), sigmoid, atol=1e-6)


def test_predictions_of_numbers_are_numbers(tmp_path):
    folder, _, _, report = save(tmp_path / "run", text_model(("stars",), REGRESSION), REGRESSION)
    saved = pd.read_parquet(folder / "predictions.parquet")
    np.testing.assert_allclose(saved["prediction"], report.test_logits[:, 0])
    assert saved["label"].tolist() == [n / 3 for n in range(14)] and list(saved.columns) == [
        "id",
        "label",
        "prediction",
    ]


def test_metrics_are_strict_json_in_the_documented_layout(tmp_path):
    folder, *_ = save(tmp_path / "run", image_model())
    text = (folder / "metrics.json").read_text()
    assert "NaN" not in text
    metrics = json.loads(text)
    assert list(metrics) == ["train", "validation", "test"] and metrics["validation"]["loss"] is None
    assert metrics["test"]["samples"] == 14
    low, high = metrics["test"]["accuracy_ci95"]
    assert low <= metrics["test"]["accuracy"] <= high


def test_the_recipe_is_written_with_the_commit_that_was_loaded(tmp_path):
    from hf_finetune.publish.save import pin_revisions

    folder, recipe, rows, _ = save(tmp_path / "run", image_model())
    assert load_recipe(str(folder / "recipe.yaml")) == recipe
    commit, data_commit = "a" * 40, "b" * 40
    prepared = tmp_path / "owner___things" / "default" / "0.0.0" / data_commit  # as `datasets` keeps what it prepares
    prepared.mkdir(parents=True)
    rows = rows.map(lambda row: row, cache_file_name=str(prepared / "things-train.arrow")).select(range(9))
    task = TaskData(rows, rows, rows, LabelSpace(SINGLE, ("a", "b")), Columns("label"), True)
    loaded = load_finished(tmp_path / "run")
    loaded.revision = commit
    pinned = pin_revisions(recipe, task, loaded)
    assert pinned.model.revision == commit and pinned.data.revision == data_commit
    (tmp_path / "pinned.yaml").write_text(pinned.to_yaml())
    assert load_recipe(str(tmp_path / "pinned.yaml")) == pinned


def test_rows_left_out_are_listed(tmp_path):
    rows = [
        {"split": "train", "row": 3, "path": "é.jpg", "reason": "truncated"},
        {"split": "test", "row": 9, "path": None, "reason": "x"},
    ]
    folder, *_ = save(tmp_path / "run", image_model(), skipped=rows)
    assert [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()] == rows
    assert not (save(tmp_path / "other", image_model())[0] / "skipped.jsonl").exists()


@pytest.mark.parametrize("with_test", [True, False])
def test_the_model_card_is_one_for_the_hub(tmp_path, with_test):
    folder, *_ = save(tmp_path / "run", image_model(), with_test=with_test, model={"checkpoint": "owner/vit"})
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-classification" and card.data.base_model == "owner/vit"
    assert card.data.datasets == ["owner/things"] and card.data.library_name == "transformers"
    assert yaml.safe_load((folder / "README.md").read_text().split("---")[1])["tags"] == ["hf_finetune", "full"]
    assert "head  yes" in card.text and 'pipeline("image-classification", model="run")' in card.text
    assert "recipe=recipe.yaml" in card.text
    assert ("| accuracy |" in card.text) is with_test
    assert (folder / "predictions.parquet").exists() is with_test
    if with_test:
        assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "log_loss"}


def test_the_model_card_says_no_more_than_is_known(tmp_path):
    folder, *_ = save(tmp_path / "run", image_model(), data={"dataset": {"train": "a.csv", "test": "b.csv"}})
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model is None and card.data.datasets is None and card.data.eval_results is None


def test_a_file_is_whole_or_as_it_was(tmp_path):
    target = tmp_path / "file.json"
    write_whole(target, "old")

    def breaks_off(path):
        path.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(target, breaks_off)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.slow
def test_a_kill_while_saving_leaves_no_half_file_and_no_metrics(tmp_path):
    """The process is killed halfway through README.md: nothing is torn, and the run does not look finished."""
    script = textwrap.dedent(
        f"""
        import os, pathlib, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_publish_save import save
        from evaluation_samples import image_model
        whole = pathlib.Path.write_bytes
        def killed(path, content):
            if "README" in path.name:
                whole(path, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(path, content)
        pathlib.Path.write_bytes = killed
        save(pathlib.Path({str(tmp_path / "run")!r}), image_model())
        """
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    left = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")}
    assert {"config.json", "model.safetensors", "predictions.parquet", "recipe.yaml"} <= left
    assert "README.md" not in left and "metrics.json" not in left
    load_finished(tmp_path / "run")


def test_metrics_come_last(tmp_path):
    folder, *_ = save(tmp_path / "run", image_model())
    drawn = ("report.html", "report.json")  # from the finished run
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name not in drawn}
    assert max(times, key=times.__getitem__) == "metrics.json"
    assert times["model.safetensors"] <= min(
        times[name] for name in ("predictions.parquet", "recipe.yaml", "README.md")
    )
