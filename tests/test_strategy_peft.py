"""LoRA's relatives and peft's other methods: each starts as the model it adapts, learns, merges, saves and resumes."""

from __future__ import annotations

import json
import math

import numpy as np
import peft
import pytest
import torch
from model_samples import batch, save_checkpoint, tiny
from peft_samples import CONVOLUTIONAL, LINEAR_ONLY, METHODS, VARIANTS, WAYS, WORKS, adapt, live, logits
from strategy_samples import load, recipe_for, train_steps

from hf_finetune.errors import UserError
from hf_finetune.model import load_finished, save_pretrained
from hf_finetune.model.adapter_files import merged, save_adapter, without_adapters
from hf_finetune.strategy import apply_strategy
from hf_finetune.strategy.adapters import b_matrix
from hf_finetune.training import checkpoints

NAMES = ["a", "b", "c"]


def chosen(pairs, *plain):
    """All pairs of way and family; plain pytest takes every way on a ViT, and these, and `slow` the others."""
    return [
        pair if pair[1] == "vit" or pair in plain else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs
    ]


@pytest.mark.parametrize(
    ("way", "family"), chosen(WORKS, ("lora", "timm_resnet"), ("dora", "resnet"), ("ia3", "bert"), ("boft", "resnet"))
)
def test_it_starts_as_the_model_learns_and_merges(way, family):
    before = live(family)
    start = logits(before, family)
    applied = adapt(family, WAYS[way])
    # Only PiSSA changes the base: its sum with the adapter is the weight, but for rounding.
    torch.testing.assert_close(logits(applied.model, family), start, rtol=1e-5, atol=1e-5 if way == "pissa" else 0)
    _check_parts(applied)
    frozen = {name: value.clone() for name, value in applied.model.named_parameters() if not value.requires_grad}
    buffers = {name: value.clone() for name, value in applied.model.named_buffers()}

    train_steps(applied, batch(family))

    for name, value in applied.model.named_parameters():
        assert torch.equal(value, frozen.get(name, value)), name
    for name, value in applied.model.named_buffers():  # BatchNorm's statistics, VeRA's projections
        assert torch.equal(value, buffers[name]), name
    trained = logits(applied.model, family)
    plain = without_adapters(applied.model)
    assert (logits(plain, family) - trained).abs().max() > 1e-4, "the adapters themselves have an effect"
    base = dict(before.named_parameters())
    for name, value in plain.named_parameters():
        if name in applied.anatomy.head.parameters:
            assert not torch.equal(value, base[name]), "the head learns"
        elif way == "pissa":
            torch.testing.assert_close(value, base[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, base[name]), name
    scale = float(trained.abs().max())
    torch.testing.assert_close(logits(merged(applied.model), family), trained, rtol=1e-3, atol=1e-4 * scale)
    assert [name for name, _ in merged(applied.model).named_parameters()] == list(base)


def _check_parts(applied):
    """Every parameter belongs to the part of the layer that it adapts, to one group, and to the table."""
    parts = {}
    for name, value in applied.model.named_parameters():
        if value.requires_grad:
            parts.setdefault(applied.part_name(name), []).append(name)
    assert set(parts) == {part.name for part in (*applied.anatomy.blocks, applied.anatomy.head)}
    assert all("modules_to_save" in name for name in parts["head"])
    for part in applied.anatomy.blocks:
        modules = {f"base_model.model.{name}" for name in part.modules}
        assert all(any(name.startswith(f"{module}.") for module in modules) for name in parts[part.name])
    grouped = [p for group in applied.parameter_groups(1e-3, 0.1) for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in applied.model.parameters() if p.requires_grad}
    assert f"learns {sum(p.numel() for p in grouped):,} of" in applied.table(1e-3)


@pytest.mark.parametrize(
    ("way", "family"),
    chosen([(w, f) for w, f in WORKS if f in ("vit", "bert", "resnet")], ("lora", "bert"), ("loha", "resnet")),
)
def test_a_saved_run_gives_the_same_answers(way, family, tmp_path):
    recipe = recipe_for(family, save_checkpoint(family, tmp_path / "base"), WAYS[way])
    loaded = load(recipe, NAMES)
    applied = apply_strategy(loaded, recipe)
    train_steps(applied, batch(family))
    expected = logits(applied.model, family)
    out = tmp_path / "out"
    if way != "vera":  # which is saved merged
        save_pretrained(applied.model, loaded.processor, out, base=str(tmp_path / "base"))
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if way == "pissa" else {"rtol": 0, "atol": 1e-6}
        torch.testing.assert_close(logits(load_finished(out).model, family), expected, **tolerance)
        torch.testing.assert_close(logits(_by_peft(tmp_path, family), family), expected, **tolerance)
        # Saving leaves the model as it was.
        assert torch.equal(logits(applied.model, family), expected)

    save_pretrained(applied.model, loaded.processor, out, merge=True)
    assert not (out / "adapter_config.json").exists()
    finished = load_finished(out).model
    torch.testing.assert_close(logits(finished, family), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert list(finished.config.id2label.values()) == NAMES


def _by_peft(folder, family):
    """The adapter on the base checkpoint, as peft's own classes load it."""
    import transformers

    if family == "bert":
        return peft.AutoPeftModelForSequenceClassification.from_pretrained(
            folder / "out", num_labels=3, ignore_mismatched_sizes=True
        )
    base = transformers.AutoModelForImageClassification.from_pretrained(
        folder / "base", num_labels=3, ignore_mismatched_sizes=True
    )
    return peft.PeftModel.from_pretrained(base, folder / "out")


@pytest.mark.parametrize("way", ["dora", "pissa", "oft"])
def test_the_pipeline_opens_a_saved_run(way, tmp_path):
    from transformers import pipeline

    recipe = recipe_for("bert", save_checkpoint("bert", tmp_path / "base"), WAYS[way])
    loaded = load(recipe, NAMES)
    applied = apply_strategy(loaded, recipe)
    train_steps(applied, batch("bert"))
    save_pretrained(applied.model, loaded.processor, tmp_path / "out")
    answer = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu", top_k=3)(["w3 w9 w27"])
    with torch.no_grad():
        inputs = loaded.processor("w3 w9 w27", return_tensors="pt")
        expected = applied.model.eval()(**inputs).logits.softmax(-1)[0].numpy()
    scores = {item["label"]: item["score"] for item in answer[0]}
    np.testing.assert_allclose([scores[name] for name in NAMES], expected, atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "xlnet"])
@pytest.mark.parametrize("way", ["ia3", "lokr"])
def test_heads_of_several_layers_come_through_merging(way, family):
    """peft's own merge fails here: it asks RoBERTa's classification head for a weight."""
    applied = adapt(family, WAYS[way])
    train_steps(applied, batch(family))
    torch.testing.assert_close(logits(merged(applied.model), family), logits(applied.model, family))


def test_the_statistics_of_a_batchnorm_in_the_head_move_and_are_saved(tmp_path):
    head = {"kind": "mlp", "hidden": [8], "norm": "batch"}
    recipe = recipe_for("resnet", save_checkpoint("resnet", tmp_path / "base"), VARIANTS["dora"], head)
    loaded = load(recipe, NAMES)
    applied = apply_strategy(loaded, recipe)
    before = {name: value.clone() for name, value in applied.model.named_buffers() if name.endswith("running_mean")}
    train_steps(applied, batch("resnet"))
    moved = [name for name, value in applied.model.named_buffers() if not torch.equal(value, before.get(name, value))]
    assert moved
    assert all("modules_to_save" in name for name in moved)
    save_pretrained(applied.model, loaded.processor, tmp_path / "out")
    finished = load_finished(tmp_path / "out").model
    torch.testing.assert_close(logits(finished, "resnet"), logits(applied.model, "resnet"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_restores_the_trained_model(way, tmp_path):
    applied = adapt("vit", WAYS[way])
    train_steps(applied, batch("vit"))
    checkpoints.save_weights(applied.model, tmp_path)
    # Another seed draws other adapters, and for VeRA other projections, which the checkpoint has to bring.
    again = adapt("vit", WAYS[way], seed=5)
    checkpoints.load_weights(again.model, tmp_path)
    assert torch.equal(logits(again.model, "vit"), logits(applied.model, "vit"))


# --- what each means -------------------------------------------------------------------------------------------------


def _adapted_layer(applied):
    return next(module for module in applied.model.modules() if hasattr(module, "lora_A"))


@pytest.mark.parametrize(("variant", "scale"), [("lora", 12 / 4), ("rslora", 12 / math.sqrt(4))])
def test_rslora_divides_alpha_by_the_root_of_the_rank(variant, scale):
    layer = _adapted_layer(adapt("vit", {"kind": "lora", "variant": variant, "r": 4, "alpha": 12}))
    torch.nn.init.ones_(layer.lora_B["default"].weight)
    inputs = torch.randn(2, 16)
    update = layer(inputs) - layer.base_layer(inputs)
    expected = layer.lora_A["default"](inputs).sum(-1, keepdim=True).expand(2, 16)
    torch.testing.assert_close(update, scale * expected, rtol=1e-4, atol=1e-5)


def test_dora_learns_a_magnitude_for_every_output_which_starts_at_the_weights_norm():
    applied = adapt("vit", VARIANTS["dora"])
    layer = _adapted_layer(applied)
    magnitude = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude, layer.base_layer.weight.norm(dim=1))
    assert magnitude.requires_grad


def test_pissa_starts_from_the_principal_components():
    weight = tiny("vit").vit.layers[0].attention.q_proj.weight
    left, values, right = torch.linalg.svd(weight)
    layer = (
        adapt("vit", {"kind": "lora", "variant": "pissa", "r": 3}).model.get_base_model().vit.layers[0].attention.q_proj
    )
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(update, (left[:, :3] * values[:3]) @ right[:3], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layer.base_layer.weight, weight - update, rtol=1e-4, atol=1e-6)


def test_pissa_is_saved_as_a_lora_of_twice_the_rank_on_the_unchanged_base(tmp_path):
    applied = adapt("vit", VARIANTS["pissa"])
    train_steps(applied, batch("vit"))
    save_adapter(applied.model, str(tmp_path), None, None)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (4, 32.0, True)
    again = peft.PeftModel.from_pretrained(tiny("vit"), tmp_path)
    torch.testing.assert_close(logits(again, "vit"), logits(applied.model, "vit"), rtol=1e-4, atol=1e-5)
    assert applied.model.peft_config["default"].r == 2, "the model in training keeps its configuration"


def test_a_pissa_checkpoint_holds_what_the_adapter_took_out_of_the_base(tmp_path):
    """Singular vectors differ in the last digits from machine to machine; the adapter fits only its own residual."""
    applied = adapt("vit", VARIANTS["pissa"])
    train_steps(applied, batch("vit"))
    checkpoints.save_weights(applied.model, tmp_path)
    elsewhere = adapt("vit", VARIANTS["pissa"])
    with torch.no_grad():
        _adapted_layer(elsewhere).base_layer.weight.add_(0.1)
        _adapted_layer(elsewhere).start_A.add_(0.1)
    checkpoints.load_weights(elsewhere.model, tmp_path)
    assert torch.equal(logits(elsewhere.model, "vit"), logits(applied.model, "vit"))
    assert torch.equal(logits(without_adapters(elsewhere.model), "vit"), logits(without_adapters(applied.model), "vit"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_second_matrices_take_exactly_the_stated_multiple_of_the_rate(variant):
    applied = adapt("vit", {**VARIANTS[variant], "b_lr_multiplier": 16})
    names = {id(parameter): name for name, parameter in applied.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in applied.parameter_groups(2e-4, 0.1) for p in group["params"]}
    assert {rate for name, rate in rates.items() if b_matrix(name)} == {16 * 2e-4}
    assert {rate for name, rate in rates.items() if not b_matrix(name)} == {2e-4}
    assert sum(map(b_matrix, rates)) == 3 * 6


@pytest.mark.parametrize(("way", "family"), [("ia3", "vit"), ("boft", "vit"), ("dora", "resnet"), ("dora", "vit")])
def test_factors_that_start_at_one_are_not_decayed(way, family):
    applied = adapt(family, WAYS[way])
    names = {id(parameter): name for name, parameter in applied.model.named_parameters()}
    decays = {
        names[id(p)]: group["weight_decay"] for group in applied.parameter_groups(1e-3, 0.1) for p in group["params"]
    }
    scales = [name for name in decays if any(kind in name for kind in ("ia3_l", "boft_s", "magnitude"))]
    assert scales
    assert {decays[name] for name in scales} == {0.0}


def test_ia3_scales_outputs_and_the_inputs_of_feedforward_modules():
    settings = {"kind": "peft", "method": "ia3", "targets": ["k_proj", "v_proj", "fc2"]}
    applied = adapt("vit", {**settings, "options": {"feedforward_modules": "fc2"}})
    widths = {name.split(".")[-3]: value.shape for name, value in applied.model.named_parameters() if "ia3_l" in name}
    assert widths == {"k_proj": (16, 1), "v_proj": (16, 1), "fc2": (1, 32)}
    with pytest.raises(UserError, match=r"feedforward_modules: 'fc1' matches none of the adapted layers, .*fc2"):
        adapt("vit", {**settings, "options": {"feedforward_modules": ["fc1"]}})


def test_vera_shares_one_pair_of_projections_drawn_from_the_seed():
    first, second = (adapt("vit", METHODS["vera"], seed=seed).model for seed in (1, 2))
    shared = [buffer for name, buffer in first.named_buffers() if "vera_A" in name]
    assert len(shared) == 1
    assert not torch.equal(shared[0], next(b for name, b in second.named_buffers() if "vera_A" in name))
    given = adapt("vit", {**METHODS["vera"], "options": {"r": 8, "projection_prng_key": 1}}, seed=2).model
    assert torch.equal(shared[0], next(b for name, b in given.named_buffers() if "vera_A" in name))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("loha", {"r": 3, "alpha": 6, "rank_dropout": 0.1, "module_dropout": 0.1, "use_effective_conv2d": True}),
        ("lokr", {"r": 3, "decompose_both": True, "decompose_factor": 2, "rank_dropout_scale": True}),
        ("oft", {"r": 4, "block_share": True}),
        ("oft", {"oft_block_size": 8, "coft": True, "eps": 1e-3, "use_cayley_neumann": False}),
        ("boft", {"boft_block_num": 4}),
        ("vera", {"d_initial": 0.2, "vera_dropout": 0.1}),
    ],
)
def test_options_reach_peft_and_the_model_still_merges(method, options):
    family = "resnet" if "use_effective_conv2d" in options else "vit"
    applied = adapt(family, {"kind": "peft", "method": method, "options": options, "merge": True})
    config = applied.model.peft_config["default"]
    assert {name: getattr(config, name) for name in options} == options
    start = logits(applied.model, family)
    torch.testing.assert_close(start, logits(live(family), family), rtol=1e-5, atol=1e-6)
    train_steps(applied, batch(family))
    torch.testing.assert_close(
        logits(merged(applied.model), family), logits(applied.model, family), rtol=1e-3, atol=1e-3
    )


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", CONVOLUTIONAL)
@pytest.mark.parametrize("way", LINEAR_ONLY)
def test_methods_for_matrices_are_refused_on_convolutional_nets(way, family):
    with pytest.raises(
        UserError, match=rf"{way} adapts linear layers, and the blocks of .* have none; use strategy=lora"
    ):
        adapt(family, WAYS[way])
    with pytest.raises(UserError, match="There are: none"):
        adapt(family, {**WAYS[way], "targets": ["conv1"]})


@pytest.mark.parametrize("way", ["loha", "lokr", "oft", "boft"])
def test_methods_without_conv1d_are_refused_on_gpt2(way):
    with pytest.raises(UserError, match=rf"strategy.method={way} adapts linear layers"):
        adapt("gpt2", WAYS[way])


def test_a_rank_above_a_layers_width_is_refused_for_pissa():
    with pytest.raises(UserError, match=r"r=17: .* has 16 principal components"):
        adapt("vit", {"kind": "lora", "variant": "pissa", "r": 17})


def test_what_peft_refuses_is_said_in_words():
    with pytest.raises(UserError, match=r"strategy\.method=boft: peft cannot adapt ViT.* so: "):
        adapt("vit", {"kind": "peft", "method": "boft", "options": {"boft_block_size": 5}})
