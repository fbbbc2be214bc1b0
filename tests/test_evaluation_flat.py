"""Evaluation keeps each answer once: off the device every few batches, and no copy of all of them on the host."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainer_samples import collate, trainer
from transformers import Trainer, trainer_pt_utils

from hf_finetune.evaluation import compute_metrics
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.outputs import log_normalizer, probabilities
from hf_finetune.training import losses
from hf_finetune.training.arguments import DEFAULTS
from hf_finetune.training.losses import loss_function, mean_loss
from hf_finetune.training.whole_splits import WholeSplits, in_order, least_padded


def test_parts_become_the_split_and_are_given_up():
    order = np.array([3, 0, 4, 1, 2])
    rows = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    parts = [rows[order][:2], rows[order][2:3], rows[order][3:]]
    assert np.array_equal(in_order(parts, order), rows)
    assert parts == []
    assert in_order(None, order) is None


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_the_trainer_never_copies_what_it_has(tmp_path, monkeypatch, family):
    ours = trainer(tmp_path, family, per_device_eval_batch_size=2)
    expected = predict_logits(ours.model, ours.eval_dataset, collate, 2, "cpu")

    def copies(*_, **__):
        raise AssertionError("all predictions so far are copied")

    held = []
    add = trainer_pt_utils.EvalLoopContainer.add

    def watched(self, tensors):
        add(self, tensors)
        held.append(len(self.tensors))

    monkeypatch.setattr(trainer_pt_utils, "nested_concat", copies)
    monkeypatch.setattr(trainer_pt_utils.EvalLoopContainer, "add", watched)
    found = ours.predict(ours.eval_dataset)
    np.testing.assert_allclose(found.predictions, expected, atol=1e-5)
    assert found.predictions.dtype == np.float32 and len(found.label_ids) == len(expected)
    assert max(held) <= DEFAULTS["eval_accumulation_steps"]
    assert ours.evaluate()["eval_accuracy"] == pytest.approx(found.metrics["test_accuracy"])


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_metrics_and_loss_need_little_beside_the_logits(problem):
    rng = np.random.default_rng(0)
    logits = rng.normal(-3, 1, (4000, 4000)).astype(np.float32)
    labels = rng.integers(0, 4000, 4000)
    names = ("accuracy", "macro_f1", "top5_accuracy", "log_loss", "ece")
    if problem == "multi_label_classification":
        rows, labels = labels, np.zeros((4000, 4000), dtype=np.int8)
        labels[np.arange(4000), rows] = 1
        names = ("accuracy", "micro_f1")
    tracemalloc.start()
    compute_metrics(logits, labels, problem, names)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (0.75 if problem == "single_label_classification" else 1.5) * logits.nbytes


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_loss_in_parts_is_the_loss(monkeypatch, problem):
    torch.manual_seed(0)
    logits = torch.randn(50, 7)
    labels = {
        "single_label_classification": torch.randint(0, 7, (50,)),
        "multi_label_classification": torch.randint(0, 2, (50, 7)).float(),
        "regression": torch.randn(50, 7),
    }[problem]
    loss = loss_function(problem)
    whole = loss(logits, labels).item()
    assert mean_loss(loss, logits, labels) == whole
    monkeypatch.setattr(losses, "_CELLS", 7 * 8)
    assert mean_loss(loss, logits, labels) == pytest.approx(whole, rel=1e-6)


def test_rows_give_the_same_numbers_in_parts_of_any_size(monkeypatch):
    from hf_finetune import outputs

    logits = np.random.default_rng(0).normal(size=(40, 9)).astype(np.float32)
    whole = [log_normalizer(logits), *(probabilities(logits, f"{n}_label_classification") for n in ("single", "multi"))]
    monkeypatch.setattr(outputs.parts_of, "__defaults__", (20,))
    parts = [log_normalizer(logits), *(probabilities(logits, f"{n}_label_classification") for n in ("single", "multi"))]
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("rows", [[3], [3, 3]])
def test_rows_that_are_missing_or_come_twice_are_no_scores(rows):
    with pytest.raises(RuntimeError, match=r"of 4 rows|more than 4 rows"):
        in_order([np.zeros((n, 2)) for n in rows], np.arange(4))


@given(rows=st.integers(1, 5000), batch=st.integers(1, 512), processes=st.integers(1, 8))
def test_processes_compute_few_rows_twice(rows, batch, processes):
    """Of accelerate's whole batches for every process, fewer than one row a process and round is computed again."""
    size = least_padded(rows, batch, processes)
    assert 1 <= size <= batch
    rounds = -(-rows // (size * processes))
    assert rounds <= -(-rows // (batch * processes)), "no more rounds than before"
    if processes > 1:
        assert rounds * size * processes - rows < rounds * processes
    else:
        assert size == batch


def test_the_loaders_of_an_evaluation_have_that_size(monkeypatch):
    seen = {}
    monkeypatch.setattr(Trainer, "_get_dataloader", lambda *told, **more: seen.update({told[2]: told[3]}))
    trainer = WholeSplits.__new__(WholeSplits)
    trainer.args = SimpleNamespace(world_size=2, dataloader_drop_last=True)
    trainer._get_dataloader(dataset=range(64), description="Evaluation", batch_size=256, sampler_fn=None)
    trainer._get_dataloader(dataset=range(64), description="Training", batch_size=256, is_training=True)
    assert seen == {"Evaluation": 32, "Training": 256}
