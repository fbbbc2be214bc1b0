"""Texts of like length meet in a batch: what that leaves of chance, and that no score knows of it."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from model_samples import save_checkpoint

from hf_finetune import finetune
from hf_finetune.data import TextCollator
from hf_finetune.recipes import load_recipe
from hf_finetune.training.length_groups import LengthGroups
from hf_finetune.training.trainer import FinetuneTrainer

LENGTHS = np.random.default_rng(0).geometric(0.05, size=3210) + 2


def epoch(number, lengths=LENGTHS, batch=16, seed=3):
    groups = LengthGroups(lengths, batch, seed)
    groups.set_epoch(number)
    return np.array(list(groups))


def test_every_row_comes_once_and_an_epoch_is_a_function_of_its_number():
    first = epoch(0)
    assert sorted(first) == list(range(len(LENGTHS)))
    assert list(first) == list(epoch(0))
    assert list(first) != list(epoch(1))
    assert list(first) != list(epoch(0, seed=4))


def test_little_of_a_batch_is_padding_and_the_longest_comes_first():
    batches = LENGTHS[epoch(0)[: len(LENGTHS) // 16 * 16]].reshape(-1, 16)
    shuffled = LENGTHS[np.random.default_rng(1).permutation(len(LENGTHS))[: batches.size]].reshape(-1, 16)
    filled, by_chance = (each.sum() / (each.max(1) * 16).sum() for each in (batches, shuffled))
    assert filled > 0.9 > 0.5 > by_chance
    assert batches[0].max() == LENGTHS[epoch(0)][: batches.size].max()


def test_batches_come_in_no_order_of_length_and_meet_others_each_epoch():
    means = [LENGTHS[epoch(number)[: 200 * 16]].reshape(-1, 16).mean(1) for number in range(2)]
    assert abs(np.corrcoef(means[0], np.arange(200))[0, 1]) < 0.25
    together = [
        {frozenset(pair) for row in epoch(n)[:3200].reshape(-1, 16) for pair in pairwise(row)} for n in range(2)
    ]
    assert len(together[0] & together[1]) < 0.05 * len(together[0])


def test_what_is_left_over_is_any_row_not_the_shortest():
    left = np.concatenate([epoch(number)[3200:] for number in range(60)])
    assert LENGTHS[left].mean() == pytest.approx(LENGTHS.mean(), rel=0.15)


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17])
def test_fewer_rows_than_a_batch(rows):
    assert sorted(epoch(0, LENGTHS[:rows])) == list(range(rows))


@pytest.fixture
def recipe(tmp_path):
    save_checkpoint("bert", tmp_path / "bert")
    rows = [("good " * (1 + n % 17), "yes") if n % 3 else ("bad " * (1 + n % 13), "no") for n in range(60)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "rows.csv", index=False)
    pairs = (
        f"model.checkpoint={tmp_path / 'bert'}",
        f"data.dataset={tmp_path / 'rows.csv'}",
        *("data.text=text", "data.label=label", "data.train_split=train", "data.test_split=0.4"),
        *("data.validation=0.2", "data.max_length=null", "evaluation.bootstrap=0"),
        *("training.num_train_epochs=1", "training.per_device_train_batch_size=8"),
    )
    return lambda name, *more: load_recipe("sst2", *pairs, f"output_dir={tmp_path / name}", *more)


def widths(monkeypatch):
    """The numbers of tokens of the batches that are collated from now on."""
    seen, call = [], TextCollator.__call__

    def look(self, samples):
        batch = call(self, samples)
        seen.append([len(sample["input_ids"]) for sample in samples])
        return batch

    monkeypatch.setattr(TextCollator, "__call__", look)
    return seen


def spread(batches):
    return np.mean([max(lengths) - min(lengths) for lengths in batches])


def test_texts_are_grouped_unless_another_order_is_named(recipe, monkeypatch):
    batches = {}
    for name, pairs in {
        "grouped": (),
        "random": ("training.train_sampling_strategy=random",),
        "balanced": ("loss.sampling=balanced",),
    }.items():
        seen = widths(monkeypatch)
        finetune(recipe(name, *pairs))
        batches[name] = [lengths for lengths in seen if len(lengths) == 8][:3]
        monkeypatch.undo()
    assert spread(batches["grouped"]) < 6 < min(spread(batches["random"]), spread(batches["balanced"]))


def test_evaluation_reads_the_longest_first_and_answers_in_the_splits_order(recipe, monkeypatch):
    seen = widths(monkeypatch)
    run = finetune(recipe("run", "training.per_device_eval_batch_size=4"))
    test = [lengths for batch in seen[-6:] for lengths in batch]
    assert test == sorted(test, reverse=True)
    written = pd.read_parquet(run.path / "predictions.parquet")
    rows = pd.read_csv(recipe("run").data.dataset)
    again = run.predict([rows["text"][number] for number in written["id"]])
    assert [answer["label"] for answer in again] == list(written["prediction"])


def test_metrics_see_the_splits_order(tmp_path):
    from trainer_samples import Fixed, trainer

    class Ragged(Fixed):
        lengths = np.array([3, 9, 1, 7, 5, 2, 8, 4, 6, 10])

    data, seen = Ragged("bert", 10, seed=5), []
    ours: FinetuneTrainer = trainer(tmp_path, "bert", eval_dataset=data)
    ours.compute_metrics = lambda found: seen.append(found.label_ids) or {}
    found = ours.predict(data)
    labels = torch.stack([data[index]["labels"] for index in range(10)]).numpy()
    assert (seen[0] == labels).all()
    assert (found.label_ids == labels).all()
    with torch.no_grad():
        batch = {name: column for name, column in data.columns.items() if name != "labels"}
        assert np.allclose(found.predictions, ours.model.eval()(**batch).logits.numpy(), atol=1e-5)
