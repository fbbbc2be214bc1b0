"""Parameter groups and the table that is printed before training."""

from __future__ import annotations

import re

import pytest
import torch
from model_samples import batch, sweep, tiny
from strategy_samples import loaded_from, recipe_for, train_steps
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.recipes.rates import default_learning_rate
from hf_finetune.strategy import apply_strategy
from hf_finetune.strategy.rates_by_part import zone_of


def applied_to(family, strategy="full"):
    return apply_strategy(loaded_from(tiny(family)), recipe_for(family, "tiny", strategy))


@pytest.mark.parametrize("strategy", ["full", "head", "freeze", "lora", "scratch"])
@pytest.mark.parametrize("family", sweep())
def test_every_parameter_that_learns_is_in_one_group(family, strategy):
    applied = applied_to(family, strategy)
    grouped = [id(parameter) for group in applied.parameter_groups(1e-3, 0.1) for parameter in group["params"]]
    learning = [id(parameter) for parameter in applied.model.parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(learning)


@pytest.mark.parametrize("family", sweep())
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
    expected = {"body 0.001": 1e-3, "body 0.001, no decay": 1e-3, "head 0.007": 7e-3, "head 0.007, no decay": 7e-3}
    assert rates == pytest.approx(expected)


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


@pytest.mark.parametrize("family", sweep())
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


# Of each family: pattern of a parameter's name -> the number of its block; what no pattern names belongs to the stem
# (0), the last block (-1) or the head (None).
BLOCKS = {
    "vit": ([rf"vit\.layers\.{n}\." for n in range(3)], r"vit\.layernorm", r"classifier"),
    "bert": ([rf"bert\.encoder\.layer\.{n}\." for n in range(3)], r"bert\.pooler", r"classifier"),
    "resnet": (
        [rf"resnet\.encoder\.stages\.{s}\.layers\.{n}\." for s, n in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))],
        r"never",
        r"classifier",
    ),
    "timm_efficientnet": (
        [
            rf"timm_model\.blocks\.{stage}\.{n}\."
            for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1))
            for n in range(depth)
        ],
        r"timm_model\.(conv_head|bn2)",
        r"timm_model\.classifier",
    ),
}


def depth_of(family, name):
    """0 for the stem, 1 to N for the blocks, None for the head; found without the anatomy."""
    blocks, after, head = BLOCKS[family]
    if re.match(head, name):
        return None
    found = [number for number, pattern in enumerate(blocks, start=1) if re.match(pattern, name)]
    return len(blocks) if re.match(after, name) else found[0] if found else 0


def rates_of(applied, lr):
    names = {id(parameter): name for name, parameter in applied.model.named_parameters()}
    groups = applied.parameter_groups(lr, 0.1)
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("family", BLOCKS)
def test_layer_decay_gives_every_parameter_exactly_its_rate(family):
    applied = applied_to(family, {"kind": "full", "layer_decay": 0.75, "head_lr_multiplier": 4})
    rates, count = rates_of(applied, 1e-3), len(BLOCKS[family][0])
    assert rates.keys() == dict(applied.model.named_parameters()).keys()
    assert {depth_of(family, name) for name in rates} == {None, *range(count + 1)}
    for name, rate in rates.items():
        depth = depth_of(family, name)
        assert rate == pytest.approx(1e-3 * (4 if depth is None else 0.75 ** (count - depth))), name


@pytest.mark.parametrize("zones", [(0.1, 0.5, 1.0), (0.0, 0.3, 2.0), (1.0, 0.0, 1.0)])
@pytest.mark.parametrize("family", BLOCKS)
def test_zones_give_every_parameter_exactly_its_rate(family, zones):
    applied = applied_to(family, {"kind": "full", "zones": zones})
    rates, count = rates_of(applied, 1e-3), len(BLOCKS[family][0])
    thirds = {3: [1, 1, 1], 5: [2, 1, 2], 16: [5, 6, 5]}[count]
    of_block = [zones[0], *(zones[zone] for zone, size in enumerate(thirds) for _ in range(size))]
    for name, parameter in applied.model.named_parameters():
        depth = depth_of(family, name)
        expected = 10.0 if depth is None else of_block[depth]
        assert parameter.requires_grad is (expected > 0), name
        assert rates.get(name, 0.0) == pytest.approx(1e-3 * expected), name
    applied.model.train()
    frozen = {name for name, parameter in applied.model.named_parameters() if not parameter.requires_grad}
    asleep = {name for name, module in applied.model.named_modules() if not module.training}
    assert frozen <= {f"{module}.{end}" for module in asleep for end in parameter_ends(applied.model, module)}


def parameter_ends(model, module):
    return [name for name, _ in model.get_submodule(module).named_parameters()]


def test_zones_of_few_and_of_many_blocks():
    sizes = {count: [[zone_of(i, count) for i in range(count)].count(z) for z in range(3)] for count in (3, 4, 8, 12)}
    assert sizes == {3: [1, 1, 1], 4: [1, 2, 1], 8: [3, 2, 3], 12: [4, 4, 4]}
    with pytest.raises(UserError, match="this model has 1 block, too few for three zones"):
        applied_to("albert", {"kind": "full", "zones": [1, 1, 1]})


def test_zones_and_decay_multiply():
    applied = applied_to("vit", {"kind": "full", "layer_decay": 0.5, "zones": [0.1, 1, 2]})
    rates = rates_of(applied, 1.0)
    assert rates["vit.layers.0.mlp.fc1.weight"] == pytest.approx(0.025)
    assert rates["vit.layers.2.mlp.fc1.weight"] == pytest.approx(2.0)
    assert rates["vit.embeddings.cls_token"] == pytest.approx(0.0125)


@pytest.mark.parametrize("settings", [{"zones": (1, 1, 1)}, {"layer_decay": 1}])
@pytest.mark.parametrize("family", BLOCKS)
def test_zones_of_one_and_a_decay_of_one_are_plain_full(family, settings):
    plain, other = applied_to(family), applied_to(family, {"kind": "full", **settings})
    train_steps(plain, batch(family))
    train_steps(other, batch(family))
    expected = plain.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.model.state_dict().items())


def test_the_table_shows_the_rate_of_every_block():
    lines = applied_to("vit", {"kind": "full", "layer_decay": 0.5}).table(1e-4).splitlines()
    assert [line.split()[-1] for line in lines[2:-1]] == ["1.25e-05", "2.5e-05", "5e-05", "0.0001", "0.001"]
    folded = applied_to("resnet", {"kind": "full", "zones": [0, 0.1, 1]}).table(1e-4).splitlines()
    assert [re.split(r"  +", line)[0] for line in folded[2:-1]] == [
        "stem",
        "blocks 1-2",
        "block 3",
        "blocks 4-5",
        "head",
    ]
    assert [line.split()[-1] for line in folded[2:-1]] == ["-", "-", "1e-05", "0.0001", "0.001"]


def test_the_rate_from_scratch_is_about_ten_times_that_of_full_tuning():
    for family in ("vit", "bert"):
        full, scratch = (default_learning_rate(recipe_for(family, "tiny", kind)) for kind in ("full", "scratch"))
        assert 5 * full <= scratch <= 20 * full
