"""Balanced sampling: the shares, the length, and that nothing but seed and epoch decides the order."""

from collections import Counter

import numpy as np
import pytest
import torch
from run_samples import check_same, on_one_and_on_two_processes
from torch.utils.data import BatchSampler
from trainer_samples import Fixed, trainer, weights

from hf_finetune.errors import UserError
from hf_finetune.training.sampling import BalancedSampler

LABELS = [0] * 60 + [1] * 30 + [2] * 10


def test_every_class_is_drawn_equally_often_and_the_length_is_kept():
    sampler = BalancedSampler(LABELS, seed=0)
    rows = list(sampler)
    assert len(rows) == len(sampler) == 100
    counts = Counter(LABELS[row] for row in rows)
    assert set(counts.values()) == {33, 34}


def test_the_odd_place_goes_round():
    sampler, total = BalancedSampler(LABELS, seed=0), Counter()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        total.update(LABELS[row] for row in sampler)
    assert all(1980 < count < 2020 for count in total.values())


def test_a_row_comes_twice_only_after_all_of_its_class_have_come():
    counts = Counter(BalancedSampler(LABELS, seed=0))
    assert {counts[row] for row in range(90, 100)} == {3, 4}
    assert max(counts[row] for row in range(60)) == 1
    assert {counts[row] for row in range(60, 90)} == {1, 2}


def test_classes_are_spread_over_the_epoch():
    classes = [LABELS[row] for row in BalancedSampler(LABELS, seed=0)]
    assert all(5 < classes[:30].count(number) < 16 for number in range(3))


def test_epochs_and_seeds_differ_and_repeat():
    sampler = BalancedSampler(LABELS, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first != list(BalancedSampler(LABELS, seed=4))
    sampler.set_epoch(0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert list(sampler) == first


def test_two_processes_draw_as_one_does():
    """Accelerate deals the batches of the one order out in turn."""
    from accelerate.data_loader import BatchSamplerShard

    def batches(size, processes, process):
        sampler = BalancedSampler(LABELS, seed=0)
        return list(BatchSamplerShard(BatchSampler(sampler, size, drop_last=True), processes, process))

    whole = batches(16, 1, 0)
    shared = [batches(8, 2, process) for process in range(2)]
    assert [one + other for one, other in zip(*shared, strict=True)] == whole


def test_labels_that_are_not_one_class_a_row():
    for labels in ([[0, 1], [1, 1]], [0.5, 1.5]):
        with pytest.raises(UserError, match="one class a row"):
            BalancedSampler(labels, seed=0)


class Noting(Fixed):
    """Remembers which rows were asked for."""

    def __init__(self, family, size):
        super().__init__(family, size)
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        return super().__getitem__(index)


def noting(folder, **training):
    data = Noting("vit", 32)
    run = trainer(
        folder,
        "vit",
        num_train_epochs=3,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=3,
        save_total_limit=0,
        extra={"sampler": BalancedSampler([0] * 24 + [1] * 8, seed=5)},
        **training,
    )
    run.train_dataset = data
    return run, data


def test_resumed_in_the_middle_of_an_epoch_equals_uninterrupted(tmp_path):
    whole, all_rows = noting(tmp_path)
    whole.train()
    assert len(all_rows.asked) == 96
    for epoch in range(3):
        counts = Counter(row >= 24 for row in all_rows.asked[32 * epoch : 32 * (epoch + 1)])
        assert counts == {True: 16, False: 16}
    part, rest = noting(tmp_path)
    part.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-12"))  # 4 of 8 steps into epoch 2
    assert rest.asked == all_rows.asked[48:]
    for name, tensor in weights(whole.model).items():
        assert torch.equal(tensor, weights(part.model)[name]), name


JOB = (
    "recipe=digits", "model.checkpoint=package:digits-vit", "data.max_train_samples=101", "data.max_eval_samples=20",
    "data.augment=none", "training.num_train_epochs=2", "evaluation.bootstrap=0", "precision=no", "training.optim=sgd",
    "training.learning_rate=0.005", "loss.sampling=balanced", "loss.class_weights={'1': 2.0}",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.distributed
def test_a_run_on_two_processes_equals_one(call, run_in):
    check_same(on_one_and_on_two_processes(call, run_in, JOB, 16), "model.safetensors")
