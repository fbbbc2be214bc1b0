"""The classic convolutional nets by their names in timm: parts, heads and strategies on the real architectures.

Each is built by timm with random weights and saved as it lies on the Hub: a config.json of timm's and its own keys.
"""

from __future__ import annotations

import copy
import json
from typing import NamedTuple

import pytest
import timm
import torch
from safetensors.torch import save_file
from strategy_samples import load, recipe_for
from test_model_anatomy import parts_in_forward_order

from hf_finetune.errors import UserError
from hf_finetune.model.heads import output_layer
from hf_finetune.model.sources import loading
from hf_finetune.strategy import apply_strategy

NAMES = ["ant", "bee", "cat"]


class Net(NamedTuple):
    """An architecture: its blocks, the smallest image that it takes, in pixels, and timm's arguments."""

    blocks: int
    side: int
    arguments: dict | None = None


NETS = {
    "mobilenetv2_100": Net(17, 32),
    "mobilenetv1_100": Net(13, 32),
    "mobilenetv3_large_100": Net(16, 32),
    "efficientnet_b0": Net(16, 32),
    "densenet121": Net(58, 32),
    "densenet169": Net(82, 32),
    "densenet201": Net(98, 32),
    "resnet50": Net(16, 32),
    "vgg19": Net(17, 32, {"mlp_ratio": 0.05}),  # its two large layers, a block each, are narrowed
    "legacy_xception": Net(12, 32),
    "xception": Net(12, 32),  # its former name
    "inception_v3": Net(11, 75),
    "inception_resnet_v2": Net(43, 75),
}
CHEAP = "mobilenetv2_100"
# What parts learn, as numbers from the stem (0) to the head (-1).
STRATEGIES = {
    "head": (slice(-1, None), "head"),
    "freeze 1": (slice(-2, None), {"kind": "freeze", "train_blocks": 1}),
    "freeze 2": (slice(-3, None), {"kind": "freeze", "train_blocks": 2}),
    "full": (slice(None), {"kind": "full", "layer_decay": 0.97}),
    "scratch": (slice(None), "scratch"),
}
every_net = pytest.mark.parametrize(
    "saved", [pytest.param(name, marks=() if name == CHEAP else pytest.mark.slow) for name in NETS], indirect=True
)


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    """Architecture and folder of a checkpoint with five classes."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = timm.create_model(name, num_classes=5, **(NETS[name].arguments or {})).train()
        # As a trained net: no branch multiplied by 0, as timm starts some, and statistics of what flows through.
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(1.0)
                module.momentum = 0.9
        net(torch.randn(8, 3, NETS[name].side, NETS[name].side))
        weights = net.state_dict()
        if name == "inception_v3":  # its file on the Hub brings a second classifier, which only its first training used
            other = timm.create_model(name, num_classes=5, aux_logits=True).state_dict()
            weights |= {key: tensor for key, tensor in other.items() if key.startswith("AuxLogits")}
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, folder / "model.safetensors")
    side = NETS[name].side
    processing = {"input_size": [3, side, side], "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {
        "architecture": name,
        "num_classes": 5,
        "pretrained_cfg": {**processing, "interpolation": "bicubic", "crop_pct": 1.0},
        "model_args": NETS[name].arguments,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return name, folder


@pytest.fixture(scope="module")
def loaded(saved):
    """The checkpoint with a new linear head, once; copied by whoever changes it."""
    return load(recipe_for("timm_resnet", saved[1]), NAMES)


def inputs_of(name):
    generator = torch.Generator().manual_seed(0)
    side = NETS[name].side
    return {"pixel_values": torch.randn(4, 3, side, side, generator=generator), "labels": torch.tensor([0, 1, 2, 0])}


def moved(applied, inputs, steps=1):
    """Names of the parameters and statistics that steps without weight decay change."""
    before = {name: tensor.clone() for name, tensor in applied.model.state_dict().items()}
    optimizer = torch.optim.AdamW(applied.parameter_groups(0.01, weight_decay=0.0))
    torch.manual_seed(0)
    applied.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        applied.model(**inputs).loss.backward()
        optimizer.step()
    return {name for name, tensor in applied.model.state_dict().items() if not torch.equal(tensor, before[name])}


def state_of(model, parts):
    """Names of the parameters and statistics in these parts."""
    modules = {module for part in parts for module in part.modules}
    buffers = {name for name, _ in model.named_buffers() if name.rpartition(".")[0] in modules}
    return {name for part in parts for name in part.parameters} | buffers


@every_net
def test_its_parts_hold_every_parameter_once_in_the_order_of_the_forward_pass(saved, loaded):
    model, anatomy = copy.deepcopy(loaded.model), loaded.anatomy
    listed = [name for part in anatomy.parts for name in part.parameters]
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
    assert len(anatomy.blocks) == NETS[saved[0]].blocks
    assert all(part.parameters for part in anatomy.parts)
    assert parts_in_forward_order(model, anatomy, inputs_of(saved[0])) == list(range(len(anatomy.parts)))


@every_net
def test_all_but_a_head_of_the_new_size_is_the_checkpoints(saved, loaded):
    name, folder = saved
    from safetensors.torch import load_file

    weights, layer = load_file(folder / "model.safetensors"), output_layer(loaded.model, loaded.anatomy)
    assert set(loaded.fresh) == set(loaded.anatomy.head.parameters) == {f"{layer}.weight", f"{layer}.bias"}
    for key, tensor in loaded.model.state_dict().items():
        if key not in loaded.fresh:
            assert torch.equal(tensor, weights[key.removeprefix("timm_model.")]), key
    with torch.no_grad():
        assert copy.deepcopy(loaded.model).eval()(**inputs_of(name)).logits.shape == (4, 3)


@every_net
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_moves_what_the_strategy_says_and_nothing_else(saved, loaded, strategy):
    name, folder = saved
    which, settings = STRATEGIES[strategy]
    recipe = recipe_for("timm_resnet", folder, settings)
    mine = load(recipe, NAMES) if strategy == "scratch" else copy.deepcopy(loaded)
    applied = apply_strategy(mine, recipe)
    parts = applied.anatomy.parts
    assert [part for part, learns in applied.learns.items() if learns] == [part.name for part in parts[which]]
    # Scratch begins as timm does, which multiplies some branches by 0: what is inside moves from the second step on.
    steps = 2 if strategy == "scratch" else 1
    assert moved(applied, inputs_of(name), steps) == state_of(applied.model, parts[which])


@every_net
def test_each_block_takes_its_share_of_the_rate_of_the_block_above(saved, loaded):
    recipe = recipe_for("timm_resnet", saved[1], STRATEGIES["full"][1])
    applied = apply_strategy(copy.deepcopy(loaded), recipe)
    names = {parameter: name for name, parameter in applied.model.named_parameters()}
    given = {names[p]: group["lr"] for group in applied.parameter_groups(1.0, 0.0) for p in group["params"]}
    body = applied.anatomy.parts[:-1]
    for depth, part in enumerate(reversed(body)):
        assert [given[name] for name in part.parameters] == pytest.approx([0.97**depth] * len(part.parameters))
    assert {given[name] for name in applied.anatomy.head.parameters} == {10.0}


@every_net
def test_adapters_and_the_head_learn_and_the_net_stays(saved, loaded):
    name, folder = saved
    recipe = recipe_for("timm_resnet", folder, {"kind": "lora", "r": 2})
    applied = apply_strategy(copy.deepcopy(loaded), recipe)
    changed = moved(applied, inputs_of(name))
    # The second matrix is zero, so the first has no gradient in the first step.
    assert changed == {parameter for parameter in applied.learning if ".lora_A." not in parameter}
    assert all(".lora_" in parameter or ".modules_to_save." in parameter for parameter in applied.learning)
    adapted = {applied.part_name(parameter) for parameter in changed if ".lora_" in parameter}
    assert adapted == {part.name for part in applied.anatomy.blocks}


@every_net
@pytest.mark.parametrize("strategy", ["head", "full"])
def test_layers_before_the_output_are_the_heads(saved, strategy):
    name, folder = saved
    recipe = recipe_for("timm_resnet", folder, strategy, head={"kind": "mlp", "hidden": [8, 6], "activation": "tanh"})
    loaded = load(recipe, NAMES)
    head = loaded.anatomy.head
    assert set(loaded.fresh) == set(head.parameters) and len(head.parameters) == 6
    assert len(loaded.anatomy.blocks) == NETS[name].blocks
    applied = apply_strategy(loaded, recipe)
    parts = [head] if strategy == "head" else applied.anatomy.parts
    assert moved(applied, inputs_of(name)) == state_of(applied.model, parts)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("densenet121", ["timm/densenet121.ra_in1k", "timm/densenet121.tv_in1k"]),
        ("timm/inception_v3", ["timm/inception_v3.tv_in1k"]),
        ("timm/vgg19.imagenet", ["timm/vgg19.tv_in1k"]),
        ("xception", ["timm/legacy_xception.tf_in1k"]),
        ("VGG19", ["timm/vgg19.tv_in1k"]),
        ("efficientnet", ["timm/efficientnet_"]),
    ],
)
def test_a_name_that_is_not_the_hubs_is_answered_with_timms_own(given, names):
    with pytest.raises(UserError) as told, loading(given):
        raise OSError("We couldn't connect to the Hub")
    assert "timm/ARCHITECTURE.TAG" in str(told.value)
    assert all(name in str(told.value) for name in names)


def test_a_name_that_is_the_hubs_but_not_at_hand_asks_for_the_network():
    with pytest.raises(UserError, match="run once with the network"), loading("timm/densenet121.tv_in1k"):
        raise OSError("We couldn't connect to the Hub")
    with pytest.raises(UserError) as told, loading("someone/densenet121"):
        raise OSError("We couldn't connect to the Hub")
    assert "ARCHITECTURE.TAG" not in str(told.value)
