"""`training.auto_find_batch_size`: less at once, the same steps. The memory that does not suffice is made up."""

import json

import pytest
import torch
from run_samples import break_off
from transformers import ViTForImageClassification

from hf_finetune import finetune
from hf_finetune.errors import UserError
from hf_finetune.recipes import load_recipe

SMALL = (
    *("model.checkpoint=package:digits-vit", "data.max_train_samples=100", "data.max_eval_samples=40"),
    *("training.num_train_epochs=1", "evaluation.bootstrap=0", "training.per_device_train_batch_size=24"),
    *("training.optim=sgd", "training.learning_rate=0.01"),  # Adam makes much of gradients that are all rounding
)


def small(folder, *pairs):
    return load_recipe("digits", *SMALL, f"output_dir={folder}", *pairs)


@pytest.fixture
def memory(monkeypatch):
    """memory(n): from now on no more than n images fit while gradients are wanted."""
    forward = ViTForImageClassification.forward

    def set_to(images):
        def limited(self, pixel_values, *args, **kwargs):
            if torch.is_grad_enabled() and len(pixel_values) > images:
                raise torch.OutOfMemoryError("CUDA out of memory. (made up)")
            return forward(self, pixel_values, *args, **kwargs)

        monkeypatch.setattr(ViTForImageClassification, "forward", limited)

    return set_to


def weights(run):
    return {name: tensor for name, tensor in run.model.state_dict().items()}


def step_facts(run):
    return {key: run.metrics["train"][key] for key in ("steps", "epochs")}


def test_the_steps_and_their_rows_stay_when_less_fits(tmp_path, memory, capsys):
    reference = finetune(small(tmp_path / "reference"))
    memory(10)
    run = finetune(small(tmp_path / "run", "training.auto_find_batch_size=true"))
    assert "24 rows a step and process, 8 of them at once" in capsys.readouterr().out
    assert step_facts(run) == step_facts(reference) == {"steps": 3, "epochs": 1.0}  # 90 rows: 72 of them in batches
    for name, tensor in weights(run).items():
        assert torch.allclose(tensor, weights(reference)[name], atol=2e-5), name
    assert json.loads((tmp_path / "run" / "state.json").read_text())["micro_batch"] == 8


@pytest.mark.parametrize(("parts", "at_once", "steps"), [(3, 18, 5), (4, 6, 4)])
def test_more_goes_through_at_once_where_it_comes_out_even(tmp_path, parts, at_once, steps):
    """90 rows are 15 batches of 6: five steps of three, or four steps of which the last is short."""
    accumulated = ("training.per_device_train_batch_size=6", f"training.gradient_accumulation_steps={parts}")
    reference = finetune(small(tmp_path / "reference", *accumulated))
    run = finetune(small(tmp_path / "run", *accumulated, "training.auto_find_batch_size=true"))
    assert json.loads((tmp_path / "run" / "state.json").read_text())["micro_batch"] == at_once
    assert step_facts(run) == step_facts(reference) == {"steps": steps, "epochs": 1.0}
    for name, tensor in weights(run).items():
        assert torch.allclose(tensor, weights(reference)[name], atol=2e-5), name


def test_all_of_the_batch_at_once_is_the_run_without_it(tmp_path):
    reference = finetune(small(tmp_path / "reference"))
    run = finetune(small(tmp_path / "run", "training.auto_find_batch_size=true"))
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(reference)[name]), name


def test_a_resumed_run_keeps_what_was_found(tmp_path, memory, monkeypatch):
    pairs = ("training.auto_find_batch_size=true", "training.num_train_epochs=2")
    memory(10)
    whole = finetune(small(tmp_path / "whole", *pairs))
    break_off(small(tmp_path / "run", *pairs), monkeypatch)
    memory(1000)
    run = finetune(small(tmp_path / "run", *pairs))
    assert json.loads((tmp_path / "run" / "state.json").read_text())["micro_batch"] == 8
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(whole)[name]), name


def test_where_not_one_row_fits_the_error_says_what_to_do(tmp_path, memory):
    memory(0)
    with pytest.raises(UserError, match=r"Not even one row .*gradient_checkpointing"):
        finetune(small(tmp_path / "run", "training.auto_find_batch_size=true"))
    assert not (tmp_path / "run").exists()
