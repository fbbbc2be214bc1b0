"""`evaluation.patience`: which evaluations count, what is left of the last step, and that a resume changes nothing."""

from __future__ import annotations

import json

import pytest
import torch
from test_training_resume import log_of, newest_step, scored
from test_training_trainer import train_and_interrupt
from trainer_samples import weights

from hf_finetune.training.checkpoints import newest_whole

FALLING = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]


@pytest.mark.parametrize(
    ("scores", "save", "end", "best"),
    [
        (FALLING, 8, 3, 3),  # the first step was the best, and nothing was saved yet
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4, 2),  # the last step is due anyway
        pytest.param([0.1, 0.2, 0.9, 0.8, 0.85, 1.0], 2, 5, 5, marks=pytest.mark.slow),
        pytest.param([float("nan"), float("nan"), 0.5], 8, 2, None, marks=pytest.mark.slow),  # never better
    ],
)
def test_patience_counts_every_evaluation_and_the_last_step_is_saved(tmp_path, capsys, scores, save, end, best):
    """It began anew at each score that beat the best saved one, and nothing ended before two were saved."""
    settings = {"save_steps": save, "patience": 2, "logging_strategy": "epoch"}
    whole = scored(tmp_path, *scores, **settings)
    whole.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if "best so far" in line]
    assert (whole.state.global_step, whole.state.best_global_step, newest_step(tmp_path)) == (end, best, end)
    assert [f"step {best} " in line for line in lines[-1:]] == [True] * (best is not None)
    again = scored(tmp_path, *scores, **settings)  # killed before it was scored
    again.train(resume_from_checkpoint=str(newest_whole(tmp_path / "checkpoints")))
    assert (again.state.global_step, again.state.best_global_step) == (end, best)
    assert json.dumps(log_of(again), sort_keys=True) == json.dumps(log_of(whole), sort_keys=True)  # NaN is not NaN
    for name, tensor in weights(again.model).items():
        assert torch.equal(tensor, weights(whole.model)[name]), name


def test_patience_goes_on_with_the_best_score_of_a_step_that_was_not_saved(tmp_path, capsys):
    """And what is restored keeps its place among the callbacks: the line of the last step was written before it."""
    scores = [0.9, 0.1, 0.5, 0.6, 0.7]
    settings = {"patience": 4}
    train_and_interrupt(scored(tmp_path, *scores, **settings), 3)  # behind step 2
    capsys.readouterr()
    again = scored(tmp_path, *scores[2:], **settings)
    again.train(resume_from_checkpoint=str(newest_whole(tmp_path / "checkpoints")))
    assert (again.state.global_step, again.state.best_global_step) == (5, 5)
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation loss" in line]
    assert ["best so far" in line for line in lines] == [False, True, True]
