"""A loss or gradient that is no number never reaches the weights: the run stops, or leaves the step out."""

from __future__ import annotations

import json
import math

import pytest
import torch
from cache_samples import data_for, recipe_of
from safetensors.torch import load_file, save_file
from trainer_samples import Fixed, trainer, weights

from hf_finetune import finetune
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.training import prefix_fill
from hf_finetune.training.batch_rows import rows_of_step

BAD = 7  # the row that is no number


class Poisoned(Fixed):
    """A row is no number from an epoch on."""

    def __init__(self, family, size, since=0, bad=BAD):
        super().__init__(family, size)
        self.since, self.bad, self.epoch = since, bad, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if index == self.bad and self.epoch >= self.since:
            sample["pixel_values"] = sample["pixel_values"] * math.nan
        return sample


def poisoned(folder, family="vit", since=0, skip=0, size=32, bad=BAD, **options):
    made = trainer(folder, family, size=size, **options)
    made.train_dataset = Poisoned(family, size, since, bad)
    made.may_skip = skip
    return made


def stopped(made, **options):
    with pytest.raises(UserError) as found:
        made.train(**options)
    return str(found.value)


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("since", [0, 1])
def test_a_row_that_is_no_number_is_named_with_step_rates_and_checkpoint(tmp_path, accumulated, since):
    made = poisoned(tmp_path, since=since, gradient_accumulation_steps=accumulated)
    told = stopped(made)
    step = made.state.global_step
    assert f"The training loss is nan at step {step + 1} (epoch" in told
    assert f"one by one: {BAD} (not finite: pixel_values); the other {4 * accumulated - 1} are fine" in told
    line = next(line for line in told.splitlines() if line.startswith("  its rows: "))
    named = [int(row) for row in line.removeprefix("  its rows: ").removesuffix(" of train").split(", ")]
    assert BAD in named and len(named) == 4 * accumulated
    assert "rates: body" in told and "head" in told
    assert (step >= 8 // accumulated) is bool(since)
    assert ("The last good checkpoint is" if since else "There is no checkpoint yet") in told
    for name, tensor in made.model.state_dict().items():
        assert torch.isfinite(tensor).all(), name


def test_nothing_of_the_step_has_reached_the_weights(tmp_path):
    made = poisoned(tmp_path)
    stopped(made)
    other = trainer(tmp_path, "vit", max_steps=made.state.global_step, lr_scheduler_type="constant", warmup_steps=0)
    again = poisoned(tmp_path, lr_scheduler_type="constant", warmup_steps=0)
    stopped(again)
    other.args.load_best_model_at_end = False
    other.train()
    assert again.state.global_step == other.state.global_step > 0
    for name, tensor in weights(other.model).items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_rows_are_those_of_the_step_also_after_a_resume_in_mid_epoch(tmp_path):
    steps = {"save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 3}
    begun = trainer(tmp_path, "vit", max_steps=3, **steps)
    begun.train()
    bad = rows_of_step(begun, 6, 1)[0]  # in the seventh of eight batches
    told = stopped(poisoned(tmp_path / "whole", bad=bad, **steps))
    assert "nan at step 7 (epoch" in told and f"one by one: {bad} (not finite" in told
    resumed = poisoned(tmp_path, bad=bad, **steps)
    again = stopped(resumed, resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-3"))
    assert again.splitlines()[:3] == told.splitlines()[:3]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_step_of_two_epochs_is_found_again(tmp_path, workers):
    """What was really loaded, against what is drawn again."""
    found = []
    made = trainer(tmp_path, "vit", dataloader_num_workers=workers, per_device_train_batch_size=5)
    step = made.training_step

    def noted(model, inputs, *args, **kwargs):
        rows = rows_of_step(made, made.state.global_step, 1)
        found.append((inputs["pixel_values"], rows))
        return step(model, inputs, *args, **kwargs)

    made.training_step = noted
    made.train()
    assert len(found) == 12
    for pixels, rows in found:
        assert torch.equal(pixels, made.train_dataset.columns["pixel_values"][rows])


def test_weights_that_explode_are_not_blamed_on_rows(tmp_path):
    made = trainer(tmp_path, "vit", learning_rate=1e30, max_grad_norm=0)
    told = stopped(made)
    assert "the weights are the reason, not these rows" in told or "one by one" not in told
    assert "Lower training.learning_rate (1e+30)" in told


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_steps_are_left_out_by_setting_and_the_run_is_a_run_without_them(tmp_path, family, capsys):
    made = poisoned(tmp_path, family, skip=2, logging_steps=1)
    made.train()
    said = capsys.readouterr().err
    assert said.count("is left out, the") == 2 and "the 2. of at most 2 (training.skip_nonfinite_steps)" in said
    assert made.skipped.count == 2 and made.state.global_step == 16
    for name, tensor in made.model.state_dict().items():  # BatchNorm has seen the row, and forgotten it
        assert torch.isfinite(tensor.float()).all(), name
    logged = [entry for entry in made.state.log_history if "learning_rate" in entry]
    assert len(logged) == 16 and sum("loss" not in entry for entry in logged) == 2
    updates = {int(state["step"]) for state in made.optimizer.state.values()}
    assert updates == {14}  # of the optimizer's own count
    state = json.loads((tmp_path / "checkpoints" / "checkpoint-16" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["SkippedSteps"]["args"] == {"count": 2}


def test_one_more_than_may_be_left_out_stops_the_run(tmp_path):
    made = poisoned(tmp_path, skip=1)
    told = stopped(made)
    assert 8 <= made.state.global_step < 16 and f"one by one: {BAD}" in told


def test_the_count_goes_on_after_a_resume(tmp_path):
    poisoned(tmp_path, skip=1, num_train_epochs=1).train()
    made = poisoned(tmp_path, skip=1, num_train_epochs=2)
    stopped(made, resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-8"))
    assert made.skipped.count == 1


def test_where_all_is_finite_the_setting_changes_nothing(tmp_path):
    one, other = (trainer(tmp_path / str(number), "resnet", logging_steps=3) for number in range(2))
    other.may_skip = 5
    one.train()
    other.train()
    for name, tensor in weights(one.model).items():
        assert torch.equal(other.model.state_dict()[name], tensor), name
    losses = [[entry.get("loss") for entry in made.state.log_history] for made in (one, other)]
    assert losses[0] == losses[1]


def test_validation_rows_whose_outputs_are_no_numbers_are_named(tmp_path):
    validation = Fixed("vit", 10, seed=5)
    validation.columns["pixel_values"][3] *= math.nan
    told = stopped(trainer(tmp_path, "vit", eval_dataset=validation))
    assert "The validation loss is nan at step 8" in told and "for 3 of validation" in told


def test_a_run_names_rows_by_their_ids_and_finishes_nothing(tmp_path):
    recipe = recipe_of(
        tmp_path, "vit", "full", "run", training={"learning_rate": 1e30, "max_grad_norm": 0, "num_train_epochs": 5}
    )
    with pytest.raises(UserError, match="loss is") as found:
        finetune(recipe, data=data_for("vit"), precision="no")
    assert "of train" in str(found.value) or "validation" in str(found.value)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_the_setting_is_a_number_of_steps():
    assert load_recipe("digits", "training.skip_nonfinite_steps=3").training.skip_nonfinite_steps == 3
    with pytest.raises(RecipeError, match="skip_nonfinite_steps"):
        load_recipe("digits", "training.skip_nonfinite_steps=-1")


@pytest.mark.slow
def test_an_interrupted_run_may_go_on_with_another_number_of_steps_left_out(tmp_path, monkeypatch):
    from run_samples import break_off

    made = recipe_of(tmp_path, "vit", "full", "run")
    break_off(made, monkeypatch, data=data_for("vit"), precision="no")
    other = recipe_of(tmp_path, "vit", "full", "run", training={"skip_nonfinite_steps": 3})
    run = finetune(other, data=data_for("vit"), precision="no")
    assert "skipped_steps" not in run.metrics["train"]


def test_a_fit_on_features_that_are_no_numbers_names_their_rows(tmp_path):
    recipe = recipe_of(tmp_path, "vit", "features", "run")
    file = tmp_path / "vit" / "model.safetensors"
    tensors = load_file(file)
    next(tensor for name, tensor in tensors.items() if "projection" in name and tensor.ndim > 1).view(-1)[0] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"The features of 0, 1, 2, .* of train are no numbers"):
        finetune(recipe, data=data_for("vit"), precision="no")


def test_lbfgs_on_kept_features_of_which_a_row_is_no_number_names_it(tmp_path, monkeypatch):
    put = prefix_fill._put

    def broken(out, *args):
        put(out, *args)
        out[3] = math.nan

    monkeypatch.setattr(prefix_fill, "_put", broken)
    own = {"learning_rate": None, "num_train_epochs": None}
    recipe = recipe_of(tmp_path, "vit", {"kind": "head", "solver": "lbfgs"}, "run", training=own)
    with pytest.raises(UserError, match="The features of 3 of train are no numbers"):
        finetune(recipe, data=data_for("vit"), precision="no")
