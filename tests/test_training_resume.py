"""What a run logs, and when it ends, is the same with an interruption as without."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from cache_samples import data_for, recipe_of
from run_samples import break_off
from safetensors.torch import load_file
from test_training_averages import Scores
from test_training_trainer import Stop, train_and_interrupt
from trainer_samples import Fixed, trainer, weights
from transformers import TrainerCallback

from hf_finetune import finetune, stopping
from hf_finetune.training import answered_once
from hf_finetune.training.checkpoints import SEAL, WEIGHTS, newest_whole

STEPS = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 3, "eval_steps": 3}


def resumed(folder, **settings):
    run = trainer(folder, "vit", **settings)
    run.train(resume_from_checkpoint=str(newest_whole(folder / "checkpoints")))
    return run


def log_of(run):
    """Without times."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(("runtime", "per_second"))}
        for entry in run.state.log_history
    ]


@pytest.mark.parametrize("stop", [4, 5, 7, 13])
def test_the_losses_that_were_not_logged_yet_are_in_the_next_log(tmp_path, stop):
    """Checkpoints at 3, 6, 9, 12 and logs at 4, 8, 12: the loss of steps 1 to 3 was lost on resuming at 3."""
    settings = {"num_train_epochs": 2, "logging_steps": 4, **STEPS}
    whole = trainer(tmp_path / "whole", "vit", **settings)
    whole.train()
    train_and_interrupt(trainer(tmp_path / "parts", "vit", **settings), stop)
    assert log_of(resumed(tmp_path / "parts", **settings)) == log_of(whole)


def test_accumulated_and_twice_interrupted_losses_too(tmp_path):
    settings = {"num_train_epochs": 4, "logging_steps": 5, "gradient_accumulation_steps": 2, **STEPS}
    whole = trainer(tmp_path / "whole", "vit", **settings)
    whole.train()
    train_and_interrupt(trainer(tmp_path / "parts", "vit", **settings), 4)
    again = trainer(tmp_path / "parts", "vit", **settings)

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 7:
                raise Stop

    again.add_callback(Interrupt())
    with pytest.raises(Stop):
        again.train(resume_from_checkpoint=str(newest_whole(tmp_path / "parts" / "checkpoints")))
    assert log_of(resumed(tmp_path / "parts", **settings)) == log_of(whole)


@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 1, "num_train_epochs": 6},
        {"patience": 1, "num_train_epochs": 6, **STEPS},
        {"max_steps": 11},
        {"max_steps": 11, **STEPS},
        {"save_total_limit": 1},
    ],
    ids=["early stopping", "early stopping by steps", "max_steps", "max_steps by steps", "one checkpoint"],
)
def test_a_run_that_had_ended_is_not_trained_further(tmp_path, settings):
    """Killed after its last step, before it was scored. With a limit of one checkpoint transformers deletes the last
    one as training ends, and keeps the best."""

    def run():
        found = trainer(tmp_path, "vit", **settings)
        found.compute_metrics = lambda prediction: {"accuracy": 0.5}  # never better than the first
        return found

    whole = run()
    whole.train()
    ended = whole.state.global_step
    again = run()
    again.train(resume_from_checkpoint=str(newest_whole(tmp_path / "checkpoints")))
    assert again.state.global_step == ended == newest_step(tmp_path)
    assert log_of(again) == log_of(whole)
    for name, tensor in weights(again.model).items():
        assert torch.equal(tensor, weights(whole.model)[name]), name


def newest_step(folder):
    return int(newest_whole(folder / "checkpoints").name.rpartition("-")[2])


