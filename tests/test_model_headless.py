"""Checkpoints without a classification class of their own get our head, and are saved and reloaded like any other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from headless_samples import HEADLESS, IMAGE_HEADLESS, headless, headless_batch, save_headless
from model_samples import sweep
from PIL import Image
from strategy_samples import load, recipe_for, train_steps
from test_model_anatomy import parts_in_forward_order
from test_model_heads import logits, logits_in_a_bare_process

from hf_finetune.errors import UserError
from hf_finetune.model import load_finished, save_pretrained
from hf_finetune.strategy import apply_strategy

NAMES = ["ant", "bee", "cat"]
BLOCKS = {"dinov3_convnext": 5}


@pytest.mark.parametrize("name", HEADLESS)
def test_the_backbone_is_the_checkpoints_and_its_blocks_are_found(name, tmp_path):
    ready = load(recipe_for(name, save_headless(name, tmp_path)), NAMES)
    order = parts_in_forward_order(ready.model, ready.anatomy, headless_batch(name))
    assert order == list(range(len(ready.anatomy.parts)))
    assert len(ready.anatomy.blocks) == BLOCKS.get(name, 3)
    assert len(ready.fresh) == 2
    assert set(ready.fresh) == set(ready.anatomy.head.parameters)
    given = {_signature(value) for value in headless(name).state_dict().values()}
    for parameter, value in ready.model.named_parameters():
        assert parameter in ready.fresh or _signature(value) in given, parameter


def _signature(value):
    return (
        tuple(value.shape),
        round(float(value.detach().double().sum()), 6),
        round(float(value.detach().double().square().sum()), 6),
    )


@pytest.mark.parametrize("strategy", ["head", {"kind": "freeze", "train_blocks": 1}, "full", "lora"])
@pytest.mark.parametrize("name", sweep(HEADLESS, core=("clip", "dinov3", "t5_encoder")))
def test_every_strategy_learns_and_the_model_comes_back(name, strategy, tmp_path):
    recipe = recipe_for(name, save_headless(name, tmp_path / "base"), strategy)
    ready = load(recipe, NAMES)
    before = {key: value.clone() for key, value in ready.model.named_parameters()}
    applied = apply_strategy(ready, recipe)
    train_steps(applied, headless_batch(name))
    expected = logits(applied.model, headless_batch(name))
    if strategy != "lora":
        still = [part for part in ready.anatomy.parts if not applied.learns[part.name]]
        now = dict(applied.model.named_parameters())
        assert all(torch.equal(now[key], before[key]) for part in still for key in part.parameters)
        assert not torch.equal(now[ready.fresh[0]], before[ready.fresh[0]])
    for merge in (False, True) if strategy == "lora" else (False,):
        save_pretrained(applied.model, ready.processor, tmp_path / f"out{merge}", merge=merge)
        again = load_finished(tmp_path / f"out{merge}")
        torch.testing.assert_close(logits(again.model, headless_batch(name)), expected, atol=1e-5, rtol=1e-4)
        assert [part.name for part in again.anatomy.parts] == [part.name for part in ready.anatomy.parts]


@pytest.mark.parametrize("name", ["clip", "clip_vision", "siglip", "siglip_vision", "dinov3"])
def test_the_head_sees_the_pooled_output_that_was_pretrained(name, tmp_path):
    ready = load(recipe_for(name, save_headless(name, tmp_path)), NAMES)
    model = ready.model.eval()
    whole = headless(name).eval()
    tower = getattr(whole, "vision_model", whole)
    pixels = headless_batch(name)["pixel_values"]
    with torch.no_grad():
        expected = model.task_head(tower(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(logits(model, {"pixel_values": pixels}), expected)
    assert model.config.pooling == "pooler"


def test_mae_is_the_vit_that_its_encoder_is_and_hides_no_patches(tmp_path):
    ready = load(recipe_for("mae", save_headless("mae", tmp_path / "base")), NAMES)
    assert type(ready.model) is transformers.ViTForImageClassification
    assert any("vit_mae" in line for line in ready.changes)
    inputs = headless_batch("mae")
    assert torch.equal(logits(ready.model, inputs), logits(ready.model, inputs))
    encoder = headless("mae").vit.eval()
    encoder.config.mask_ratio = encoder.embeddings.config.mask_ratio = 0.0
    with torch.no_grad():
        classes = encoder(pixel_values=inputs["pixel_values"]).last_hidden_state[:, 0]
        torch.testing.assert_close(logits(ready.model, inputs), ready.model.classifier(classes), atol=1e-5, rtol=1e-4)


def test_the_mean_of_a_t5_encoder_leaves_padding_out(tmp_path):
    model = load(recipe_for("t5_encoder", save_headless("t5_encoder", tmp_path)), NAMES).model
    assert model.config.pooling == "mean"
    inputs = headless_batch("t5_encoder")
    alone = logits(model, {key: inputs[key][1:2, :8] for key in ("input_ids", "attention_mask")})
    torch.testing.assert_close(logits(model, inputs)[1:2], alone, atol=1e-5, rtol=1e-4)
    assert not any("decoder" in key for key in model.state_dict())


@pytest.mark.parametrize(("name", "prefix"), [("clip", 1), ("siglip", 0), ("mae", 1), ("dinov3", 3)])
def test_poolings_leave_class_token_and_registers_out(name, prefix, tmp_path):
    model = load(recipe_for(name, save_headless(name, tmp_path), pooling="max"), NAMES).model.eval()
    pixels = headless_batch(name)["pixel_values"]
    assert model.config.prefix_tokens == prefix
    with torch.no_grad():
        patches = model.model(pixel_values=pixels).last_hidden_state[:, prefix:]
        assert patches.shape[1] == 16
        expected = model.task_head(model.task_norm(patches.amax(1)))
    torch.testing.assert_close(logits(model, {"pixel_values": pixels}), expected)
    assert all(parameter.grad is not None for parameter in _after_a_step(model, headless_batch(name)))


def _after_a_step(model, inputs):
    """All parameters but those that only pretraining uses: one without a gradient would stop distributed training."""
    model.train()(**inputs).loss.backward()
    return [value for name, value in model.named_parameters() if not name.endswith("mask_token")]


@pytest.mark.parametrize("name", ["bert", "sentence_encoder"])
def test_an_untrained_pooler_is_not_used(name, tmp_path):
    """A sentence encoder saved without its pooler has a classification class, whose pooler would be random."""
    from model_samples import save_checkpoint
    from safetensors.torch import load_file, save_file

    save_checkpoint("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, tmp_path / "model.safetensors", {"format": "pt"})
    ready = load(recipe_for("t5", tmp_path, pooling="mean"), NAMES)
    assert not any("pooler" in key for key, _ in ready.model.named_parameters())
    assert len(ready.fresh) == 2


@pytest.mark.parametrize("name", ["clip", "siglip_vision"])
@pytest.mark.parametrize("head", [{"kind": "mlp", "hidden": [6], "norm": "layer"}, "cosine"])
def test_other_heads_go_on_backbones_too(name, head, tmp_path):
    ready = load(recipe_for(name, save_headless(name, tmp_path / "base"), head=head), NAMES)
    save_pretrained(ready.model, ready.processor, tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    again = load_finished(tmp_path / "out").model
    torch.testing.assert_close(logits(again, headless_batch(name)), logits(ready.model, headless_batch(name)))


@pytest.mark.parametrize("name", ["clip", "dinov3", "t5_encoder"])
def test_a_pipeline_answers_as_the_model_does(name, tmp_path):
    ready = load(recipe_for(name, save_headless(name, tmp_path / "base")), NAMES)
    model = ready.model.eval()
    save_pretrained(model, ready.processor, tmp_path / "out")
    if name in IMAGE_HEADLESS:
        task = "image-classification"
        sample = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    else:
        task, sample = "text-classification", "w3 w4 w5"
    inputs = ready.processor(sample, return_tensors="pt")
    expected = model(**inputs).logits.softmax(-1)[0].tolist()
    answer = transformers.pipeline(task, model=str(tmp_path / "out"), device="cpu", top_k=3)([sample])
    scores = {item["label"]: item["score"] for item in answer[0]}
    assert [scores[label] for label in NAMES] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_saved_folders_give_the_same_logits_where_hf_finetune_is_not_installed(tmp_path):
    expected = {}
    for name in ("clip", "dinov3", "t5_encoder"):
        ready = load(recipe_for(name, save_headless(name, tmp_path / f"{name}_base")), NAMES)
        save_pretrained(ready.model, ready.processor, tmp_path / name)
        inputs = {key: value for key, value in headless_batch(name).items() if key != "labels"}
        torch.save(inputs, tmp_path / name / "inputs.pt")
        expected[name] = logits(ready.model, inputs)
    found = logits_in_a_bare_process(tmp_path, list(expected))
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=1e-6, rtol=1e-5)


def test_a_finished_clip_classifier_stays_what_it_is(tmp_path):
    save_headless("clip", tmp_path)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {label: index for index, label in enumerate(NAMES)}}
    config = transformers.AutoConfig.from_pretrained(tmp_path, **labels)
    transformers.CLIPForImageClassification(config).save_pretrained(tmp_path)
    ready = load(recipe_for("clip", tmp_path), NAMES)
    assert type(ready.model) is transformers.CLIPForImageClassification
    assert ready.fresh == ()


def test_scratch_gives_the_architecture_with_random_weights_and_the_same_on_every_rank(tmp_path):
    folder = save_headless("dinov3", tmp_path)
    one, two = (load(recipe_for("dinov3", folder, "scratch"), NAMES) for _ in range(2))
    assert set(one.fresh) == set(dict(one.model.named_parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_what_neither_reads_images_nor_texts_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a t5 checkpoint, and transformers has no image-classification model"):
        load(recipe_for("clip", save_headless("t5", tmp_path / "t5")), NAMES)
    with pytest.raises(UserError, match="is a dinov3_vit checkpoint, and transformers has no text-classification"):
        load(recipe_for("t5", save_headless("dinov3", tmp_path / "dinov3")), NAMES)
    audio = transformers.Wav2Vec2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    transformers.Wav2Vec2Config.save_pretrained(audio, tmp_path / "audio")
    with pytest.raises(UserError, match="is a wav2vec2 checkpoint"):
        load(recipe_for("t5", tmp_path / "audio"), NAMES)
