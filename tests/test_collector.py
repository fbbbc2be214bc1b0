"""The garbage collector around a command's imports."""

import gc

from hf_finetune import collector


def test_it_looks_seldom_until_a_model_is_loaded_and_not_again_at_what_was_there_then():
    before = gc.get_threshold()
    collector.look_seldom()
    try:
        assert gc.get_threshold()[0] > 10 * before[0]
        collector.look_as_usual()
        assert gc.get_threshold() == before
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_the_command_has_the_usual_collector_while_it_trains(run_in):
    watched = """
import gc, sys
from hf_finetune.training import learning
from hf_finetune import training
learn, usual = training.learn, gc.get_threshold()
def told(*given, **more):
    print("thresholds", gc.get_threshold() == usual, gc.get_freeze_count() > 100_000)
    return learn(*given, **more)
training.learn = told
from hf_finetune.cli import start
start(["train", "recipe=digits", "data.max_train_samples=64", "training.max_steps=1", "output_dir=out"])
"""
    ended = run_in("python", "-c", watched)
    assert "thresholds True True" in ended.stdout, ended.stderr


def test_a_program_that_only_calls_finetune_keeps_its_collector():
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    collector.look_as_usual()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)
