"""Head kinds and poolings: what each computes, and that a saved model gives the same answers to whoever loads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from headless_samples import text_tokenizer
from model_samples import TEXT_FAMILIES, batch, save_checkpoint
from strategy_samples import load, recipe_for, train_steps
from test_model_anatomy import parts_in_forward_order
from torch import nn

from hf_finetune.errors import RecipeError, UserError
from hf_finetune.model import load_finished, save_pretrained
from hf_finetune.model.custom_layers import CosineHead, MlpHead, Pooling, make_head
from hf_finetune.recipes import load_recipe
from hf_finetune.strategy import apply_strategy

NAMES = ["ant", "bee", "cat"]
POOLINGS = ("mean", "max", "gem", "attention")


def loaded(family, folder, strategy="full", **model):
    if not (folder / "config.json").exists():
        save_checkpoint(family, folder)
    return load(recipe_for(family, folder, strategy, **model), NAMES)


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in inputs.items() if name != "labels"}).logits


# --- heads -----------------------------------------------------------------------------------------------------------


def test_cosine_logits_do_not_change_with_the_length_of_the_features_and_stay_within_the_scale():
    head = make_head({"kind": "cosine", "scale": 5.0}, 8, 3)
    features = torch.randn(20, 8)
    torch.testing.assert_close(head(features), head(7.5 * features))
    assert head(features).abs().max() <= 5.0
    torch.testing.assert_close(head(head.weight), 5.0 * torch.nn.functional.cosine_similarity(
        head.weight[:, None], head.weight[None], dim=-1))  # fmt: skip
    head(features).sum().backward()
    assert head.scale.grad.abs() > 0  # the scale learns


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "leaky_relu", "elu", "mish", "hardswish"])
def test_every_activation_of_the_recipe_makes_a_head(activation):
    head = make_head({"kind": "mlp", "hidden": [6], "activation": activation, "dropout": 0.0, "norm": "none"}, 4, 2)
    assert type(head.stack[1]).__name__.lower() == activation.replace("_", "")


def test_an_mlp_is_linear_norm_activation_dropout_for_each_width_and_linear_at_last():
    head = make_head({"kind": "mlp", "hidden": [6, 5], "activation": "tanh", "dropout": 0.3, "norm": "layer"}, 4, 2)
    kinds = [type(layer) for layer in head.stack]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Dropout] * 2 + [nn.Linear]
    assert [tuple(layer.weight.shape) for layer in head.stack if isinstance(layer, nn.Linear)] == [
        (6, 4), (5, 6), (2, 5)]  # fmt: skip
    assert {layer.p for layer in head.stack if isinstance(layer, nn.Dropout)} == {0.3}
    assert head.output is head.stack[-1]


def test_norms_of_an_mlp_normalise_over_the_batch_or_over_the_features():
    features = 50 + 20 * torch.randn(64, 4)
    batch_norm = make_head({"kind": "mlp", "hidden": [6], "norm": "batch"}, 4, 2).train()
    hidden = batch_norm.stack[:2](features)
    torch.testing.assert_close(hidden.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(hidden.std(0, correction=0), torch.ones(6), atol=1e-3, rtol=0)
    layer_norm = make_head({"kind": "mlp", "hidden": [6], "norm": "layer"}, 4, 2)
    torch.testing.assert_close(layer_norm.stack[:2](features).mean(1), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer_norm(features[:1]), layer_norm(features)[:1])


def test_a_last_batch_of_one_sample_does_not_stop_batch_norm():
    head = make_head({"kind": "mlp", "hidden": [6], "norm": "batch"}, 4, 2).train()
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm1d(4).train()(torch.ones(1, 4))  # torch's own
    assert head(torch.ones(1, 4)).shape == (1, 2)
    assert torch.equal(head.stack[1].running_mean, torch.zeros(6))


@pytest.mark.parametrize("head", [{"kind": "cosine", "scale": 8.0}, {"kind": "mlp", "hidden": [6], "norm": "batch"}])
@pytest.mark.parametrize("family", ["vit", "timm_resnet", "bert"])
def test_heads_learn_are_saved_and_come_back(family, head, tmp_path):
    recipe = recipe_for(family, save_checkpoint(family, tmp_path / "base"), "head", head=head)
    model = load(recipe, NAMES)
    assert set(model.fresh) == set(model.anatomy.head.parameters)
    assert isinstance(model.model.get_submodule(model.fresh[0].rsplit(".", 1)[0].split(".stack")[0]),
                      CosineHead if head["kind"] == "cosine" else MlpHead)  # fmt: skip
    before = {name: value.clone() for name, value in model.model.named_parameters()}
    applied = apply_strategy(model, recipe)
    train_steps(applied, batch(family))
    changed = {name for name, value in applied.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(model.fresh)
    save_pretrained(applied.model, model.processor, tmp_path / "out")
    again = load_finished(tmp_path / "out").model
    torch.testing.assert_close(logits(again, batch(family)), logits(applied.model, batch(family)))


def test_a_finished_model_with_a_head_of_ours_is_fine_tuned_again(tmp_path):
    first = loaded("vit", tmp_path / "base", head={"kind": "mlp", "hidden": [6]})
    save_pretrained(first.model, first.processor, tmp_path / "first")
    kept = loaded("vit", tmp_path / "first")
    assert kept.fresh == ()
    torch.testing.assert_close(logits(kept.model, batch("vit")), logits(first.model, batch("vit")))
    other = loaded("vit", tmp_path / "first", head="cosine")
    assert other.fresh == ("model.classifier.weight", "model.classifier.scale")
    save_pretrained(other.model, other.processor, tmp_path / "other")
    torch.testing.assert_close(
        logits(load_finished(tmp_path / "other").model, batch("vit")), logits(other.model, batch("vit"))
    )


# --- poolings --------------------------------------------------------------------------------------------------------


def test_gem_with_power_one_is_the_mean_and_with_a_large_one_nearly_the_maximum():
    tokens = torch.randn(5, 7, 4)
    gem, mean = Pooling("gem", 4), Pooling("mean", 4)
    assert gem.p.item() == 3.0
    with torch.no_grad():
        gem.p.fill_(1.0)
    torch.testing.assert_close(gem(tokens), mean(tokens))
    positive = tokens.abs()
    with torch.no_grad():
        gem.p.fill_(3.0)
        torch.testing.assert_close(gem(positive), positive.pow(3).mean(1).pow(1 / 3))  # Radenovic et al., equation 3
        gem.p.fill_(30.0)
    assert ((gem(positive) / positive.amax(1)) > (1 / 7) ** (1 / 30) - 1e-3).all()  # the least it can be
    assert (gem(positive) <= positive.amax(1) + 1e-5).all()


def test_max_is_the_maximum_and_attention_begins_as_the_mean_and_can_choose_a_token():
    tokens = torch.randn(5, 7, 4)
    assert torch.equal(Pooling("max", 4)(tokens), tokens.amax(1))
    attention = Pooling("attention", 4)
    torch.testing.assert_close(attention(tokens), tokens.mean(1))
    with torch.no_grad():
        attention.query.copy_(1000 * torch.eye(4)[2])
    chosen = tokens[torch.arange(5), tokens[..., 2].argmax(1)]
    torch.testing.assert_close(attention(tokens), chosen)


@pytest.mark.parametrize("kind", [*POOLINGS, "last"])
def test_poolings_see_the_real_tokens_alone(kind):
    tokens, mask = torch.randn(3, 6, 4), torch.ones(3, 6)
    mask[0, 4:] = 0
    mask[1, :2] = 0  # padded on the left, as XLNet is
    pooling = Pooling(kind, 4)
    if kind == "attention":
        nn.init.normal_(pooling.query)
    together = pooling(tokens, mask)
    torch.testing.assert_close(together[:1], pooling(tokens[:1, :4]))
    torch.testing.assert_close(together[1:2], pooling(tokens[1:2, 2:]))


@pytest.mark.parametrize("kind", POOLINGS)
def test_gradients_reach_tokens_and_pooling_even_where_tokens_are_zero(kind):
    tokens = torch.cat([torch.zeros(2, 3, 4), torch.randn(2, 3, 4)]).requires_grad_()
    pooling = Pooling(kind, 4)
    pooling(tokens).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in [tokens, *pooling.parameters()])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "xlnet"])
def test_a_text_padded_or_not_gets_the_same_logits(family, pooling, tmp_path):
    model = loaded(family, tmp_path / "base", pooling=pooling).model
    ids = torch.randint(3, 50, (1, 7), generator=torch.Generator().manual_seed(1))
    alone = logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    padding = torch.zeros(1, 4, dtype=torch.long)
    sides = [padding, ids] if family == "xlnet" else [ids, padding]
    mask = [torch.zeros_like(padding), torch.ones_like(ids)] if family == "xlnet" else [
        torch.ones_like(ids), torch.zeros_like(padding)]  # fmt: skip
    padded = logits(model, {"input_ids": torch.cat(sides, 1), "attention_mask": torch.cat(mask, 1)})
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)


def test_pooled_logits_are_the_head_on_the_pooled_patches(tmp_path):
    model = loaded("deit", tmp_path / "base", pooling="mean").model.eval()
    pixels = batch("deit")["pixel_values"]
    with torch.no_grad():
        tokens = model.model(pixel_values=pixels).last_hidden_state[:, 2:]  # class and distillation token
        torch.testing.assert_close(logits(model, {"pixel_values": pixels}), model.task_head(tokens.mean(1)))


@pytest.mark.parametrize("family", ["convnext", "beit"])
def test_a_norm_on_the_pooled_vector_stays_there_with_its_weights(family, tmp_path):
    model = loaded(family, tmp_path / "base", pooling="attention").model.eval()
    own = loaded(family, tmp_path / "base").model.eval()  # by the mean, which attention begins as
    with torch.no_grad():
        for layer in (model.task_norm, own.base_model.get_submodule("layernorm" if family == "convnext" else "pooler")):
            next(layer.parameters()).uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
        model.task_head.output.load_state_dict(own.classifier.state_dict())
    torch.testing.assert_close(logits(model, batch(family)), logits(own, batch(family)))
    assert {"task_norm.weight", "task_norm.bias"} <= set(dict(model.named_parameters()))


@pytest.mark.parametrize(
    ("family", "pooling", "kind"),
    [
        ("vit", "cls", "ViTForImageClassification"),
        ("resnet", "mean", "ResNetForImageClassification"),
        ("modernbert", "mean", "ModernBertForSequenceClassification"),
        ("timm_vit", "mean", "TimmWrapperForImageClassification"),
        ("timm_vit", "max", "TimmWrapperForImageClassification"),
        ("timm_resnet", "max", "TimmWrapperForImageClassification"),
        ("timm_mobilenetv3", "max", "TimmWrapperForImageClassification"),
    ],
)
def test_what_the_family_can_do_itself_stays_a_plain_model(family, pooling, kind, tmp_path):
    if family in TEXT_FAMILIES:
        save_checkpoint(family, tmp_path / "base")
        text_tokenizer().save_pretrained(tmp_path / "base")
    model = loaded(family, tmp_path / "base", pooling=pooling)
    assert type(model.model).__name__ == kind
    assert len(model.fresh) == 2
    save_pretrained(model.model, model.processor, tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    torch.testing.assert_close(
        logits(load_finished(tmp_path / "out").model, batch(family)), logits(model.model, batch(family)),
        atol=1e-6, rtol=1e-4,
    )  # fmt: skip


def test_timms_mean_keeps_the_pretrained_norm_where_it_is(tmp_path):
    net = loaded("timm_vit", tmp_path / "base", pooling="mean").model.eval().timm_model
    pixels = batch("timm_vit")["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(net(pixels), net.head(net.forward_features(pixels)[:, 1:].mean(1)))
    assert isinstance(net.norm, nn.LayerNorm)


@pytest.mark.parametrize("pooling", ["gem", "attention"])
@pytest.mark.parametrize("family", ["timm_vit", "timm_resnet", "timm_vgg", "timm_mobilenetv3", "convnext", "swin"])
def test_with_a_pooling_of_ours_the_parts_keep_their_order_and_the_pooling_is_the_heads(family, pooling, tmp_path):
    model = loaded(family, tmp_path / "base", pooling=pooling)
    order = parts_in_forward_order(model.model, model.anatomy, batch(family))
    assert order == list(range(len(model.anatomy.parts)))
    assert set(model.fresh) <= set(model.anatomy.head.parameters)
    assert sum(".p" in name[-2:] or name.endswith("query") for name in model.fresh) == 1


@pytest.mark.parametrize("strategy", ["head", {"kind": "freeze", "train_blocks": 1}, "lora"])
@pytest.mark.parametrize(("family", "pooling"), [("vit", "gem"), ("timm_resnet", "attention"), ("bert", "attention")])
def test_every_strategy_trains_the_pooling_and_saves_it(family, pooling, strategy, tmp_path):
    recipe = recipe_for(family, save_checkpoint(family, tmp_path / "base"), strategy, pooling=pooling)
    inputs = batch(family)
    if family == "timm_resnet":  # at 32 px its last map is a single pixel, of which there is nothing to choose
        inputs["pixel_values"] = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    model = load(recipe, NAMES)
    applied = apply_strategy(model, recipe)
    learning = [name for name, value in applied.model.named_parameters() if value.requires_grad]
    pooling_weight = next(name for name in learning if name.endswith((".p", ".query")))
    start = applied.model.get_parameter(pooling_weight).clone()
    train_steps(applied, inputs)
    assert not torch.equal(applied.model.get_parameter(pooling_weight), start)
    expected = logits(applied.model, inputs)
    for merge in (False, True):
        save_pretrained(applied.model, model.processor, tmp_path / f"out{merge}", merge=merge)
        again = load_finished(tmp_path / f"out{merge}").model
        torch.testing.assert_close(logits(again, inputs), expected, atol=1e-5, rtol=1e-4)


def test_the_classifiers_dropout_stays_before_the_head(tmp_path):
    model = loaded("bert", tmp_path / "base", pooling="mean").model
    assert model.task_dropout.p == 0.1 == model.config.feature_dropout
    assert loaded("vit", tmp_path / "vit", pooling="mean").model.task_dropout.p == 0.0


def test_cls_of_a_text_is_where_its_tokenizer_puts_the_class_token(tmp_path):
    folder = save_checkpoint("bert", tmp_path / "bert")
    text_tokenizer().save_pretrained(folder)
    model = loaded("bert", folder, pooling="cls").model.eval()
    inputs = batch("bert")
    with torch.no_grad():
        first = model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state[:, 0]
        torch.testing.assert_close(logits(model, inputs), model.task_head(first))
    folder = save_checkpoint("xlnet", tmp_path / "xlnet")
    text_tokenizer("$A [SEP] [CLS]").save_pretrained(folder)
    assert loaded("xlnet", folder, pooling="cls").model.config.pooling == "last"


# --- refused, in words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["resnet", "swin", "timm_resnet", "gpt2"])
def test_cls_without_a_class_token_is_refused(family, tmp_path):
    with pytest.raises(UserError, match=r"model\.pooling=cls: .*no class token.*Use mean, max, gem or attention"):
        loaded(family, tmp_path / "base", pooling="cls")


def test_another_pooling_for_a_finished_model_of_ours_is_refused(tmp_path):
    first = loaded("vit", tmp_path / "base", pooling="gem")
    save_pretrained(first.model, first.processor, tmp_path / "first")
    assert loaded("vit", tmp_path / "first", pooling="gem").fresh == ()
    with pytest.raises(UserError, match=r"was fine-tuned with model\.pooling=gem"):
        loaded("vit", tmp_path / "first", pooling="mean")


def test_a_cosine_head_is_refused_for_regression_and_coral(tmp_path):
    with pytest.raises(RecipeError, match="cosine is bounded"):
        load_recipe("digits", "model.head=cosine", "data.problem_type=regression", "evaluation.metrics=null")
    with pytest.raises(RecipeError, match="no biases"):
        load_recipe("digits", "model.head=cosine", "loss.kind=coral")
    with pytest.raises(RecipeError, match=r"model\.head\.norm.*more than one sample"):
        load_recipe("digits", "model.head=mlp", "model.head.norm=batch", "training.per_device_train_batch_size=1")
    recipe = recipe_for("vit", save_checkpoint("vit", tmp_path), head="cosine")
    with pytest.raises(UserError, match="cosine is bounded"):
        load(recipe, ["rating"], "regression")


# --- a process without this package ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_saved_folders_give_the_same_logits_where_hf_finetune_is_not_installed(tmp_path):
    cases = {
        "vit": {"pooling": "gem", "head": {"kind": "mlp", "hidden": [6], "norm": "batch"}},
        "timm_resnet": {"pooling": "attention", "head": "cosine"},
        "bert": {"pooling": "mean"},
    }
    expected = {}
    for family, model in cases.items():
        recipe = recipe_for(family, save_checkpoint(family, tmp_path / f"{family}_base"), "full", **model)
        ready = load(recipe, NAMES)
        applied = apply_strategy(ready, recipe)
        train_steps(applied, batch(family))
        save_pretrained(applied.model, ready.processor, tmp_path / family)
        inputs = {name: value for name, value in batch(family).items() if name != "labels"}
        torch.save(inputs, tmp_path / family / "inputs.pt")
        expected[family] = logits(applied.model, inputs)
    found = logits_in_a_bare_process(tmp_path, list(cases))
    for family, values in expected.items():
        torch.testing.assert_close(found[family], values, atol=1e-6, rtol=1e-5)


def logits_in_a_bare_process(folder, names):
    """What transformers alone makes of the saved models folder/name, by name; their inputs lie in inputs.pt."""
    script = f"""
import pathlib, sys, torch
class Hidden:  # where the package is installed for development, it is hidden
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_finetune":
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
import transformers
try:
    import hf_finetune
    sys.exit("hf_finetune can be imported here")
except ImportError:
    pass
logits = {{}}
for name in {names!r}:
    folder = pathlib.Path({str(folder)!r}, name)
    inputs = torch.load(folder / "inputs.pt")
    text = "input_ids" in inputs
    auto = transformers.AutoModelForSequenceClassification if text else transformers.AutoModelForImageClassification
    try:
        auto.from_pretrained(folder, trust_remote_code=False)
        sys.exit("loaded without its code")
    except ValueError as fault:
        assert "trust_remote_code" in str(fault), fault
    with torch.no_grad():
        logits[name] = auto.from_pretrained(folder, trust_remote_code=True).eval()(**inputs).logits
torch.save(logits, {str(folder / "logits.pt")!r})
"""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = {**kept, "HF_HOME": str(folder / "hf_home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "logits.pt")
