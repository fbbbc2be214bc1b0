"""Where the time of training went: the phases add up to the whole, and go on after an interruption."""

import re

import pytest
from trainer_samples import trainer

from hf_finetune import finetune
from hf_finetune.recipes import load_recipe
from hf_finetune.training import pace
from hf_finetune.training.account import Account
from hf_finetune.training.arguments import build_arguments
from hf_finetune.training.pace import PHASES, Pace

SMALL = ("data.max_train_samples=100", "data.max_eval_samples=40", "evaluation.bootstrap=0")


def test_the_phases_add_up_to_the_time_of_training(tmp_path, capsys):
    ours = trainer(tmp_path, "vit", gradient_accumulation_steps=2)
    ours.train()
    account = next(entry for entry in ours.callback_handler.callbacks if isinstance(entry, Account))
    assert sum(ours.pace.seconds.values()) == pytest.approx(account.seconds, abs=0.02)
    assert all(ours.pace.seconds[phase] > 0 for phase in PHASES)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("time of training: "))
    assert line.count("%") >= 4
    assert "Bottleneck: " in line


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def takes_a_second(self, call):
        def waiting(*args, **kwargs):
            self.now += 1.0
            return call(*args, **kwargs)

        return waiting


@pytest.mark.parametrize(
    ("method", "phase", "calls"),
    [
        ("data_collator", "data", 8),
        ("mixing", "data", 8),
        ("compute_loss", "forward", 8),
        ("_clip_grad_norm", "optimizer", 4),
        ("evaluation_loop", "evaluation", 1),
        ("_save", "checkpoints", 1),
        ("_point_to_best", "checkpoints", 2),
    ],
)
def test_each_phase_bears_its_own_time(tmp_path, monkeypatch, method, phase, calls):
    ours = trainer(tmp_path, "vit", num_train_epochs=1, gradient_accumulation_steps=2, logging_steps=4)
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    call = (lambda inputs, _: inputs) if method == "mixing" else getattr(ours, method)
    monkeypatch.setattr(ours, method, clock.takes_a_second(call))
    ours.train()
    found = {name: seconds for name, seconds in ours.pace.seconds.items() if seconds}
    assert found.pop(phase) == calls
    assert set(found) <= {"evaluation"}, found  # which collates and computes losses too


def test_the_time_before_an_interruption_counts(tmp_path):
    first = trainer(tmp_path, "vit", num_train_epochs=1)
    first.train()
    assert Pace(**first.pace.state()["args"]).seconds == first.pace.seconds
    second = trainer(tmp_path, "vit", num_train_epochs=2)
    before = dict(first.pace.seconds)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / f"checkpoint-{first.state.global_step}"))
    # The checkpoint was written before its own time was known.
    assert all(second.pace.seconds[phase] > before[phase] for phase in PHASES if phase not in ("checkpoints", "other"))


def test_outside_of_training_nothing_is_counted(tmp_path):
    ours = trainer(tmp_path, "vit")
    ours.evaluate()
    assert sum(ours.pace.seconds.values()) == 0
    assert ours.pace.in_words() is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ({"data": 5, "forward": 2, "backward": 3}, "Bottleneck: data; the model waits"),
        ({"evaluation": 9, "forward": 2, "backward": 3}, "Bottleneck: evaluation; validate fewer rows"),
        ({"checkpoints": 3, "forward": 2, "backward": 3}, "Bottleneck: checkpoints; save less often"),
        ({"optimizer": 9, "forward": 2, "backward": 3}, "Bottleneck: optimizer; the optimizer's step: a larger batch"),
        ({"data": 1, "forward": 30, "backward": 69}, "backward 69%, forward 30%, data 1%. Bottleneck: the model's own"),
        ({"data": 31, "evaluation": 60, "forward": 9}, "Bottleneck: evaluation; validate"),
        ({"evaluation": 55, "checkpoints": 21, "forward": 24}, "Bottleneck: evaluation; validate"),
        ({"other": 80, "forward": 10, "backward": 10}, "Bottleneck: other; what comes between the steps"),
        (
            {"other": 28, "optimizer": 23, "checkpoints": 17, "data": 15, "forward": 9, "backward": 8},
            "Bottleneck: other",
        ),
    ],
)
def test_the_bottleneck_is_named_with_what_helps(seconds, words):
    assert words in str(Pace(seconds).in_words())


@pytest.mark.parametrize("phase", ["evaluation", "checkpoints"])
def test_what_helps_is_accepted(tmp_path, phase):
    """Steps to save at, as they were named, are refused where validation follows the epochs, as it does by default."""
    words = str(Pace({phase: 1.0}).in_words())
    pairs = [
        re.sub("[NM]$", "4", pair.strip("(),.")) for pair in words.split() if pair.strip("(").startswith("training.")
    ]
    for more in ((), ("training.eval_strategy=epoch", "training.save_strategy=epoch")):  # as the recipe may have them
        build_arguments(load_recipe("digits", *more, *pairs), 1e-3, tmp_path, "no")


def test_metrics_hold_the_seconds_of_each_phase(tmp_path, monkeypatch, capsys):
    """And no worker is named where rows are kept, which none loads."""
    monkeypatch.setattr(pace, "_REMEDIES", {"data": (0.0, "see training.dataloader_num_workers")})
    job = (*SMALL, "training.num_train_epochs=2", "strategy=head", f"output_dir={tmp_path / 'run'}")
    run = finetune(load_recipe("digits", *job))
    assert "Bottleneck: data; the head waits for its kept rows" in capsys.readouterr().out
    train = run.metrics["train"]
    assert set(train["time"]) == set(PHASES)
    assert sum(train["time"].values()) == pytest.approx(train["seconds"], abs=0.05)
