"""Attention in pairs: the model's own answers and gradients, to rounding."""

import json

import model_samples
import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from hf_finetune.evaluation.products import fast_products, library_in_use
from hf_finetune.model import attention
from hf_finetune.model.attention import attention_in_use, fast_attention, pairs_attention
from hf_finetune.training import kernels


def _answer(model, batch):
    model.eval()
    model.zero_grad()
    logits = model(**batch).logits
    logits.square().sum().backward()
    return logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", model_samples.sweep())
def test_answers_and_gradients_are_the_models_own(family):
    model, batch = model_samples.tiny(family), model_samples.batch(family)
    own, gradients = _answer(model, batch)
    with fast_attention(model, "pairs"):
        found, others = _answer(model, batch)
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_a_model_is_in_pairs_inside_alone_and_its_file_never_tells(family, tmp_path):
    model = model_samples.tiny(family)
    assert attention_in_use(model) == "fused"
    with fast_attention(model, "pairs"):
        assert attention_in_use(model) == "pairs"
        with fast_attention(model, "fused"):
            assert attention_in_use(model) == "pairs"
        assert attention_in_use(model) == "pairs"
        model.save_pretrained(tmp_path)
    assert attention_in_use(model) == "fused"
    written = json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert not any(name in written for name in attention._NAMES)
    with fast_attention(model, "fused"), fast_attention(model, "pairs"):
        assert attention_in_use(model) == "fused"


@pytest.mark.parametrize("quick", ["fused", "pairs"])
def test_the_quicker_way_is_taken(quick, monkeypatch):
    """A clock on which one of them takes a second a call."""
    now = [0.0]
    fused, pairs = torch.nn.functional.scaled_dot_product_attention, attention._attend

    def slow(own):
        def call(*args, **kwargs):
            now[0] += 1.0
            return own(*args, **kwargs)

        return call

    name = "_attend" if quick == "fused" else "scaled_dot_product_attention"
    where = attention if quick == "fused" else torch.nn.functional
    monkeypatch.setattr(where, name, slow(pairs if quick == "fused" else fused))
    monkeypatch.setattr(attention.time, "perf_counter", lambda: now.__setitem__(0, now[0] + 1e-6) or now[0])
    attention._gain.cache_clear()
    try:
        expected = "fused" if quick == "fused" or torch.cuda.is_available() else "pairs"
        assert attention.faster_attention() == expected
    finally:
        attention._gain.cache_clear()


@pytest.mark.parametrize("quick", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_each_format_is_measured(quick, monkeypatch):
    """In pairs only where that is the quicker way: MKL's processors, where bf16 alone was slow in the fused kernel."""
    gains = {torch.float32: 0.9, torch.bfloat16: 2.6} if quick is torch.bfloat16 else {torch.float32: 3.0}
    monkeypatch.setattr(attention, "_gain", lambda products, format: gains.get(format, 0.9))
    expected = "pairs in bf16" if quick is torch.bfloat16 else "pairs in fp32"
    assert attention.faster_attention() == ("fused" if torch.cuda.is_available() else expected)


def _format(query):
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype


@pytest.mark.parametrize("way", ["pairs in bf16", "pairs in fp32"])
@pytest.mark.parametrize("family", ["vit", "bert", "timm_vit"])
def test_one_format_in_pairs_the_other_fused(family, way, monkeypatch):
    model, batch = model_samples.tiny(family).eval(), model_samples.batch(family)
    seen, pairs, fused = [], attention._attend, torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(attention, "_attend", lambda *given: seen.append(given[0].dtype) or pairs(*given))
    called = []
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, *given, **more: called.append(_format(query)) or fused(query, *given, **more),
    )
    with fast_attention(model, way), torch.no_grad():
        found = attention_in_use(model)
        model(**batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(**batch)
    mine, other = (torch.bfloat16, torch.float32) if way == "pairs in bf16" else (torch.float32, torch.bfloat16)
    assert set(called) == {other}
    if family != "timm_vit":  # whose own pairs nobody counts here
        assert set(seen) == {mine} and found == way


def test_timm_blocks_are_told_and_told_back():
    model = model_samples.tiny("timm_vit")
    blocks = [module for module in model.modules() if hasattr(module, "fused_attn")]
    assert blocks
    before = [block.fused_attn for block in blocks]
    with fast_attention(model, "pairs"):
        assert not any(block.fused_attn for block in blocks)
    assert [block.fused_attn for block in blocks] == before


@pytest.mark.parametrize("mask", ["none", "bool", "float", "a query that sees nothing"])
@pytest.mark.parametrize("way", ["pairs", "too many pairs"])
def test_the_function_is_the_fused_kernels(mask, way, monkeypatch):
    if way == "too many pairs":
        monkeypatch.setattr(attention, "_PAIRS", 0)
    noise = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 8, generator=noise) for _ in range(3))
    seen = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    seen[1, :, :, 5:] = False
    empty = seen.clone()
    empty[0, :, 2] = False
    given = {
        "a query that sees nothing": empty,
        "none": None,
        "bool": seen,
        "float": torch.zeros(seen.shape).masked_fill(~seen, -1e30),
    }[mask]
    module = torch.nn.Module()
    module.is_causal = False
    found, _ = pairs_attention(module, query, key, value, given)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=given).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_dropout_drops_weights_and_keeps_their_mean():
    module = torch.nn.Module()
    module.is_causal = False
    torch.manual_seed(0)
    query = key = torch.zeros(1, 1, 400, 4)
    value = torch.ones(1, 1, 400, 4)
    found, _ = pairs_attention(module, query, key, value, None, dropout=0.5)
    assert 0.95 < float(found.mean()) < 1.05
    assert float(found.std()) > 0.01


@pytest.mark.parametrize("way", ["pairs", "pairs in bf16", "pairs in fp32"])
def test_a_model_that_rotates_in_fp32_steps_in_bf16(way):
    """DINOv3's queries and keys come in fp32 under autocast, its values in bf16."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = DINOv3ViTModel(DINOv3ViTConfig(**sizes, image_size=32, patch_size=8)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = model(pixel_values=images).pooler_output
        with fast_attention(model, way):
            found = model(pixel_values=images).pooler_output
    found.sum().backward()
    torch.testing.assert_close(found.float(), own.float(), rtol=0.05, atol=0.05)


def test_a_causal_layer_without_a_mask_stays_causal():
    module = torch.nn.Module()
    module.is_causal = True
    noise = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 6, 4, generator=noise) for _ in range(3))
    found, _ = pairs_attention(module, query, key, value, None)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_a_model_around_one_that_does_not_attend_is_put_back(tmp_path):
    """A multi-task model on a ResNet: transformers refuses to give the ResNet the name that it had before."""
    outer = model_samples.tiny("vit")
    outer.inner = model_samples.tiny("resnet")
    own = [module.config._attn_implementation for module in outer.modules() if hasattr(module, "config")]
    with fast_attention(outer, "pairs"):
        assert attention_in_use(outer) == "pairs"
    assert [module.config._attn_implementation for module in outer.modules() if hasattr(module, "config")] == own


def test_attention_is_measured_under_the_products_that_the_run_uses(monkeypatch):
    """With MKL the fused kernel is the faster one in fp32, with oneDNN the slower one by far."""
    seen = []
    monkeypatch.setattr(kernels, "faster_library", lambda: "oneDNN")
    monkeypatch.setattr(kernels, "faster_attention", lambda: seen.append(library_in_use()) or "fused")
    with fast_products("oneDNN"):
        expected = library_in_use()
    with kernels.fast_kernels(model_samples.tiny("vit"), {}, batch_size=4):
        pass
    assert seen == [expected]
