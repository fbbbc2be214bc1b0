"""What is frozen does not change by a bit: parameters, BatchNorm statistics, dropout; on every family and strategy."""

from __future__ import annotations

import copy

import pytest
import torch
from model_samples import batch, sweep, tiny
from strategy_samples import loaded_from, recipe_for, train_steps

from hf_finetune.errors import UserError
from hf_finetune.strategy import apply_strategy
from hf_finetune.strategy.adapters import plain_name
from hf_finetune.strategy.frozen import hold_still, release

STRATEGIES = {"head": "head", "freeze": {"kind": "freeze", "train_blocks": 1}, "lora": {"kind": "lora", "r": 2}}


def applied_to(family, strategy, **changes):
    model = tiny(family, **changes)
    return apply_strategy(loaded_from(model), recipe_for(family, "tiny", strategy))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", sweep())
def test_frozen_is_bit_identical_after_training(family, strategy):
    applied = applied_to(family, STRATEGIES[strategy])
    before = {name: tensor.clone() for name, tensor in applied.model.state_dict().items()}
    train_steps(applied, batch(family), steps=2)
    after = applied.model.state_dict()
    learning = {name for name, parameter in applied.model.named_parameters() if parameter.requires_grad}
    buffers = set(dict(applied.model.named_buffers()))
    known = [name for part in applied.anatomy.parts for name in part.parameters]
    parts_that_learn = {part for part, learns in applied.learns.items() if learns}
    for name, tensor in after.items():
        if name in learning:
            continue
        if name in buffers and strategy == "freeze":
            module = applied.model.get_submodule(name.rpartition(".")[0])
            if module.training:  # a BatchNorm of a block that learns
                continue
        assert torch.equal(before[name], tensor), name
    assert any(not torch.equal(before[name], after[name]) for name in learning)
    assert {applied.part_name(name) for name in learning} == parts_that_learn
    assert all(plain_name(name, known) in known for name, _ in applied.model.named_parameters())


@pytest.mark.parametrize("family", sweep())
def test_without_holding_still_batchnorm_would_move(family):
    """The mend is needed: freezing by requires_grad alone lets statistics drift."""
    applied = applied_to(family, "head")
    release(applied.model)
    norms = [m for m in applied.model.modules() if getattr(m, "running_mean", None) is not None]
    before = [module.running_mean.clone() for module in norms]
    train_steps(applied, batch(family), steps=1)
    moved = [not torch.equal(old, module.running_mean) for old, module in zip(before, norms, strict=True)]
    assert all(moved)


@pytest.mark.parametrize(
    "family", ["vit", "swin", "convnext", "efficientnet", "timm_efficientnet", "bert", "xlnet", "gpt2"]
)
def test_a_frozen_prefix_has_no_dropout_in_train_mode(family):
    rates = {"bert": {"hidden_dropout_prob": 0.5}, "vit": {"hidden_dropout_prob": 0.5}, "xlnet": {"dropout": 0.5}}
    applied = applied_to(family, "head", **rates.get(family, {}))
    applied.model.train()
    seen = []
    first = applied.anatomy.head.parameters[0].rpartition(".")[0]
    applied.model.get_submodule(first).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for module in applied.model.modules():  # the head's own dropout is its own affair
        if "dropout" in type(module).__name__.lower() and module.training:
            module.p = 0.0
    inputs = batch(family)
    for _ in range(2):
        applied.model(**inputs)
    assert torch.equal(seen[0], seen[1])


def test_the_heads_dropout_stays_on():
    applied = applied_to("bert", "head")
    applied.model.train()
    assert applied.model.dropout.training
    assert not applied.model.bert.encoder.layer[0].output.dropout.training


def test_holding_still_survives_a_deep_copy_and_is_undone_by_release():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5))
    hold_still(module)
    twin = copy.deepcopy(module)
    assert not twin.train()[0].training
    release(twin)
    assert twin.train()[0].training
    assert not module.train()[0].training  # the twin's release did not reach the first


def test_lora_keeps_dropout_of_adapted_blocks_and_stills_the_stem():
    applied = applied_to("bert", "lora")
    applied.model.train()
    inner = applied.model.get_base_model()
    assert inner.bert.encoder.layer[0].output.dropout.training
    assert not inner.bert.embeddings.dropout.training
    assert applied.learns["stem"] is False


def test_too_many_blocks_is_an_error_with_the_count():
    with pytest.raises(UserError, match=r"train_blocks=4: tiny has 3 blocks"):
        applied_to("vit", {"kind": "freeze", "train_blocks": 4})
    with pytest.raises(UserError, match=r"has 1 block\. Give"):
        applied_to("albert", {"kind": "freeze", "train_blocks": 2})


def test_full_and_scratch_let_everything_learn():
    for strategy in ("full", "scratch"):
        applied = applied_to("mobilenet_v2", strategy)
        assert all(parameter.requires_grad for parameter in applied.model.parameters())
        applied.model.train()
        assert all(module.training for module in applied.model.modules())
