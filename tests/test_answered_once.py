"""The validation split is answered once for the same weights, and the scores are those of a second pass."""

import numpy as np
import pandas as pd
import pytest
import torch
from model_samples import tiny
from test_finetune import in_memory, small

from hf_finetune import finetune
from hf_finetune.training import answered_once
from hf_finetune.training.answered_once import Answers, fingerprint
from hf_finetune.training.prefix_cache import CachedStage
from hf_finetune.training.trainer import FinetuneTrainer


@pytest.fixture
def rows_answered(monkeypatch):
    """How many rows of evaluation splits went through the model."""
    counted, step = [], FinetuneTrainer.prediction_step

    def count(self, model, inputs, *args, **kwargs):
        counted.append(len(inputs["labels"]))
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(FinetuneTrainer, "prediction_step", count)
    return counted


def forget(monkeypatch):
    monkeypatch.setattr(answered_once, "_MOST_BYTES", -1)


def scores(run):
    return {split: values for split, values in run.metrics.items() if split != "train"}


def test_the_best_weights_are_not_validated_again(tmp_path, rows_answered):
    # At this rate the last epochs are no better: the best checkpoint is an earlier one.
    run = finetune(small(tmp_path, "training.num_train_epochs=4", "training.learning_rate=0.05", "seed=1"))
    assert run.metrics["train"]["best_step"] < run.metrics["train"]["steps"]
    assert sum(rows_answered) == 4 * run.metrics["validation"]["samples"] + run.metrics["test"]["samples"]


def test_other_views_are_answered_anew(tmp_path, rows_answered):
    run = finetune(small(tmp_path, "evaluation.tta=flip"))
    assert sum(rows_answered) == 2 * run.metrics["validation"]["samples"] + run.metrics["test"]["samples"]


@pytest.mark.parametrize(
    "pairs",
    [
        ("training.num_train_epochs=3", "training.learning_rate=0.05"),
        ("evaluation.tta=flip",),
        ("average.ema=0.9", "training.num_train_epochs=3"),
        ("average.soup=greedy", "training.num_train_epochs=3"),
        ("strategy=lora",),
        ("strategy=head", "training.num_train_epochs=2"),
        ("evaluation.calibration=temperature",),
        ("strategy=lp_ft", "training.num_train_epochs=4", "training.learning_rate=0.5", "cache.dtype=bf16"),
    ],
    ids=lambda pairs: pairs[0],
)
def test_scores_are_those_of_a_second_pass(tmp_path, monkeypatch, pairs):
    once = finetune(small(tmp_path / "once", *pairs))
    forget(monkeypatch)
    assert scores(once) == scores(finetune(small(tmp_path / "again", *pairs)))


def test_targets_in_their_unit_are_those_of_a_second_pass(tmp_path, monkeypatch):
    data = in_memory([float(200 + 30 * (row % 5)) for row in range(60)])
    once = finetune(small(tmp_path / "once", "evaluation.metrics=null"), data=data)
    forget(monkeypatch)
    again = finetune(small(tmp_path / "again", "evaluation.metrics=null"), data=data)
    assert scores(once)["validation"] == pytest.approx(scores(again)["validation"], rel=1e-6)
    predictions = [pd.read_parquet(run.path / "predictions.parquet")["prediction"] for run in (once, again)]
    np.testing.assert_array_equal(*predictions)


def test_answers_are_those_of_weights_views_and_stage():
    """Features kept in bf16 for one stage do not answer for the next, which has real samples."""
    weights, stage = torch.ones(3, 2), CachedStage(replay=None, features={}, head_alone=False)
    answers = Answers(weights, "none", stage, None, "eval")
    assert answers.are_of(weights.clone(), "none", stage)
    assert not answers.are_of(weights, "none", None)
    assert not answers.are_of(weights, "none", CachedStage(replay=None, features={}, head_alone=False))
    assert not answers.are_of(weights, "flip", stage)
    assert not answers.are_of(weights + 1, "none", stage)


def test_a_head_alone_looks_at_no_weights(tmp_path, monkeypatch):
    """Its validation takes milliseconds, a look at all frozen weights more."""
    monkeypatch.setattr(answered_once, "fingerprint", None)
    run = finetune(small(tmp_path, "strategy=head", "training.num_train_epochs=2"))
    assert run.metrics["validation"]["accuracy"] > 0


def test_a_change_of_any_weight_or_buffer_shows():
    model = tiny("resnet")
    before = fingerprint(model)
    assert torch.equal(before, fingerprint(model))
    for tensor in (*model.parameters(), *model.buffers()):
        with torch.no_grad():
            tensor.view(-1)[-1] += 1
            assert not torch.equal(before, fingerprint(model))
            tensor.view(-1)[-1] -= 1
