"""A schedule that cannot be built is told in words before the data is read, whatever trains by steps."""

from __future__ import annotations

import pytest

from hf_finetune import finetune, load_recipe
from hf_finetune.errors import UserError
from hf_finetune.training import check_schedules

SWEEP = "strategy.sweep.learning_rate=[1e-3,1e-2]"
TWO = "strategy.stages=[{strategy: head, epochs: 1, learning_rate: 0.1}, {strategy: full, epochs: 2}]"


def scheduled(kind, options, *pairs):
    given = (f"training.lr_scheduler_kwargs={options}",) if options else ()
    return load_recipe("digits", f"training.lr_scheduler_type={kind}", *given, *pairs)


@pytest.mark.parametrize(
    ("kind", "options", "pairs", "words"),
    [
        ("warmup_stable_decay", "", (), r"missing .* 'num_decay_steps'. Its options are num_decay_steps, num_stable"),
        ("warmup_stable_decay", "", ("strategy=head", SWEEP), "missing .* 'num_decay_steps'"),
        ("warmup_stable_decay", "{num_decay_steps: 5, decay_type: x}", (), "Unknown decay type: x"),
        ("cosine", "{nonsense: 1}", (), r"it has no option nonsense. Its options are num_cycles: give"),
        ("cosine", "{nonsense: 1}", ("strategy=gradual",), "it has no option nonsense"),
        (
            "constant",
            "{min_lr: 1e-4}",
            (),
            "it has no option min_lr. Its options are none",
        ),  # transformers takes no note
        ("reduce_lr_on_plateau", "{paitence: 1}", (), "it has no option paitence. Its options are mode, factor,"),
        ("cosine_with_min_lr", "", (), "learning rate of .*: One of min_lr or min_lr_rate should be set"),
        ("cosine_with_min_lr", "", ("strategy=lp_ft",), "One of min_lr or min_lr_rate should be set"),
        (
            "polynomial",
            "{lr_end: 0.5}",
            ("training.learning_rate=0.1",),
            "learning rate of 0.1: lr_end .* smaller than",
        ),
        ("polynomial", "{lr_end: 5e-3}", ("strategy=head", SWEEP), r"of 0.001: lr_end \(0.005\) must be smaller"),
        ("polynomial", "{lr_end: '5e-3'}", ("strategy=head", SWEEP), "'lr_end': '5e-3'.* not supported between"),
        (
            "polynomial",
            "{lr_end: 0.01}",
            ("strategy=stages", TWO, "training.num_train_epochs=null"),
            "of 0.0001: lr_end",
        ),
        ("polynomial", "{power: -1}", (), "negative power"),  # at its last step
        ("cosine", "{num_cycles: two}", (), "could not convert string to float: 'two'"),  # behind the warm-up
    ],
)
def test_a_schedule_that_cannot_be_is_told_before_the_data_is_read(tmp_path, monkeypatch, kind, options, pairs, words):
    monkeypatch.setattr("hf_finetune.data.load_data", None)
    with pytest.raises(UserError, match=words) as told:
        finetune(scheduled(kind, options, *pairs, f"output_dir={tmp_path / 'run'}"))
    assert str(told.value).startswith(f"training.lr_scheduler_type={kind} ")


def test_what_is_chosen_by_measuring_is_not_measured_first(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_finetune.choice.auto._choose", None)
    with pytest.raises(UserError, match="it has no option nonsense"):
        finetune(scheduled("cosine", "{nonsense: 1}", "strategy=auto", f"output_dir={tmp_path / 'run'}"))


@pytest.mark.parametrize(
    ("kind", "options", "pairs"),
    [
        ("linear", "", ()),
        ("cosine_with_restarts", "{num_cycles: 2}", ("training.warmup_steps=500",)),
        ("polynomial", "{lr_end: 9e-4, power: 0.5}", ("strategy=head", SWEEP)),
        ("cosine_with_min_lr", "{min_lr: 1e-6}", ("strategy=lp_ft",)),
        ("cosine_warmup_with_min_lr", "{min_lr_rate: 0.1, warmup_lr_rate: 0.1}", ()),
        ("warmup_stable_decay", "{num_decay_steps: 1000, num_stable_steps: 7}", ()),
        ("inverse_sqrt", "{timescale: 50}", ()),
        ("constant_with_warmup", "", ()),
        ("reduce_lr_on_plateau", "{patience: 2, min_lr: [1e-6, 1e-7]}", ()),
        ("greedy", "{factor: 0.9}", ()),
        ("cosine", "{nonsense: 1}", ("strategy=features",)),
        ("cosine_with_min_lr", "", ("strategy=head", "strategy.solver=lbfgs", "training.num_train_epochs=null")),
    ],
)
@pytest.mark.filterwarnings("ignore:Both num_training_steps")
def test_one_that_can_be_is_not_refused(kind, options, pairs):
    check_schedules(scheduled(kind, options, *pairs), 1e-3)
