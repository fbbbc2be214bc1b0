"""Every family seen as stem, blocks, head: each parameter in one part, the parts in the order of the forward pass."""

from __future__ import annotations

import pytest
import torch
from model_samples import NUM_LABELS, batch, sweep, tiny
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, TimmWrapperConfig, TimmWrapperForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput

from hf_finetune.errors import UserError
from hf_finetune.model import find_anatomy
from hf_finetune.model.heads import output_layer

BLOCKS = {
    "vit": 3, "deit": 3, "beit": 3, "dinov2": 3, "swin": 4, "convnext": 5, "resnet": 5, "mobilenet_v2": 16,
    "efficientnet": 10, "timm_vit": 3, "timm_resnet": 8, "timm_vgg": 9, "timm_densenet": 8, "timm_inception_v3": 11,
    "timm_xception": 12, "timm_mobilenetv3": 12, "timm_efficientnet": 16, "bert": 3, "distilbert": 3, "roberta": 3,
    "albert": 1, "electra": 3, "xlnet": 3, "gpt2": 3, "modernbert": 3,
}  # fmt: skip


def parts_in_forward_order(model, anatomy, inputs):
    """Numbers of the parts in the order in which their layers (and dropouts) are first entered."""
    entered, hooks = [], []
    for index, part in enumerate(anatomy.parts):
        for name in part.modules:
            module = model.get_submodule(name)
            if next(module.parameters(recurse=False), None) is not None or "Drop" in type(module).__name__:
                hooks.append(module.register_forward_pre_hook(lambda *_, index=index: entered.append(index)))
    with torch.no_grad():
        model.eval()(**inputs)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(entered))


@pytest.mark.parametrize("family", sweep())
def test_every_parameter_is_in_one_part_and_parts_are_in_order_of_the_forward_pass(family):
    model = tiny(family)
    anatomy = find_anatomy(model)
    listed = [name for part in anatomy.parts for name in part.parameters]
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
    order = parts_in_forward_order(model, anatomy, batch(family))
    assert order == list(range(len(anatomy.parts)))
    assert len(anatomy.blocks) == BLOCKS[family]
    assert all(anatomy.part_of(name) is part for part in anatomy.parts for name in part.parameters)


@pytest.mark.parametrize("family", sweep())
def test_the_head_is_what_gives_the_logits_and_no_more(family):
    model = tiny(family)
    anatomy = find_anatomy(model)
    layer = model.get_submodule(output_layer(model, anatomy))
    seen = []
    layer.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = model.eval()(**batch(family)).logits
    assert seen[0].shape[-1] == logits.shape[-1] == NUM_LABELS
    body = sum(p.numel() for name, p in model.named_parameters() if name not in anatomy.head.parameters)
    assert body > 0.6 * sum(p.numel() for p in model.parameters())


def test_a_pretrained_pooler_belongs_to_the_last_block_and_a_fresh_one_to_the_head():
    model = tiny("bert")
    assert find_anatomy(model).part_of("bert.pooler.dense.weight").name == "block 3"
    fresh = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    anatomy = find_anatomy(model, fresh)
    assert set(anatomy.head.parameters) == set(fresh)
    assert "bert.pooler.dense" in anatomy.head.modules


def test_dropout_beside_the_classifier_is_the_heads_and_xlnets_in_the_backbone_is_not():
    assert "dropout" in find_anatomy(tiny("bert")).head.modules
    assert "transformer.dropout" in find_anatomy(tiny("xlnet")).stem.modules


def wrapped(architecture, size=64, **model_args):
    config = TimmWrapperConfig(
        architecture=architecture,
        num_labels=3,
        model_args=model_args or None,
        pretrained_cfg={"input_size": [3, size, size]},
    )
    return TimmWrapperForImageClassification(config)


@pytest.mark.parametrize(
    ("architecture", "size", "args", "blocks"),
    [
        ("convnext_atto", 64, {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 16]}, 5),
        ("swin_tiny_patch4_window7_224", 224, {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2]}, 5),
        ("xception41", 64, {}, None),
        ("regnetx_002", 64, {}, None),
        ("mixer_s32_224", 224, {}, 8),
    ],
)
def test_other_timm_models_are_read_by_their_own_grouping_and_checked_by_a_forward_pass(
    architecture, size, args, blocks
):
    model = wrapped(architecture, size, **args)
    anatomy = find_anatomy(model)
    assert len(anatomy.blocks) == blocks if blocks else len(anatomy.blocks) > 4
    assert model.training  # the check leaves the model as it was


class _Config(PretrainedConfig):
    model_type = "stranger"


class _Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 64), nn.Linear(64, 8)

    def forward(self, x):
        return x + self.down(self.up(self.norm(x)))


class _Stranger(PreTrainedModel):
    """An architecture nobody has heard of."""

    config_class = _Config
    main_input_name = "pixel_values"
    backwards = False

    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.trunk = nn.ModuleList(_Layer() for _ in range(4))
        self.last_norm = nn.LayerNorm(8)
        self.answer = nn.Linear(8, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, labels=None):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        for layer in reversed(self.trunk) if self.backwards else self.trunk:
            x = layer(x)
        return ImageClassifierOutput(logits=self.answer(self.last_norm(x).mean(1)))


def test_an_unknown_architecture_gets_the_generic_answer():
    anatomy = find_anatomy(_Stranger(_Config(num_labels=3)))
    assert [part.name for part in anatomy.parts] == ["stem", "block 1", "block 2", "block 3", "block 4", "head"]
    assert anatomy.stem.parameters == ("patches.weight", "patches.bias")
    assert anatomy.part_of("last_norm.weight").name == "block 4"
    assert anatomy.head.parameters == ("answer.weight", "answer.bias")


def test_an_unknown_architecture_that_runs_otherwise_than_listed_is_refused():
    model = _Stranger(_Config(num_labels=3))
    model.backwards = True
    with pytest.raises(UserError, match="do not run in the order"):
        find_anatomy(model)


def test_an_unknown_architecture_without_alike_blocks_or_output_layer_is_refused():
    model = _Stranger(_Config(num_labels=3))
    model.trunk = nn.ModuleList([_Layer()])  # one is no list of alike blocks
    with pytest.raises(UserError, match="no list of alike blocks"):
        find_anatomy(model)
    model = _Stranger(_Config(num_labels=3))
    model.answer = nn.Identity()
    with pytest.raises(UserError, match="none of its layers gives 3 values"):
        find_anatomy(model)


def test_an_mlp_head_is_part_of_the_head(tmp_path):
    from model_samples import save_checkpoint
    from strategy_samples import load, recipe_for

    for family in ("vit", "resnet", "roberta", "timm_vgg", "modernbert"):
        folder = save_checkpoint(family, tmp_path / family)
        loaded = load(
            recipe_for(family, folder, head={"kind": "mlp", "hidden": [12, 6], "dropout": 0.1}), ["a", "b", "c"]
        )
        order = parts_in_forward_order(loaded.model, loaded.anatomy, batch(family))
        assert order == list(range(len(loaded.anatomy.parts)))
        assert len(loaded.anatomy.blocks) == BLOCKS[family]
        assert set(loaded.fresh) <= set(loaded.anatomy.head.parameters)