def test_the_checkpoint_of_an_epochs_last_step_holds_what_the_epochs_end_brings(tmp_path):
    """The log of an epoch came after it, and was left out where the run went on from there."""
    settings = {**STEPS, "num_train_epochs": 2, "logging_strategy": "epoch", "save_steps": 4, "eval_steps": 4}
    whole = trainer(tmp_path / "whole", "vit", **settings)
    whole.train()
    first = trainer(tmp_path / "parts", "vit", **settings)

    class Interrupt(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            raise Stop

    first.add_callback(Interrupt())
    with pytest.raises(Stop):
        first.train()
    assert newest_step(tmp_path / "parts") == 4
    assert log_of(resumed(tmp_path / "parts", **settings)) == log_of(whole)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_rows_that_were_trained_on_are_passed_over_without_being_read(tmp_path, workers):
    settings = {"num_train_epochs": 1, "dataloader_num_workers": workers, **STEPS}
    train_and_interrupt(trainer(tmp_path, "vit", **settings), 7)
    read = torch.zeros(1, dtype=torch.int64).share_memory_()

    class Counted(Fixed):
        def __getitem__(self, index):
            read.add_(1)
            return super().__getitem__(index)

    run = trainer(tmp_path, "vit", **settings)
    run.train_dataset = Counted("vit", 32)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-6"))
    assert int(read) == 2 * 4  # two of eight batches of four


def test_a_checkpoint_of_another_number_of_processes_gives_the_mean_of_their_losses(tmp_path):
    run = trainer(tmp_path, "vit")
    run._left = {"losses": [1.0, 3.0], "logged": 4, "total": 10.0}
    run._tr_loss, run._total_loss_scalar, run._globalstep_last_logged = torch.tensor(0.0), 0.0, 6
    run._take_up()
    assert (float(run._tr_loss), run._total_loss_scalar, run._globalstep_last_logged) == (2.0, 10.0, 4)


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance", "sequential", "random"])
def test_the_rows_come_in_the_same_order_whatever_orders_them(tmp_path, monkeypatch, strategy):
    """transformers' group_by_length draws its order from the global generator, of which a checkpoint knows the state
    in the middle of an epoch, and not at its beginning."""
    settings = {**STEPS, "save_steps": 4, "eval_steps": 4, "num_train_epochs": 3, "train_sampling_strategy": strategy}
    whole = finetune(recipe_of(tmp_path, "bert", "full", "whole", training=settings), data=data_for("bert"))
    broken = recipe_of(tmp_path, "bert", "full", "broken", training=settings)
    break_off(broken, monkeypatch, data=data_for("bert"))
    again = finetune(broken, data=data_for("bert"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


@pytest.mark.parametrize(("scores", "best"), [((0.1,), 16), pytest.param((0.5,), 24, marks=pytest.mark.slow)])
def test_where_the_best_checkpoint_has_gone_the_best_of_those_that_are_there_is_kept(tmp_path, capsys, scores, best):
    """Step 8 was the best until step 24 came, which is damaged: the run ended in a FileNotFoundError at each start."""
    settings = {"num_train_epochs": 3, "save_total_limit": 2}
    first = trainer(tmp_path, "vit", **settings)
    first.compute_metrics = Scores(0.8, 0.2, 0.9)
    first.train()
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-16", "checkpoint-24"]
    (folder / "checkpoint-24" / SEAL).unlink()
    again = trainer(tmp_path, "vit", **settings)
    again.compute_metrics = Scores(*scores)
    again.train(resume_from_checkpoint=str(newest_whole(folder)))
    assert (again.state.best_global_step, again.state.best_metric) == (best, max(0.2, *scores))
    assert "checkpoint-8, the best one so far, is gone or damaged: checkpoint-16 is it now" in capsys.readouterr().err
    for name, tensor in load_file(folder / f"checkpoint-{best}" / WEIGHTS).items():
        assert torch.equal(weights(again.model)[name], tensor), name


RARELY_SAVED = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}


def scored(folder, *scores, **settings):
    run = trainer(folder, "vit", **{"num_train_epochs": 1, **RARELY_SAVED, **settings})
    run.compute_metrics = Scores(*scores)
    return run


@pytest.mark.parametrize("limit", [1, pytest.param(None, marks=pytest.mark.slow)])
def test_of_a_run_that_validates_more_often_than_it_saves_the_best_saved_step_is_kept(tmp_path, capsys, limit):
    """Step 1 was the best and never saved: it was looked for after the last step, and again at the next start."""
    scores = [0.9, 0.5, 0.8, 0.7, 0.8, 0.6, 0.95, 0.4]
    whole = scored(tmp_path / "whole", *scores, save_total_limit=limit)
    whole.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation loss" in line]
    assert ["best so far" in line for line in lines] == [False, True, False, True, False, False, False, False]
    assert (whole.state.best_global_step, whole.state.best_metric) == (4, 0.7)
    kept = load_file(tmp_path / "whole" / "checkpoints" / "checkpoint-4" / WEIGHTS)
    for name, tensor in kept.items():
        assert torch.equal(weights(whole.model)[name], tensor), name
    killed = scored(tmp_path / "killed", *scores, save_total_limit=limit)
    train_and_interrupt(killed, 4)  # behind step 2, which is the best one then
    capsys.readouterr()
    again = scored(tmp_path / "killed", *scores[2:], save_total_limit=limit)
    again.train(resume_from_checkpoint=str(newest_whole(tmp_path / "killed" / "checkpoints")))
    assert log_of(again) == log_of(whole) and "warning" not in capsys.readouterr().err  # the bar is there
    assert (again.state.best_global_step, again.best_steps()) == (4, [4, 6, 2, 8])
    for name, tensor in kept.items():
        assert torch.equal(weights(again.model)[name], tensor), name


def test_the_checkpoint_that_a_signal_leaves_where_none_is_due_is_not_chosen(tmp_path):
    """Without the signal it would not be there."""
    scores = [0.5, 0.6, 0.9, 0.7, 0.8, 0.7, 0.4, 0.5]

    class Signal(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    stopped = scored(tmp_path, *scores)
    stopped.add_callback(Signal())
    with stopping.listening(), pytest.raises(stopping.Stopped):
        stopped.train()
    assert newest_step(tmp_path) == 3
    again = scored(tmp_path, *scores[3:])
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-3"))
    assert (again.state.best_global_step, again.best_steps(2)) == (4, [4, 6])


@pytest.mark.parametrize(
    ("strategy", "shown"), [("steps", "step 2"), pytest.param("best", "step 1", marks=pytest.mark.slow)]
)
def test_what_was_there_before_the_first_step_is_chosen_nowhere(tmp_path, capsys, monkeypatch, strategy, shown):
    """`training.eval_on_start`: step 0 has a score and no checkpoint, and took a place among the best."""
    monkeypatch.setattr(answered_once, "_MOST_BYTES", -1)  # the first step has a rate of 0: see below
    run = scored(tmp_path, 0.9, 0.5, 0.6, eval_on_start=True, max_steps=2, save_strategy=strategy)
    run.train()
    assert 0 not in run.best_steps() and run.best_steps(1) == [2]
    best = [line for line in capsys.readouterr().out.splitlines() if "best so far" in line]
    assert best and best[0].split("step ")[1].split(" ")[0] == shown.split(" ")[1]


def test_a_run_that_goes_on_is_not_validated_again_as_it_starts(tmp_path, monkeypatch):
    """`training.eval_on_start`: its log had a score more, patience counted it twice, and an unsaved step was saved."""
    # Its first step has a rate of 0, and the same weights are answered once: a score here is one for each validation.
    monkeypatch.setattr(answered_once, "_MOST_BYTES", -1)
    settings = {"eval_on_start": True, "patience": 4}
    scores = [0.9, 0.5, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5]
    whole = scored(tmp_path / "whole", *scores, **settings)
    whole.train()
    train_and_interrupt(scored(tmp_path / "killed", *scores, **settings), 5)
    again = scored(tmp_path / "killed", 0.5, **settings)
    again.train(resume_from_checkpoint=str(newest_whole(tmp_path / "killed" / "checkpoints")))
    assert log_of(again) == log_of(whole) and again.state.global_step == whole.state.global_step == 6


@pytest.mark.slow
def test_where_every_better_step_is_saved_the_others_are_not_chosen_either(tmp_path):
    run = scored(tmp_path, 0.5, 0.7, 0.6, 0.8, 0.75, save_strategy="best")
    run.train()
    assert (run.state.best_global_step, run.best_steps()) == (4, [4, 2, 1])
