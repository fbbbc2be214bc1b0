"""Losses, regression targets, precision: the parts a step is made of."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hf_finetune.data import LabelSpace
from hf_finetune.errors import UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.training.arguments import build_arguments, fit_to_data
from hf_finetune.training.losses import loss_function
from hf_finetune.training.precision import choose_precision
from hf_finetune.training.targets import TargetScale


def test_regression_loss_does_not_broadcast():
    logits, labels = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 2.0, 3.0])
    assert loss_function("regression")(logits, labels).item() == 0.0


def test_losses_are_the_fields_own():
    logits = torch.randn(5, 4)
    classes, several = torch.tensor([0, 1, 2, 3, 0]), torch.randint(0, 2, (5, 4))
    assert torch.equal(
        loss_function("single_label_classification", 0.1)(logits, classes),
        functional.cross_entropy(logits, classes, label_smoothing=0.1),
    )
    assert torch.equal(
        loss_function("multi_label_classification")(logits, several),
        functional.binary_cross_entropy_with_logits(logits, several.float()),
    )


@pytest.mark.parametrize("bias", [True, False])
def test_folding_the_scale_gives_the_same_numbers_and_taking_it_out_again_the_same_layer(bias):
    targets = np.random.default_rng(0).normal(200.0, 60.0, size=(50, 2))
    scale = TargetScale.of(targets, centred=bias)
    layer, features = nn.Linear(4, 2, bias=bias), torch.randn(7, 4)
    shapes = {name: tensor.shape for name, tensor in layer.state_dict().items()}
    scores = layer(features)
    scale.fold_into(layer)
    torch.testing.assert_close(layer(features), scale.natural(scores), rtol=1e-5, atol=1e-3)
    assert {name: tensor.shape for name, tensor in layer.state_dict().items()} == shapes  # what a reload expects
    scale.take_out_of(layer)
    torch.testing.assert_close(layer(features), scores, rtol=1e-4, atol=1e-4)


def test_without_a_bias_targets_are_scaled_to_a_mean_square_of_one():
    targets = torch.tensor([[3.0, 0.0], [5.0, 0.0]])
    scale = TargetScale.of(targets.numpy(), centred=False)
    assert scale.mean.tolist() == [0.0, 0.0] and scale.std[1] == 1.0
    torch.testing.assert_close(scale.standard(targets).square().mean(0), torch.tensor([1.0, 0.0]))


def test_scale_of_one_target_and_of_a_constant_one():
    scale = TargetScale.of(np.array([3.0, 3.0, 3.0]))
    assert scale.standard(torch.tensor([3.0, 4.0])).tolist() == [[0.0], [1.0]]


def test_standard_and_natural_are_inverse():
    targets = torch.randn(20) * 9 + 4
    scale = TargetScale.of(targets.numpy())
    torch.testing.assert_close(scale.natural(scale.standard(targets)).squeeze(1), targets)


def test_precision_obeys_the_launcher_and_refuses_a_contradiction(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert choose_precision("auto") == ("bf16", "accelerate config")
    with pytest.raises(UserError, match="leave one of them out"):
        choose_precision("no")


def test_no_of_the_launcher_is_not_an_order(monkeypatch):
    """`accelerate launch` says `no` also when nobody asked."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert choose_precision("bf16").name == "bf16"
    assert choose_precision("no").name == "no"


def test_unknown_precision_names_what_is_allowed():
    with pytest.raises(UserError, match="auto, no, bf16, fp16"):
        choose_precision("half")


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_label_smoothing_is_refused_where_the_data_has_no_single_labels(problem_type, tmp_path):
    recipe = load_recipe("digits", "training.label_smoothing_factor=0.1", "evaluation.metrics=null")
    arguments = build_arguments(recipe, 1e-3, tmp_path, "no")
    task = SimpleNamespace(labels=LabelSpace(problem_type, ("a", "b")), train=range(40))
    with pytest.raises(UserError, match=r"label_smoothing_factor=0\.1 is for single-label classes"):
        fit_to_data(arguments, recipe, task, False)
