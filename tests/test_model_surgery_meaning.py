"""What each change of the checkpoint means: weights, positions, rates, statistics."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from model_samples import tiny
from PIL import Image
from strategy_samples import recipe_for, train_steps
from surgery_samples import changed, inputs_for, logits
from timm.models._manipulate import adapt_input_conv
from torch import nn

from hf_finetune.model.surgery.channels import for_channels, stem_filters
from hf_finetune.model.surgery.positions import stretched
from hf_finetune.strategy import apply_strategy


@pytest.mark.parametrize(
    ("family", "drop"),
    [
        ("vit", [2]),
        ("beit", [1, 3]),
        ("swin", [2]),
        ("timm_vit", [1]),
        ("timm_resnet", [2, 6]),
        ("bert", [2]),
        ("distilbert", [1]),
        ("gpt2", [1, 2]),
        ("modernbert", [2]),
    ],
)
def test_without_listed_blocks_it_is_the_model_built_by_hand(family, drop, tmp_path):
    by_hand = changed(family, tmp_path)
    names = [next(n for n in block.modules if n.rpartition(".")[2].isdigit()) for block in by_hand.anatomy.blocks]
    for number in sorted(drop, reverse=True):
        container, _, place = names[number - 1].rpartition(".")
        layers = by_hand.model.get_submodule(container)
        kept = [module for index, module in enumerate(layers) if index != int(place)]
        list_or_chain = nn.Sequential(*kept) if isinstance(layers, nn.Sequential) else nn.ModuleList(kept)
        by_hand.model.set_submodule(container, list_or_chain)
    by_hand.model.config.use_cache = False
    shallow = changed(family, tmp_path, drop_blocks=drop)
    assert len(shallow.anatomy.blocks) == len(by_hand.anatomy.blocks) - len(drop)
    inputs = inputs_for(family, {})
    torch.testing.assert_close(logits(shallow.model, inputs), logits(by_hand.model, inputs))


def test_a_number_of_blocks_means_those_at_the_top(tmp_path):
    top, listed = (changed("vit", tmp_path, drop_blocks=which) for which in (2, [2, 3]))
    for name, tensor in top.model.state_dict().items():
        assert torch.equal(tensor, listed.model.state_dict()[name]), name
    assert top.model.config.num_hidden_layers == 1


@pytest.mark.parametrize("family", ["vit", "resnet", "timm_vit", "timm_resnet"])
@pytest.mark.parametrize("channels", [3, 4, 6, 13])
def test_a_stem_of_repeated_filters_sees_repeated_colours_as_before(family, channels, tmp_path):
    colours = inputs_for(family, {})["pixel_values"]
    before = logits(changed(family, tmp_path).model, {"pixel_values": colours})
    wide = changed(family, tmp_path, in_channels=channels)
    repeated = colours[:, torch.arange(channels) % 3]
    torch.testing.assert_close(logits(wide.model, {"pixel_values": repeated}), before, rtol=1e-4, atol=1e-5)


def test_what_the_rules_for_stem_filters_mean():
    torch.manual_seed(0)
    weight, colours = torch.randn(5, 3, 2, 2), torch.randn(1, 3, 2, 2)
    grey = colours[:, :1].repeat(1, 3, 1, 1)
    see = nn.functional.conv2d
    for channels in (1, 2, 4, 13):
        mean = stem_filters(weight, channels, "mean")
        torch.testing.assert_close(see(grey[:, :1].repeat(1, channels, 1, 1), mean), see(grey, weight))
        one = torch.zeros(1, channels, 2, 2)
        one[:, channels - 1] = grey[:, 0]
        torch.testing.assert_close(see(one, stem_filters(weight, channels, "sum")), see(grey, weight))
    for channels in (1, 6, 9):  # where timm's scale is exact
        torch.testing.assert_close(stem_filters(weight, channels, "repeat"), adapt_input_conv(channels, weight))


@pytest.mark.parametrize("family", ["vit", "timm_vit"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_the_processor_gives_as_many_channels(family, channels, mode, tmp_path):
    processor = changed(family, tmp_path, in_channels=channels).processor
    pixels = processor(Image.new(mode, (40, 30)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, channels, 32, 32)
    assert for_channels([0.2, 0.4, 0.6], 1) == pytest.approx([0.4])
    assert for_channels([0.2, 0.4, 0.6], 5) == pytest.approx([0.2, 0.4, 0.6, 0.4, 0.4])


def test_positions_are_resized_as_timm_does_it(tmp_path):
    loaded = changed("timm_vit", tmp_path, image_size=48)
    config = tiny("timm_vit").config
    net = timm.create_model(config.architecture, **{**config.model_args, "img_size": 48}, num_classes=5)
    state = {name.removeprefix("timm_model."): t for name, t in tiny("timm_vit", 5, seed=7).state_dict().items()}
    state = timm.models.vision_transformer.checkpoint_filter_fn(state, net)
    assert torch.equal(loaded.model.timm_model.pos_embed, state["pos_embed"])


@pytest.mark.parametrize(("family", "prefix"), [("vit", 1), ("deit", 2), ("dinov2", 1)])
def test_resized_positions_keep_class_tokens_and_a_slope(family, prefix, tmp_path):
    before = getattr(tiny(family, 5, seed=7), family).embeddings.position_embeddings
    after = getattr(changed(family, tmp_path, image_size=64).model, family).embeddings.position_embeddings
    assert after.shape == (1, prefix + 64, 16)
    assert torch.equal(after[:, :prefix], before[:, :prefix])
    means = before[:, prefix:].mean(), after[:, prefix:].mean()
    assert means[0].item() == pytest.approx(means[1].item(), abs=0.01)


def test_relative_positions_to_the_class_token_stay(tmp_path):
    name = "beit.layers.0.relative_position_bias.relative_position_bias_table"
    checkpoint = tiny("beit", 5, seed=7)
    loaded = changed("beit", tmp_path, image_size=64)
    before, after = checkpoint.get_parameter(name), loaded.model.get_parameter(name)
    assert after.shape == (15 * 15 + 3, 2)
    assert torch.equal(after[-3:], before[-3:])


@pytest.mark.parametrize("size", [{"height": 32, "width": 32}, {"shortest_edge": 36}, {"shortest_edge": 40}])
def test_processors_keep_the_proportion_of_resize_and_crop(size):
    from transformers import ConvNextImageProcessor, ViTImageProcessor

    from hf_finetune.model.surgery.processor_size import resize_processor

    crops = size == {"shortest_edge": 36}
    more = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}} if crops else {}
    kind = ConvNextImageProcessor if size == {"shortest_edge": 40} else ViTImageProcessor
    processor = resize_processor(kind(size=size, **more), None, 64, "model.image_size=64")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    assert processor(image, return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)
    if crops:
        assert dict(processor.size) == {"shortest_edge": 72}


def test_stretched_positions_keep_their_ends_and_lie_between_neighbours():
    rows = torch.tensor([[0.0, 5.0], [1.0, 3.0], [2.0, 1.0]])
    assert torch.equal(stretched(rows, 2), rows[:2])
    torch.testing.assert_close(stretched(rows, 5)[:, 0], torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]))
    torch.testing.assert_close(stretched(rows, 5)[:, 1], torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]))


@pytest.mark.parametrize(("family", "offset"), [("bert", 0), ("roberta", 1), ("gpt2", 0)])
def test_a_shorter_limit_changes_no_answer_to_short_texts(family, offset, tmp_path):
    inputs = inputs_for(family, {})
    before, after = changed(family, tmp_path), changed(family, tmp_path, max_length=16)
    torch.testing.assert_close(logits(after.model, inputs), logits(before.model, inputs), rtol=0, atol=0)
    assert after.processor.model_max_length == 16
    assert after.model.config.max_position_embeddings == 16 + offset


def test_robertas_rows_before_the_first_position_stay(tmp_path):
    before = tiny("roberta", 5, seed=7).roberta.embeddings.position_embeddings.weight
    long = changed("roberta", tmp_path, max_length=64).model
    after = long.roberta.embeddings.position_embeddings.weight
    assert len(after) == 64 + 1  # this tiny model's padding token is 0, so that positions start at 1
    assert torch.equal(after[:1], before[:1])
    torch.testing.assert_close(after[[1, -1]], before[[1, -1]])


@pytest.mark.parametrize("family", ["vit", "timm_vit", "timm_resnet", "mobilenet_v2", "bert", "distilbert", "gpt2"])
def test_dropout_is_everywhere_or_nowhere(family, tmp_path):
    config = {"attn_pdrop": 0.1} if family == "gpt2" else None
    noisy, still = (changed(family, tmp_path, config=config, dropout=rate).model for rate in (0.5, 0.0))
    dropouts = [module for module in noisy.modules() if isinstance(module, nn.Dropout)]
    assert {module.p for module in dropouts} <= {0.5}
    inputs = inputs_for(family, {})
    batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in still.modules())
    if not batch_norm:
        torch.testing.assert_close(still.train()(**inputs).logits, logits(still, inputs))
    assert not torch.allclose(noisy.train()(**inputs).logits, noisy(**inputs).logits)


@pytest.mark.parametrize("family", ["beit", "dinov2", "swin", "timm_vit", "timm_resnet"])
def test_drop_path_rises_from_nothing_at_the_first_block(family, tmp_path):
    loaded = changed(family, tmp_path, drop_path=0.3)
    count = len(loaded.anatomy.blocks)
    for number, block in enumerate(loaded.anatomy.blocks):
        modules = [loaded.model.get_submodule(name) for name in block.modules]
        rates = {module.drop_prob for module in modules if "DropPath" in type(module).__name__}
        assert all(rate == pytest.approx(0.3 * number / (count - 1)) for rate in rates)
        assert rates or number == 0


@pytest.mark.parametrize("family", ["vit", "resnet", "timm_vit", "timm_resnet", "bert"])
def test_reinit_draws_the_top_blocks_anew_and_leaves_the_rest(family, tmp_path):
    plain, one, two = changed(family, tmp_path), *(changed(family, tmp_path, reinit_blocks=2) for _ in range(2))
    renewed = {name for block in one.anatomy.blocks[-2:] for name in block.parameters}
    assert set(one.fresh) == renewed | set(plain.fresh)
    modules = {name for block in one.anatomy.blocks[-2:] for name in block.modules}
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name]), "depends on the seed alone"
        if name in renewed and tensor.ndim > 1 and tensor.std() > 0:
            assert not torch.equal(tensor, plain.model.state_dict()[name]), name
        elif name.rpartition(".")[0] not in modules:
            assert torch.equal(tensor, plain.model.state_dict()[name]), name
        if name.endswith(("running_mean", "running_var")) and name.rpartition(".")[0] in modules:
            assert tensor.unique().tolist() in ([0.0], [1.0])


def test_timm_blocks_are_drawn_by_timms_rule(tmp_path):
    loaded = changed("timm_resnet", tmp_path, reinit_blocks=1)
    weight = loaded.model.timm_model.layer4[1].conv1.weight
    expected = (2 / (weight.shape[0] * 9)) ** 0.5  # He et al., fan out; transformers' wrapper would take 0.02
    assert weight.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("family", ["resnet", "mobilenet_v2", "timm_resnet"])
@pytest.mark.parametrize("strategy", ["full", "lp_ft"])
def test_frozen_statistics_stay_while_weights_learn(family, strategy, tmp_path):
    for mode in ("frozen", "train"):
        loaded = changed(family, tmp_path, strategy, batch_norm=mode)
        applied = apply_strategy(loaded, recipe_for(family, tmp_path, strategy, batch_norm=mode))
        applied.enter(len(applied.stages) - 1)
        before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
        train_steps(applied, inputs_for(family, {}))
        after = loaded.model.state_dict()
        statistics = [name for name in after if "running_" in name or "num_batches" in name]
        assert statistics
        assert all(torch.equal(after[name], before[name]) for name in statistics) == (mode == "frozen")
        scales = [name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]
        assert sum(not torch.equal(after[name], before[name]) for name in scales) > len(scales) * 0.8


def test_a_heads_own_statistics_move(tmp_path):
    keys = {"batch_norm": "frozen", "head": {"kind": "mlp", "hidden": [6], "norm": "batch"}}
    loaded = changed("resnet", tmp_path, **keys)
    applied = apply_strategy(loaded, recipe_for("resnet", tmp_path, **keys))
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    train_steps(applied, inputs_for("resnet", {}, size=6))
    moved = {name for name, tensor in loaded.model.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {name for name in before if "running_mean" in name}
    assert len(statistics & moved) == 1 < len(statistics)


@pytest.mark.parametrize("family", ["mobilenet_v2", "timm_resnet"])
def test_momentum_is_that_of_every_layer(family, tmp_path):
    loaded = changed(family, tmp_path, batch_norm_momentum=0.02)
    norms = [module for module in loaded.model.modules() if getattr(module, "running_mean", None) is not None]
    assert norms
    assert {module.momentum for module in norms} == {0.02}
    assert loaded.changes == (f"batch_norm_momentum 0.02 in {len(norms)} layers",)
