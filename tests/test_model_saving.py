"""Saved models give the trained predictions and label names to whoever loads them, with this package or without."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from model_samples import batch, image_size, save_checkpoint
from PIL import Image
from strategy_samples import load, recipe_for, train_steps
from transformers import pipeline

from hf_finetune.data import TextCollator, text_samples
from hf_finetune.model import find_anatomy, load_finished, save_pretrained
from hf_finetune.strategy import apply_strategy

NAMES = ["ant", "bee", "cat"]
TEXTS = ["w3 w4 w5 w6", "w9 w9 w30", "w44 w12 w13 w14 w15"]
KINDS = ["vit", "mobilenet_v2", "timm_mobilenetv3", "bert"]


def is_text(family):
    return family == "bert"


def samples(family):
    if is_text(family):
        return TEXTS
    rng, side = np.random.default_rng(0), image_size(family)
    return [Image.fromarray(rng.integers(0, 255, (side + 9, side, 3), dtype=np.uint8)) for _ in range(3)]


def probabilities(model, processor, family):
    """The model's own answer, (3, labels), one sample at a time as a pipeline takes them."""
    model.eval()
    rows = []
    with torch.no_grad():
        for sample in samples(family):
            inputs = processor(sample, return_tensors="pt")
            rows.append(model(**inputs).logits.softmax(-1).numpy())
    return np.concatenate(rows)


def from_pipeline(folder, family, **options):
    task = "text-classification" if is_text(family) else "image-classification"
    answer = pipeline(task, model=str(folder), device="cpu", top_k=3, **options)(samples(family))
    scores = [{item["label"]: item["score"] for item in one} for one in answer]
    return np.array([[score[name] for name in NAMES] for score in scores])


def trained(family, folder, strategy, head="linear"):
    recipe = recipe_for(family, save_checkpoint(family, folder), strategy, head)
    loaded = load(recipe, NAMES)
    applied = apply_strategy(loaded, recipe)
    train_steps(applied, batch(family), lr=0.01)
    return loaded, applied


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("family", KINDS)
def test_lora_run_loads_through_pipeline_and_through_load_finished(family, merge, tmp_path):
    loaded, applied = trained(family, tmp_path / "base", "lora")
    expected = probabilities(applied.model, loaded.processor, family)
    out = tmp_path / "out"
    save_pretrained(applied.model, loaded.processor, out, merge=merge)

    tolerance = 1e-5 if merge else 1e-6
    np.testing.assert_allclose(from_pipeline(out, family), expected, atol=tolerance)
    finished = load_finished(out)
    np.testing.assert_allclose(probabilities(finished.model, finished.processor, family), expected, atol=tolerance)
    assert list(finished.model.config.id2label.values()) == NAMES
    assert (out / "adapter_config.json").exists() is not merge
    # The adapter did change the predictions, so that a lost one would be noticed.
    base = load(recipe_for(family, tmp_path / "base", "lora"), NAMES)
    base.model.load_state_dict({**base.model.state_dict(), **head_state(applied)})
    assert np.abs(probabilities(base.model, base.processor, family) - expected).max() > 1e-3


def head_state(applied):
    from hf_finetune.model.saving import without_adapters

    plain = without_adapters(applied.model)
    return {name: plain.state_dict()[name] for name in applied.anatomy.head.parameters}


@pytest.mark.parametrize("family", KINDS)
def test_peft_loads_the_adapter_onto_the_base_checkpoint(family, tmp_path):
    import peft
    from transformers import AutoModelForImageClassification

    loaded, applied = trained(family, tmp_path / "base", "lora")
    expected = probabilities(applied.model, loaded.processor, family)
    out = tmp_path / "out"
    save_pretrained(applied.model, loaded.processor, out, base=str(tmp_path / "base"))
    if is_text(family):
        model = peft.AutoPeftModelForSequenceClassification.from_pretrained(
            out, num_labels=3, ignore_mismatched_sizes=True
        )
    else:
        base = AutoModelForImageClassification.from_pretrained(
            tmp_path / "base", num_labels=3, ignore_mismatched_sizes=True
        )
        model = peft.PeftModel.from_pretrained(base, out)
    np.testing.assert_allclose(probabilities(model, loaded.processor, family), expected, atol=1e-6)


