"""Changes of the checkpoint: saved and reloaded they are the same model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from model_samples import TEXT_FAMILIES, TIMM_FAMILIES, sweep
from PIL import Image
from strategy_samples import recipe_for
from surgery_samples import NAMES, changed, inputs_for, logits, reloaded

from hf_finetune.model import find_anatomy, save_pretrained

FIVE = ("vit", "resnet", "timm_vit", "timm_resnet", "bert")
_REMOVABLE = tuple(family for family in TEXT_FAMILIES if family != "albert")


def cases(families, **keys):
    """Plain pytest takes the first family, a net of timm and GPT-2 of each line, `slow` them all."""
    families = families.split() if isinstance(families, str) else families
    plain = (families[0], "timm_resnet", "gpt2")
    return [
        pytest.param(family, keys, id=f"{family}-{name}-{value}", marks=() if family in plain else (pytest.mark.slow,))
        for family in families
        for name, value in keys.items()
    ]


SUPPORTED = [
    *cases((*FIVE, "mobilenet_v2", "distilbert", "xlnet", "gpt2"), activation="tanh"),
    *cases("vit mobilenet_v2 timm_vit timm_resnet bert distilbert gpt2 modernbert", dropout=0.25),
    *cases("beit dinov2 swin convnext timm_vit timm_resnet timm_efficientnet", drop_path=0.2),
    *cases("vit deit swin timm_resnet bert", drop_blocks=1),
    *cases(("vit", "beit", "dinov2", "swin", "timm_vit", "timm_resnet", *_REMOVABLE), drop_blocks=[2]),
    *cases(FIVE, reinit_blocks=1),
    *cases("vit swin convnext resnet mobilenet_v2 timm_vit timm_resnet", in_channels=13),
    *cases("vit timm_resnet", in_channels=1),
    *cases("vit deit beit dinov2 swin convnext resnet mobilenet_v2 timm_vit timm_resnet timm_vgg", image_size=64),
    *cases(TEXT_FAMILIES, max_length=64),
    *cases("bert roberta gpt2", max_length=16),
]


@pytest.mark.parametrize(("family", "keys"), SUPPORTED)
def test_a_changed_model_reloads_as_it_is(family, keys, tmp_path):
    loaded = changed(family, tmp_path / "checkpoint", **keys)
    assert len(loaded.changes) == 1, loaded.changes
    inputs = inputs_for(family, keys)
    loss = loaded.model.train()(**inputs).loss
    assert torch.isfinite(loss)
    before = logits(loaded.model, inputs)
    assert before.shape == (3, 3)
    model, _ = reloaded(family, loaded, tmp_path / "saved")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name]), name
    torch.testing.assert_close(logits(model, inputs), before, rtol=1e-4, atol=1e-5)  # convolutions round as they lie
    assert [part.parameters for part in find_anatomy(model).parts if part.name != "head"] == [
        part.parameters for part in loaded.anatomy.parts if part.name != "head"
    ]
    assert loaded.model.config.id2label == dict(enumerate(NAMES))


@pytest.mark.parametrize("family", ["vit", "resnet", "timm_vit", "timm_resnet"])
def test_an_image_pipeline_gives_the_same_scores(family, tmp_path):
    keys = {"image_size": 64, "drop_blocks": 1} if "vit" in family else {"image_size": 64, "activation": "silu"}
    loaded = changed(family, tmp_path / "checkpoint", **keys)
    save_pretrained(loaded.model, loaded.processor, tmp_path / "saved")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    pixels = loaded.processor(image, return_tensors="pt")
    assert pixels["pixel_values"].shape == (1, 3, 64, 64)
    expected = logits(loaded.model, pixels).softmax(-1)[0]
    answers = transformers.pipeline("image-classification", model=str(tmp_path / "saved"))(image)
    for answer in answers:
        assert answer["score"] == pytest.approx(expected[NAMES.index(answer["label"])].item(), abs=1e-6)


def test_a_text_pipeline_gives_the_same_scores(tmp_path):
    loaded = changed("bert", tmp_path / "checkpoint", max_length=64, drop_blocks=[1], activation="relu", dropout=0.3)
    assert len(loaded.changes) == 4
    save_pretrained(loaded.model, loaded.processor, tmp_path / "saved")
    text = "w3 w4 w5 w6 w7 " * 30
    tokens = loaded.processor(text, truncation=True, return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 64)
    expected = logits(loaded.model, tokens).softmax(-1)[0]
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path / "saved"), top_k=None)
    assert pipeline.tokenizer.model_max_length == 64
    for answer in pipeline([text], truncation=True)[0]:
        assert answer["score"] == pytest.approx(expected[NAMES.index(answer["label"])].item(), abs=1e-6)


@pytest.mark.parametrize("family", sweep(FIVE, core=("vit", "timm_resnet", "bert")))
def test_an_mlp_head_goes_with_changes(family, tmp_path):
    keys = {"max_length": 64} if family == "bert" else {"image_size": 64, "in_channels": 4}
    loaded = changed(family, tmp_path / "checkpoint", head={"kind": "mlp", "hidden": [6]}, reinit_blocks=1, **keys)
    inputs = inputs_for(family, keys)
    before = logits(loaded.model, inputs)
    model, _ = reloaded(family, loaded, tmp_path / "saved")
    torch.testing.assert_close(logits(model, inputs), before, rtol=1e-4, atol=1e-5)
    blocks = loaded.anatomy.blocks
    assert set(blocks[-1].parameters) | set(loaded.anatomy.head.parameters) == set(loaded.fresh)


@pytest.mark.parametrize("family", sweep(FIVE, core=("vit", "timm_resnet", "bert")))
def test_scratch_goes_with_changes(family, tmp_path):
    keys = {"max_length": 64} if family == "bert" else {"image_size": 64, "in_channels": 4}
    loaded = changed(family, tmp_path / "checkpoint", "scratch", drop_blocks=1 if family != "resnet" else None, **keys)
    assert set(loaded.fresh) == {name for name, _ in loaded.model.named_parameters()}
    assert logits(loaded.model, inputs_for(family, keys)).shape == (3, 3)


@pytest.mark.parametrize("family", ["vit", "timm_vit", "timm_resnet", "bert"])
def test_lora_goes_with_changes(family, tmp_path):
    from hf_finetune.strategy import apply_strategy

    keys = {"max_length": 64} if family == "bert" else {"image_size": 64, "in_channels": 4}
    loaded = changed(family, tmp_path / "checkpoint", "lora", drop_blocks=1, **keys)
    recipe = recipe_for(family, tmp_path / "checkpoint", "lora", drop_blocks=1, **keys)
    applied = apply_strategy(loaded, recipe)
    for name, parameter in applied.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    before = logits(applied.model, inputs_for(family, keys))
    save_pretrained(applied.model, loaded.processor, tmp_path / "saved")
    auto = transformers.AutoModelForSequenceClassification
    auto = auto if family == "bert" else transformers.AutoModelForImageClassification
    again = auto.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(again, inputs_for(family, keys)), before)


@pytest.mark.parametrize("family", ["vit", "beit", "swin", "mobilenet_v2", *FIVE[1:]])
def test_what_is_so_already_changes_nothing(family, tmp_path):
    same = {"activation": "gelu"} if family == "bert" else {"image_size": 32, "in_channels": 3}
    one, two = changed(family, tmp_path), changed(family, tmp_path, **same)
    assert one.changes == two.changes == ()
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name]), name
    assert one.model.config.to_dict() == two.model.config.to_dict()
    if family not in TIMM_FAMILIES:
        assert str(one.processor) == str(two.processor)
