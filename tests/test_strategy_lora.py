"""Adapters: where they go, what is refused, and that what they learn is all that is needed to get the model back."""

from __future__ import annotations

import pytest
import torch
from model_samples import batch, save_checkpoint, sweep, tiny
from strategy_samples import load, loaded_from, recipe_for, train_steps
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model import load_finished, save_pretrained
from hf_finetune.model.saving import without_adapters
from hf_finetune.strategy import apply_strategy
from hf_finetune.strategy.adapters import choose_targets, head_modules


def lora(family, model=None, **settings):
    model = tiny(family) if model is None else model
    return apply_strategy(loaded_from(model), recipe_for(family, "tiny", {"kind": "lora", "r": 2, **settings}))


def logits(model, family):
    with torch.no_grad():
        return model.eval()(**batch(family)).logits


@pytest.mark.parametrize("family", sweep())
def test_adapters_start_as_the_identity_learn_and_merge(family):
    start = logits(tiny(family), family)
    applied = lora(family)
    torch.testing.assert_close(logits(applied.model, family), start)
    train_steps(applied, batch(family), steps=2)
    trained = logits(applied.model, family)
    assert (trained - start).abs().max() > 1e-4
    merged = applied.model.merge_and_unload()
    torch.testing.assert_close(logits(merged, family), trained, rtol=1e-3, atol=1e-3 * float(trained.abs().max()))
    assert sorted(dict(merged.named_parameters())) == sorted(dict(tiny(family).named_parameters()))


@pytest.mark.parametrize("family", sweep())
def test_base_weights_come_out_unchanged_with_the_trained_head(family):
    applied = lora(family)
    train_steps(applied, batch(family), steps=1)
    plain, start = without_adapters(applied.model).state_dict(), tiny(family).state_dict()
    assert plain.keys() == start.keys()
    head = set(applied.anatomy.head.parameters)
    for name, tensor in start.items():
        assert torch.equal(tensor, plain[name]) is (name not in head), name


@pytest.mark.parametrize("family", sweep())
def test_every_block_of_every_family_is_adapted_and_nothing_of_the_head(family):
    loaded = loaded_from(tiny(family))
    targets = choose_targets(loaded.model, loaded.anatomy, None)
    assert {part.name for part in loaded.anatomy.blocks if set(part.modules) & set(targets)} == {
        part.name for part in loaded.anatomy.blocks
    }
    assert not set(targets) & set(loaded.anatomy.head.modules)
    modules = dict(loaded.model.named_modules())
    assert all(getattr(modules[name], "groups", 1) == 1 for name in targets)


def test_the_whole_head_is_saved_by_its_exact_names():
    for family, expected in {
        "vit": ["classifier"],
        "resnet": ["classifier.1"],
        "distilbert": ["pre_classifier", "classifier"],
        "roberta": ["classifier"],
        "xlnet": ["sequence_summary", "logits_proj"],
        "timm_vgg": ["timm_model.head.fc"],
    }.items():
        loaded = loaded_from(tiny(family))
        assert head_modules(loaded.model, loaded.anatomy) == expected


@pytest.mark.parametrize("family", ["resnet", "mobilenet_v2", "timm_densenet"])
def test_reloaded_adapters_give_the_same_logits_on_nets_with_batchnorm(family, tmp_path):
    import peft

    applied = lora(family)
    train_steps(applied, batch(family))
    applied.model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(tiny(family), tmp_path)
    assert torch.equal(logits(again, family), logits(applied.model, family))


def test_targets_are_endings_and_may_name_the_stem():
    loaded = loaded_from(tiny("vit"))
    assert choose_targets(loaded.model, loaded.anatomy, ["q_proj"]) == [
        f"vit.layers.{i}.attention.q_proj" for i in range(3)
    ]
    stem = choose_targets(loaded.model, loaded.anatomy, ["projection", "mlp.fc1"])
    assert stem[0] == "vit.embeddings.patch_embeddings.projection"
    assert len(stem) == 4


def test_a_target_that_matches_nothing_is_an_error_that_lists_candidates():
    with pytest.raises(UserError, match=r"targets=query matches no layer.*fc1.*q_proj"):
        lora("vit", targets=["q_proj", "query"])
    with pytest.raises(UserError, match="without groups"):
        lora("efficientnet", targets="depthwise_conv")


def test_adapters_upon_adapters_are_refused():
    applied = lora("vit")
    with pytest.raises(UserError, match="adapters already"):
        lora("vit", model=applied.model.get_base_model())


def test_rank_alpha_and_seed_are_used():
    one, two, other = lora("bert", r=4, alpha=12), lora("bert", r=4), lora("bert", r=4)
    assert one.model.peft_config["default"].r == 4
    assert one.model.peft_config["default"].lora_alpha == 12
    down = [parameter for name, parameter in two.model.named_parameters() if "lora_A" in name]
    same = [parameter for name, parameter in other.model.named_parameters() if "lora_A" in name]
    assert all(torch.equal(a, b) for a, b in zip(down, same, strict=True))
    assert all(isinstance(a, nn.Parameter) and a.shape[0] == 4 for a in down)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_mobilenet_with_tensorflows_padding_trains_and_is_saved_merged(head, tmp_path):
    folder = save_checkpoint("mobilenet_v2", tmp_path / "base", tf_padding=True)
    recipe = recipe_for("mobilenet_v2", folder, {"kind": "lora", "r": 2, "merge": True}, head=head)
    loaded = load(recipe, ["a", "b", "c"])
    applied = apply_strategy(loaded, recipe)
    train_steps(applied, batch("mobilenet_v2"))
    save_pretrained(applied.model, loaded.processor, tmp_path / "out", merge=True)
    again = load_finished(tmp_path / "out").model
    torch.testing.assert_close(
        logits(again, "mobilenet_v2"), logits(applied.model, "mobilenet_v2"), rtol=1e-3, atol=1e-3
    )
    with pytest.raises(UserError, match=r"Set strategy\.merge=true"):
        plain = recipe_for("mobilenet_v2", folder, "lora", head=head)
        apply_strategy(load(plain, ["a", "b", "c"]), plain)
