"""What a family cannot take, and what cannot go together, is refused in words before training."""

from __future__ import annotations

import pytest
from strategy_samples import recipe_for
from surgery_samples import changed

from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import Recipe


@pytest.mark.parametrize(
    ("family", "keys", "words"),
    [
        ("timm_vgg", {"activation": "gelu"}, "the activation of timm's VGG is fixed in its code"),
        ("bert", {"activation": "elu"}, "transformers' models do not know elu; they take relu, gelu"),
        ("resnet", {"dropout": 0.1}, "resnet has no dropout layer"),
        ("convnext", {"dropout": 0.1}, "convnext has no dropout layer"),
        ("vit", {"drop_path": 0.1}, "vit has no stochastic depth"),
        ("bert", {"drop_path": 0.1}, "bert has no stochastic depth .* model.dropout is the usual noise for text"),
        ("timm_densenet", {"drop_path": 0.1}, "timm's DenseNet has no stochastic depth"),
        ("vit", {"batch_norm": "frozen"}, "model.batch_norm=frozen: vit has no BatchNorm"),
        ("bert", {"batch_norm_momentum": 0.1}, "model.batch_norm_momentum=0.1: bert has no BatchNorm"),
        ("vit", {"drop_blocks": 3}, "has 3 blocks, and at least one must stay. Remove at most 2"),
        ("vit", {"drop_blocks": [4]}, "has 3 blocks. Give numbers from 1 .* to 3"),
        ("albert", {"drop_blocks": 1}, "has 1 block, and at least one must stay"),
        ("resnet", {"drop_blocks": 1}, "that removes all blocks of resnet.encoder.stages.3.layers"),
        ("mobilenet_v2", {"drop_blocks": 1}, "the number of blocks of mobilenet_v2 is fixed in its code"),
        ("timm_efficientnet", {"drop_blocks": 1}, "the number of blocks of timm's EfficientNet is fixed"),
        ("timm_densenet", {"drop_blocks": 1}, "the number of blocks of timm's DenseNet is fixed"),
        ("timm_resnet", {"drop_blocks": [3]}, r"\[3\]: without block 3 the others of .* do not fit together"),
        ("modernbert", {"drop_blocks": [1]}, "without block 1 the others .* do not fit together"),
        ("swin", {"drop_blocks": [1]}, "alternate between plain and shifted windows"),
        ("vit", {"reinit_blocks": 4}, "has 3 blocks. Give at most that many"),
        ("vit", {"image_size": 50}, "patches of 8 x 8, which must fill them. Give a multiple of 8, such as 48 or 56"),
        ("timm_vit", {"image_size": 50}, "Give a multiple of 8, such as 48 or 56"),
        ("bert", {"max_length": 4}, "texts of fewer than 8 tokens"),
    ],
)
def test_what_a_family_cannot_take_is_refused(family, keys, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        changed(family, tmp_path, **keys)
    name, value = next(iter(keys.items()))
    assert str(caught.value).startswith(f"model.{name}={value}")


@pytest.mark.parametrize(
    ("task", "model", "rest", "path"),
    [
        ("text", {"in_channels": 1}, {}, "model.in_channels"),
        ("text", {"image_size": 64}, {}, "model.image_size"),
        ("image", {"max_length": 64}, {}, "model.max_length"),
        ("text", {"max_length": 64}, {"data": {"dataset": "x", "max_length": 65}}, "data.max_length"),
        ("image", {"stem_weights": "sum"}, {}, "model.stem_weights"),
        ("image", {"drop_blocks": [2, 2]}, {}, "model.drop_blocks"),
        ("image", {"reinit_blocks": 2}, {"strategy": "head"}, "model.reinit_blocks"),
        ("image", {"reinit_blocks": 2}, {"strategy": "lora"}, "model.reinit_blocks"),
        ("image", {"reinit_blocks": 2}, {"strategy": "features"}, "model.reinit_blocks"),
        ("image", {"reinit_blocks": 2}, {"strategy": "bitfit"}, "model.reinit_blocks"),
        ("image", {"reinit_blocks": 2}, {"strategy": "scratch"}, "model.reinit_blocks"),
        ("image", {"reinit_blocks": 2}, {"strategy": "freeze"}, "model.reinit_blocks"),
        ("image", {"batch_norm": "frozen"}, {"strategy": "scratch"}, "model.batch_norm"),
        ("image", {"batch_norm": "train"}, {"strategy": "lora"}, "model.batch_norm"),
        ("image", {"batch_norm": "frozen", "batch_norm_momentum": 0.1}, {}, "model.batch_norm_momentum"),
        ("image", {"batch_norm_momentum": 0.1}, {"strategy": "head"}, "model.batch_norm_momentum"),
        ("image", {"in_channels": 1}, {"data": {"dataset": "x", "augment": "basic"}}, "data.augment"),
        ("image", {"in_channels": 13}, {"data": {"dataset": "x", "augment": {"flip": 0.5}}}, "data.augment"),
        ("image", {"in_channels": 13}, {"evaluation": {"tta": "flip"}}, "evaluation.tta"),
    ],
)
def test_impossible_pairs_are_faults_before_anything_is_loaded(task, model, rest, path):
    values = {"task": f"{task}-classification", "data": {"dataset": "x"}, **rest}
    Recipe.model_validate({**values, "data": {"dataset": "x"}, "strategy": "full", "model": {"checkpoint": "none"}})
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        Recipe.model_validate({**values, "model": {"checkpoint": "none", **model}})


@pytest.mark.parametrize("strategy", ["full", "lp_ft", "gradual", {"kind": "freeze", "train_blocks": 2}])
def test_random_blocks_go_with_strategies_that_train_them(strategy, tmp_path):
    assert recipe_for("vit", tmp_path, strategy, reinit_blocks=2).model.reinit_blocks == 2