def test_without_a_hub_base_peft_loads_the_run_from_any_folder_with_its_labels(tmp_path, monkeypatch):
    import peft

    loaded, applied = trained("bert", tmp_path / "base", "lora")
    expected = probabilities(applied.model, loaded.processor, "bert")
    monkeypatch.chdir(tmp_path)
    save_pretrained(applied.model, loaded.processor, "out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out")
    np.testing.assert_allclose(probabilities(model, loaded.processor, "bert"), expected, atol=1e-6)
    assert list(model.config.id2label.values()) == NAMES
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("family", KINDS)
def test_plain_run_equals_its_pipeline(family, tmp_path):
    loaded, applied = trained(family, tmp_path / "base", "head")
    expected = probabilities(applied.model, loaded.processor, family)
    save_pretrained(applied.model, loaded.processor, tmp_path / "out")
    np.testing.assert_allclose(from_pipeline(tmp_path / "out", family), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora"])
@pytest.mark.parametrize("family", KINDS)
def test_mlp_head_loads_in_a_process_without_this_package_and_never_as_a_random_head(family, strategy, tmp_path):
    loaded, applied = trained(family, tmp_path / "base", strategy, head="mlp")
    expected = probabilities(applied.model, loaded.processor, family)
    out = tmp_path / "out"
    save_pretrained(applied.model, loaded.processor, out)
    finished = load_finished(out)  # our own class: no remote code
    np.testing.assert_allclose(probabilities(finished.model, finished.processor, family), expected, atol=1e-6)
    assert find_anatomy(finished.model).head.parameters
    if strategy == "lora" and family != "vit":
        return

    np.savez(tmp_path / "inputs.npz", *[np.asarray(sample) for sample in samples(family)])
    task = "text-classification" if is_text(family) else "image-classification"
    script = f"""
import json, sys
import numpy as np
from PIL import Image
from transformers import pipeline
arrays = np.load({str(tmp_path / "inputs.npz")!r})
inputs = [arrays[name] for name in arrays.files]
inputs = [str(item) for item in inputs] if {is_text(family)} else [Image.fromarray(item) for item in inputs]
try:
    pipeline({task!r}, model={str(out)!r}, trust_remote_code=False)
    sys.exit("loaded without its code")
except ValueError as fault:
    assert "trust_remote_code" in str(fault), fault
answer = pipeline({task!r}, model={str(out)!r}, trust_remote_code=True, device="cpu", top_k=3)(inputs)
assert not any(name.startswith("hf_finetune") for name in sys.modules)
print(json.dumps([[{{i["label"]: i["score"] for i in one}}[name] for name in {NAMES!r}] for one in answer]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=clean_environment(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=1e-6)


def clean_environment(folder):
    import os

    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**kept, "HF_HOME": str(folder / "hf_home"), "HF_HUB_OFFLINE": "1"}


def test_timm_reads_a_saved_timm_model(tmp_path):
    timm = pytest.importorskip("timm")
    loaded, applied = trained("timm_efficientnet", tmp_path / "base", "head")
    expected = probabilities(applied.model, loaded.processor, "timm_efficientnet")
    save_pretrained(applied.model, loaded.processor, tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    pixels = loaded.processor(samples("timm_efficientnet"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        np.testing.assert_allclose(model(pixels).softmax(-1).numpy(), expected, atol=1e-6)


def test_a_merged_save_takes_an_earlier_adapter_away_and_leaves_other_files(tmp_path):
    loaded, applied = trained("vit", tmp_path / "base", "lora")
    out = tmp_path / "out"
    save_pretrained(applied.model, loaded.processor, out)
    (out / "metrics.json").write_text("{}")
    save_pretrained(applied.model, loaded.processor, out, merge=True)
    assert not (out / "adapter_model.safetensors").exists()
    assert (out / "metrics.json").read_text() == "{}"
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


def test_a_failed_save_leaves_the_good_files_as_they_were(tmp_path):
    loaded, applied = trained("vit", tmp_path / "base", "head")
    out = tmp_path / "out"
    save_pretrained(applied.model, loaded.processor, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    applied.model.config.bad = object()  # cannot be written as json
    with torch.no_grad():
        applied.model.classifier.weight += 1
    with pytest.raises(TypeError):
        save_pretrained(applied.model, loaded.processor, out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_tokenizer_knows_how_many_positions_the_model_has(family, tmp_path):
    """Texts longer than the position embeddings failed inside the model."""
    checkpoint = save_checkpoint(family, tmp_path / "base")
    file = checkpoint / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("model_max_length", None)
    file.write_text(json.dumps(settings))
    loaded = load(recipe_for(family, checkpoint), NAMES)
    limit = 40 if family == "bert" else 39
    assert loaded.processor.model_max_length == limit
    rows = Dataset.from_dict({"text": ["w3 w4 " * 100, "w5"]})
    inputs = TextCollator(loaded.processor)([text_samples(rows, loaded.processor)[n] for n in range(2)])
    assert inputs["input_ids"].shape[1] == limit and loaded.model(**inputs).logits.isfinite().all()
    loaded.model.save_pretrained(checkpoint)
    assert load_finished(checkpoint).processor.model_max_length == limit
