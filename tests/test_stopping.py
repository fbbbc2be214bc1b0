"""Ctrl-C and SIGTERM: the step is finished, a checkpoint written, and the same command ends as if nothing had been."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from cache_samples import data_for, recipe_of
from torch.utils.data import DataLoader, Dataset

from hf_finetune import finetune, stopping
from hf_finetune.training import checkpoints
from hf_finetune.training.trainer import FinetuneTrainer

INT, TERM = signal.SIGINT, signal.SIGTERM
STEPS = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 4, "eval_steps": 4}


@pytest.fixture(autouse=True)
def _same_handlers():
    """A test that goes wrong leaves nobody deaf."""
    before = signal.getsignal(INT), signal.getsignal(TERM)
    yield
    assert (signal.getsignal(INT), signal.getsignal(TERM)) == before


def recipe(folder, name, strategy="full", **training):
    return recipe_of(folder, "vit", strategy, name, training=training)


def run(made):
    return finetune(made, data=data_for("vit"), precision="no")


def signalled(monkeypatch, place, at, *numbers):
    """Patch a method of the Trainer to send signals to this process at the n-th call."""
    was, calls = getattr(FinetuneTrainer, place), []

    def patched(self, *args, **kwargs):
        calls.append(place)
        if len(calls) == at:
            for number in numbers:
                os.kill(os.getpid(), number)
        return was(self, *args, **kwargs)

    monkeypatch.setattr(FinetuneTrainer, place, patched)


def assert_same(one, other):
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    assert one.metrics["test"] == other.metrics["test"]
    assert one.metrics["train"]["loss"] == other.metrics["train"]["loss"]


@pytest.mark.parametrize(
    ("place", "at", "number", "training", "step"),
    [
        ("training_step", 2, TERM, {}, 2),  # in an epoch of three steps
        ("training_step", 2, INT, {"dataloader_num_workers": 1}, 2),
        ("training_step", 3, TERM, {}, 3),  # in its last step: what belongs to its end is done first
        pytest.param(
            "training_step",
            3,
            TERM,
            {"gradient_accumulation_steps": 2, "num_train_epochs": 3},
            2,
            marks=pytest.mark.slow,
        ),
        ("training_step", 5, INT, STEPS, 5),
        ("training_step", 4, INT, STEPS, 4),  # where a checkpoint is due
        ("evaluate", 1, TERM, {}, 3),
        ("_save_checkpoint", 1, TERM, {}, 3),
        ("_save_checkpoint", 1, TERM, STEPS, 4),
        ("training_step", 6, TERM, {}, 6),  # the last step of all
        ("_load_best_model", 1, TERM, {}, 6),
    ],
)
def test_a_stopped_run_has_saved_its_step_and_ends_as_if_it_had_not_stopped(
    tmp_path, monkeypatch, place, at, number, training, step
):
    with monkeypatch.context() as patch, pytest.raises(stopping.Stopped) as stopped:
        signalled(patch, place, at, number)
        run(recipe(tmp_path, "stopped", **training))
    saved = tmp_path / "stopped" / "checkpoints" / f"checkpoint-{step}"
    assert stopped.value.by == number.name and f"after step {step} of" in str(stopped.value)
    assert str(saved) in str(stopped.value) and checkpoints.damage(saved) is None
    assert checkpoints.newest_whole(saved.parent) == saved
    assert_same(run(recipe(tmp_path, "whole", **training)), run(recipe(tmp_path, "stopped", **training)))


def test_the_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stopped:
        signalled(patch, "training_step", 2, INT, INT)
        run(recipe(tmp_path, "run"))
    assert not isinstance(stopped.value, stopping.Stopped)
    assert checkpoints.newest_step(tmp_path / "run" / "checkpoints") < 0


def test_a_scheduler_that_repeats_itself_changes_nothing(tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch, pytest.raises(stopping.Stopped):
        signalled(patch, "training_step", 2, TERM, TERM, TERM)
        run(recipe(tmp_path, "run"))
    assert checkpoints.newest_step(tmp_path / "run" / "checkpoints") == 2
    assert capfd.readouterr().err.count("stopping when this step is done") == 1


@pytest.mark.parametrize("place", ["load", "predict"])
def test_outside_of_training_there_is_nothing_to_finish(tmp_path, monkeypatch, place):
    """Before it, nothing is left behind; after it, all that was trained is there."""
    made = recipe(tmp_path, "run")
    with monkeypatch.context() as patch, pytest.raises(stopping.Stopped, match=r"^stopped by SIGTERM$"):
        if place == "load":
            patch.setattr("hf_finetune.training.choose_precision", lambda asked: os.kill(os.getpid(), TERM))
        else:
            signalled(patch, "predict", 1, TERM)
        run(made)
    assert (tmp_path / "run").exists() == (place == "predict")
    assert_same(run(recipe(tmp_path, "whole")), run(made))


def test_the_exit_code_and_the_words(call, tmp_path, monkeypatch):
    job = ("recipe=digits", "data.max_train_samples=64", "training.num_train_epochs=1", "output_dir=run")
    with monkeypatch.context() as patch:
        signalled(patch, "training_step", 1, TERM)
        stopped = call("train", *job, "strategy=full")
    assert stopped.returncode == stopping.EXIT_STOPPED == 75
    words = r"stopped by SIGTERM after step 1 of \d+, saved in run/checkpoints/checkpoint-1: the same command goes on"
    assert re.search(words, stopped.stderr)


def test_who_listens_gives_the_handlers_back_and_an_ignored_signal_stays_ignored():
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        with stopping.listening():
            assert signal.getsignal(INT) is signal.SIG_IGN  # as nohup has it, and a job in a script's background
            handler = signal.getsignal(TERM)
            with stopping.listening():
                assert signal.getsignal(TERM) == handler
            assert signal.getsignal(TERM) == handler
    finally:
        signal.signal(INT, before)


def test_another_thread_hears_nothing_and_breaks_nothing():
    heard = []

    def listen():
        with stopping.listening():
            heard.append(stopping.current().by)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [None]


@pytest.mark.parametrize(("between", "launched", "stops"), [(0.0, True, False), (3.0, True, True), (0.0, False, True)])
def test_a_launcher_that_hands_on_the_terminals_ctrl_c_is_not_a_second_one(monkeypatch, between, launched, stops):
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    request = stopping.Request()
    request.finishing = True
    request.heard(INT, None)
    request._at -= between
    if stops:
        with pytest.raises(KeyboardInterrupt):
            request.heard(INT, None)
    else:
        request.heard(INT, None)
    assert request.by == "SIGINT"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_ends_as_if_nobody_listened():
    """Pools of `datasets` end their workers by SIGTERM."""
    with stopping.listening():
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        time.sleep(0.05)
        os.kill(pid, TERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -TERM


class Places(Dataset):
    """Each worker's process number, slowly."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return os.getpid()


@pytest.mark.slow
def test_loader_workers_leave_signals_to_their_process():
    """Ctrl-C and schedulers signal every process of a group: the step must still get its batches."""
    init = []
    loader = DataLoader(Places(), batch_size=1, num_workers=2, worker_init_fn=stopping.deaf_worker(init.append))
    batches = iter(loader)
    workers = {int(next(batches)), int(next(batches))}
    for worker in workers:
        os.kill(worker, INT)
        os.kill(worker, TERM)
    assert len(list(batches)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_while_libraries_are_imported(tmp_path, number):
    """A scheduler's script asks for one exit code, whenever the machine is taken."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_finetune.run", "recipe=digits", f"output_dir={tmp_path / 'run'}"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    time.sleep(1.5)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 75 and f"stopped by {number.name}" in stderr and "Traceback" not in stderr


def test_signals_that_the_run_answers_are_not_the_recipes(tmp_path):
    with pytest.raises(ValueError, match="enable_jit_checkpoint"):
        recipe(tmp_path, "run", enable_jit_checkpoint=True)
