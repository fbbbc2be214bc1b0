"""Who learns in each stage: what is still does not change by a bit, and the parts are those that the strategy says."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from model_samples import batch, tiny
from strategy_samples import loaded_from, recipe_for, train_steps

from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import is_norm
from hf_finetune.strategy import apply_strategy
from hf_finetune.strategy.frozen import ever_learning, hold_still

FAMILIES = ["vit", "resnet", "timm_efficientnet", "bert"]
LISTED = {
    "kind": "stages",
    "stages": [
        {"strategy": "head", "epochs": 1},
        {"strategy": {"kind": "full", "zones": [0, 0.5, 1]}, "epochs": 1},
        {"strategy": "norms", "epochs": 1},
        {"strategy": {"kind": "freeze", "train_blocks": 1}, "epochs": 2, "learning_rate": 0.5},
    ],
}
STAGED = {"lp_ft": "lp_ft", "gradual": {"kind": "gradual", "blocks_per_stage": 2}, "stages": LISTED}


def applied_to(family, strategy, epochs=4, **model):
    recipe = recipe_for(family, "tiny", strategy)
    recipe = recipe.model_copy(
        update={
            "training": type(recipe.training)(num_train_epochs=epochs),
            "model": recipe.model.model_copy(update=model),
        }
    )
    return apply_strategy(loaded_from(tiny(family)), recipe)


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, model):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}


OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "fused": partial(torch.optim.AdamW, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.9),
    "adafactor": torch.optim.Adafactor,
}
CASES = [(family, strategy, "adamw") for family in FAMILIES for strategy in STAGED]
CASES += [("vit", "stages", optimizer) for optimizer in OPTIMIZERS if optimizer != "adamw"]


@pytest.mark.parametrize(("family", "strategy", "optimizer"), CASES)
def test_in_every_stage_what_is_still_keeps_every_bit(family, strategy, optimizer):
    """One optimizer over all stages, with weight decay and momentum from the stages before."""
    applied = applied_to(family, STAGED[strategy])
    one = OPTIMIZERS[optimizer](applied.parameter_groups(1e-2, weight_decay=0.1))
    inputs = batch(family)
    for index, stage in enumerate(applied.stages):
        applied.enter(index)
        before = state_of(applied.model)
        for _ in range(2):
            applied.model.train()
            one.zero_grad()
            applied.model(**inputs).loss.backward()
            one.step()
        moved, statistics = changed(before, applied.model), set(dict(applied.model.named_buffers()))
        assert moved - statistics <= set(stage.multipliers)
        assert moved & set(applied.anatomy.head.parameters)
        for name in moved & statistics:  # only BatchNorm of parts that learn
            module = name.rpartition(".")[0]
            assert applied.model.get_submodule(module).training
            assert any(parameter.startswith(f"{module}.") for parameter in stage.multipliers)
        last = set(applied.anatomy.blocks[-1].parameters)
        if last <= stage.multipliers.keys():
            assert moved & last


@pytest.mark.parametrize("family", FAMILIES)
def test_lp_ft_is_the_head_then_everything(family):
    applied = applied_to(family, {"kind": "lp_ft", "head_epochs": 1.5, "head_learning_rate": 0.3})
    head, everything = applied.stages
    assert head.multipliers == dict.fromkeys(applied.anatomy.head.parameters, 1.0)
    assert everything.multipliers == {name: 1.0 for name, _ in applied.model.named_parameters()}
    assert (head.epochs, everything.epochs) == (1.5, 2.5)
    assert (head.learning_rate, everything.learning_rate) == (0.3, None)
    assert applied_to(family, "lp_ft").stages[0].learning_rate == 1e-3  # that of strategy=head


@pytest.mark.parametrize("step", [1, 2, 3, 99])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradual_adds_blocks_from_the_top_and_ends_with_everything(family, step):
    applied = applied_to(family, {"kind": "gradual", "blocks_per_stage": step})
    names = [part.name for part in applied.anatomy.blocks]
    expected = [{"head", *names[max(0, len(names) - n) :]} for n in range(0, len(names), step)]
    expected.append({"stem", *names, "head"})
    awake = [{applied.part_name(name) for name in stage.multipliers} for stage in applied.stages]
    assert awake == expected
    assert sum(stage.epochs for stage in applied.stages) == pytest.approx(4)
    assert [stage.epochs for stage in applied.stages] == pytest.approx([4 / len(expected)] * len(expected))


def test_gradual_with_stage_epochs_gives_the_last_stage_the_rest():
    applied = applied_to("vit", {"kind": "gradual", "stage_epochs": 0.5, "layer_decay": 0.5, "head_lr_multiplier": 3})
    assert [stage.epochs for stage in applied.stages] == [0.5, 0.5, 0.5, 2.5]
    last = applied.stages[-1].multipliers
    assert last["vit.layers.2.mlp.fc1.weight"] == 1 and last["vit.layers.0.mlp.fc1.weight"] == 0.25
    assert {stage.multipliers["classifier.weight"] for stage in applied.stages} == {3.0}
    with pytest.raises(UserError, match=r"tiny has 3 blocks, so there are 4 stages, and training\.num_train_epochs=3 "):
        applied_to("vit", {"kind": "gradual", "stage_epochs": 1}, epochs=3)


@pytest.mark.parametrize("family", [*FAMILIES, "timm_resnet", "xlnet"])
def test_bitfit_and_norms_train_exactly_those_and_the_head(family):
    model = tiny(family)
    of_norms = {
        f"{name}.{inner}"
        for name, module in model.named_modules()
        if is_norm(module)
        for inner, _ in module.named_parameters(recurse=False)
    }
    biases = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    for strategy, body in (
        ({"kind": "bitfit", "norms": False}, biases),
        ("bitfit", biases | of_norms),
        ("norms", of_norms),
    ):
        applied = applied_to(family, strategy)
        assert applied.stages[0].multipliers.keys() == body | set(applied.anatomy.head.parameters)
        before = state_of(applied.model)
        train_steps(applied, batch(family))
        moved = changed(before, applied.model)
        # BatchNorm statistics stay, also where scale and bias learn.
        assert moved <= set(applied.stages[0].multipliers), moved
        assert moved & body and moved & set(applied.anatomy.head.parameters)


def test_batch_norm_train_lets_the_statistics_of_learning_norms_move():
    applied = applied_to("resnet", "norms", batch_norm="train")
    before = state_of(applied.model)
    train_steps(applied, batch("resnet"))
    assert [name for name in changed(before, applied.model) if name.endswith("running_mean")]


def test_a_backbone_without_biases_is_an_error_that_says_what_to_do():
    with pytest.raises(UserError, match=r"has no bias outside its head.*strategy\.norms=true"):
        applied_to("modernbert", {"kind": "bitfit", "norms": False})
    assert applied_to("modernbert", "bitfit").learns["block 1"]


def test_what_was_held_still_before_stays_so_in_every_stage():
    """model.batch_norm=frozen comes before the strategy."""
    loaded = loaded_from(tiny("resnet"))
    norm = next(module for module in loaded.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    hold_still(norm)
    applied = apply_strategy(loaded, recipe_for("resnet", "tiny", "gradual"))
    for index in range(len(applied.stages)):
        applied.enter(index)
        applied.model.train()
        assert not norm.training
    others = [m for m in applied.model.modules() if isinstance(m, torch.nn.BatchNorm2d) and m is not norm]
    assert all(module.training for module in others)


def test_before_the_first_stage_all_that_ever_learns_asks_for_gradients():
    """Several processes agree at the start on what they synchronise."""
    applied = applied_to("vit", {"kind": "lp_ft"})
    assert all(parameter.requires_grad for parameter in applied.model.parameters())
    applied.enter(0)
    head = {name for name, parameter in applied.model.named_parameters() if parameter.requires_grad}
    assert head == set(applied.anatomy.head.parameters)
    assert ever_learning(applied.model) == {name for name, _ in applied.model.named_parameters()}
    one = applied_to("vit", "head")
    assert ever_learning(one.model) == head


def test_a_stage_takes_its_own_rate_or_its_strategys_default():
    applied = applied_to("bert", LISTED, epochs=5)
    assert [stage.learning_rate for stage in applied.stages] == [1e-3, pytest.approx(9e-5), 1e-3, 0.5]
    weight = applied.anatomy.blocks[-1].parameters[0]
    groups = applied.parameter_groups(1e-4, 0.0)
    names = {id(parameter): name for name, parameter in applied.model.named_parameters()}
    rates = {names[id(parameter)]: group["rates"] for group in groups for parameter in group["params"]}
    assert rates[weight] == pytest.approx((0, 9e-5, 0, 0.5))
    assert rates["classifier.weight"] == pytest.approx((1e-3, 9e-4, 1e-3, 5.0))


def test_the_table_shows_the_stages_one_after_the_other():
    assert applied_to("vit", {"kind": "gradual", "blocks_per_stage": 2}).table(1e-4).splitlines() == [
        "part        parameters  rate",
        "--------------------------------------------",
        "stem             3,376  0.0001 in stage 3",
        "block 1          2,224  0.0001 in stage 3",
        "blocks 2-3       4,480  0.0001 in stages 2-3",
        "head                51  0.001 in stages 1-3",
        "stage 1: 1.33 epochs, the head learns: 51 of 10,131 (0.5%)",
        "stage 2: 1.33 epochs, blocks 2-3 and the head learn: 4,531 of 10,131 (44.7%)",
        "stage 3: 1.33 epochs, everything learns: 10,131 of 10,131 (100%)",
    ]
    words = [applied_to("vit", LISTED).in_words(index) for index in range(4)]
    assert words == ["the head", "blocks 2-3 and the head", "norms and the head", "block 3 and the head"]
