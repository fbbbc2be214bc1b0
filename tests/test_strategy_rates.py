"""Parameter groups and the table that is printed before training."""

from __future__ import annotations

import pytest
from model_samples import FAMILIES, tiny
from strategy_samples import loaded_from, recipe_for
from torch import nn

from hf_finetune.strategy import apply_strategy


def applied_to(family, strategy="full"):
    return apply_strategy(loaded_from(tiny(family)), recipe_for(family, "tiny", strategy))


@pytest.mark.parametrize("strategy", ["full", "head", "freeze", "lora", "scratch"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_that_learns_is_in_one_group(family, strategy):
    applied = applied_to(family, strategy)
    grouped = [id(parameter) for group in applied.parameter_groups(1e-3, 0.1) for parameter in group["params"]]
    learning = [id(parameter) for parameter in applied.model.parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(learning)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_biases_and_vectors_are_not_decayed_and_matrices_are(family):
    applied = applied_to(family)
    groups = applied.parameter_groups(1e-3, 0.1)
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    for module in applied.model.modules():
        if isinstance(module, nn.LayerNorm | nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
            assert not {id(parameter) for parameter in module.parameters()} & decayed
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert id(module.weight) in decayed
            assert id(module.bias) not in decayed
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


def test_batchnorm_named_normalization_is_not_decayed_though_transformers_would():
    from transformers.trainer_pt_utils import get_parameter_names

    model = tiny("resnet")
    by_name = [
        name
        for name in get_parameter_names(model, [nn.LayerNorm], ["bias", "layernorm", "rmsnorm"])
        if "normalization" in name
    ]
    assert by_name  # transformers' rule decays these
    applied = applied_to("resnet")
    decayed = {id(p) for group in applied.parameter_groups(1e-3, 0.1) if group["weight_decay"] for p in group["params"]}
    assert not [n for n, p in applied.model.named_parameters() if "normalization" in n and id(p) in decayed]


@pytest.mark.parametrize("strategy", ["full", "freeze"])
def test_the_head_learns_faster_by_its_multiplier(strategy):
    applied = applied_to("vit", {"kind": strategy, "head_lr_multiplier": 7})
    rates = {group["name"]: group["lr"] for group in applied.parameter_groups(1e-3, 0.1)}
    assert rates == pytest.approx({"body": 1e-3, "body, no decay": 1e-3, "head": 7e-3, "head, no decay": 7e-3})


def test_a_head_that_the_checkpoint_brought_learns_as_the_rest():
    loaded = loaded_from(tiny("vit"))
    loaded.fresh = ()
    applied = apply_strategy(loaded, recipe_for("vit", "somewhere", "full"))
    assert {group["lr"] for group in applied.parameter_groups(1e-3, 0.1)} == {1e-3}


def test_where_only_the_head_or_adapters_learn_there_is_one_rate():
    for strategy in ("head", "lora", "scratch"):
        assert {group["lr"] for group in applied_to("vit", strategy).parameter_groups(1e-3, 0.1)} == {1e-3}


def test_the_table_says_who_learns_and_at_what_rate():
    table = applied_to("vit", {"kind": "freeze", "train_blocks": 1}).table(1e-4)
    assert table.splitlines() == [
        "part        parameters  learns    rate",
        "--------------------------------------",
        "stem             3,376      no       -",
        "blocks 1-2       4,448      no       -",
        "block 3          2,256     yes  0.0001",
        "head                51     yes   0.001",
        "learns 2,307 of 10,131 (22.8%)",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_counts_every_parameter_and_fits_the_screen(family):
    for strategy in ("full", "lora"):
        applied = applied_to(family, strategy)
        lines = applied.table(1e-4).splitlines()
        model = tiny(family)
        learning = sum(parameter.numel() for parameter in applied.model.parameters() if parameter.requires_grad)
        assert lines[-1].startswith(f"learns {learning:,} of ")
        if strategy == "full":
            assert f" of {sum(parameter.numel() for parameter in model.parameters()):,} (100%)" in lines[-1]
        assert max(map(len, lines)) <= 100
        assert len(lines) <= 8
