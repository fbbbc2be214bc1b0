"""Loading checkpoints: new heads, what is refused and in which words, and the libraries' traps on the way."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
import transformers
from model_samples import batch, model_class, save_checkpoint, sweep, tiny
from safetensors.torch import load_file, save_file
from strategy_samples import load, recipe_for
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model import load_pretrained, resolve_checkpoint

NAMES = ["ant", "bee", "cat"]


def load_family(family, folder, names=NAMES, **settings):
    return load(recipe_for(family, folder, **settings), names)


@pytest.mark.parametrize("family", sweep())
def test_every_family_gets_a_new_head_and_keeps_the_rest(family, tmp_path):
    save_checkpoint(family, tmp_path)
    loaded = load_family(family, tmp_path)
    assert loaded.revision is None
    assert loaded.model.config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    assert loaded.model.config.label2id == {"ant": 0, "bee": 1, "cat": 2}
    assert loaded.model.config.problem_type == "single_label_classification"
    assert 0 < len(loaded.fresh) <= 2
    assert set(loaded.fresh) <= set(loaded.anatomy.head.parameters)
    saved = tiny(family, 5, seed=7).state_dict()
    for name, tensor in loaded.model.state_dict().items():
        if name not in loaded.fresh:
            assert torch.equal(tensor, saved[name]), name
    assert loaded.model(**batch(family)).logits.shape == (4, 3)


@pytest.mark.parametrize("head", ["linear", {"kind": "mlp", "hidden": [6]}])
@pytest.mark.parametrize("family", ["vit", "resnet", "timm_efficientnet", "bert", "roberta"])
@pytest.mark.parametrize("old_labels", [5, 3])
def test_the_new_head_depends_on_the_seed_alone(family, head, old_labels, tmp_path):
    save_checkpoint(family, tmp_path, old_labels)
    torch.manual_seed(123)
    one = load_family(family, tmp_path, head=head)
    torch.manual_seed(456)
    before = torch.get_rng_state()
    two = load_family(family, tmp_path, head=head)
    assert torch.equal(before, torch.get_rng_state())
    other = load_family(family, tmp_path, head=head, seed=1)
    weights = [name for name in one.fresh if name.endswith("weight")]
    assert weights
    for name in weights:
        assert torch.equal(one.model.get_parameter(name), two.model.get_parameter(name))
        assert not torch.equal(one.model.get_parameter(name), other.model.get_parameter(name))
        if old_labels == 3 and head == "linear":
            assert not torch.equal(one.model.get_parameter(name), tiny(family, 3, seed=7).get_parameter(name))


def test_a_head_with_the_same_label_names_is_kept(tmp_path):
    save_checkpoint("vit", tmp_path, 3, id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)})
    kept = load_family("vit", tmp_path)
    assert kept.fresh == ()
    assert torch.equal(kept.model.classifier.weight, tiny("vit", 3, seed=7).classifier.weight)
    reordered = load_family("vit", tmp_path, names=["bee", "ant", "cat"])
    assert reordered.fresh == ("classifier.weight", "classifier.bias")


@pytest.mark.parametrize("family", ["vit", "mobilenet_v2", "timm_efficientnet", "bert"])
def test_scratch_takes_the_architecture_and_random_weights(family, tmp_path):
    save_checkpoint(family, tmp_path)
    one, two = (load_family(family, tmp_path, strategy="scratch") for _ in range(2))
    pretrained = load_family(family, tmp_path)
    assert set(one.fresh) == set(dict(one.model.named_parameters()))
    matrices = [name for name, parameter in one.model.named_parameters() if parameter.ndim > 1 and parameter.std() > 0]
    matrices = [name for name in matrices if one.anatomy.part_of(name).name != "head"]
    assert matrices
    for name in matrices:
        assert torch.equal(one.model.get_parameter(name), two.model.get_parameter(name))
        assert not torch.equal(one.model.get_parameter(name), pretrained.model.get_parameter(name))


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_other_problem_types_have_their_loss(problem_type, tmp_path):
    save_checkpoint("bert", tmp_path)
    names = NAMES if problem_type.startswith("multi") else ["rating"]
    loaded = load(recipe_for("bert", tmp_path), names, problem_type)
    inputs = batch("bert") | {"labels": torch.rand(4, len(names)).squeeze(-1)}
    assert loaded.model.config.problem_type == problem_type
    expected = nn.BCEWithLogitsLoss() if len(names) > 1 else nn.MSELoss()
    output = loaded.model.eval()(**inputs)
    torch.testing.assert_close(output.loss, expected(output.logits.squeeze(-1), inputs["labels"]))


def test_weights_are_float32_whatever_the_file_holds(tmp_path):
    tiny("vit", 5).half().save_pretrained(save_checkpoint("vit", tmp_path))
    assert {parameter.dtype for parameter in load_family("vit", tmp_path).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["mobilenet_v2", "efficientnet"])
def test_batchnorm_momentum_is_in_pytorchs_sense(family, tmp_path):
    save_checkpoint(family, tmp_path)
    raw = [m.momentum for m in model_class(family).from_pretrained(tmp_path).modules() if isinstance(m, nn.BatchNorm2d)]
    assert max(raw) > 0.9  # the library's fault, still there
    mended = [m.momentum for m in load_family(family, tmp_path).model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(mended) == {0.1}


def test_deit_without_architectures_and_distilled_deit(tmp_path):
    save_checkpoint("deit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for architectures in (None, ["DeiTForImageClassificationWithTeacher"]):
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
        for strategy in ("scratch", "full"):
            model = load_family("deit", tmp_path, strategy=strategy).model
            assert type(model).__name__ == "DeiTForImageClassification"  # the distilled class takes no labels


def test_a_fresh_pooler_belongs_to_the_head(tmp_path):
    save_checkpoint("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_family("bert", tmp_path)
    assert "bert.pooler.dense.weight" in loaded.fresh
    assert loaded.anatomy.part_of("bert.pooler.dense.weight").name == "head"


def test_gpt2_pads_with_its_end_of_text_token(tmp_path):
    save_checkpoint("gpt2", tmp_path, pad_token_id=None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = load_family("gpt2", tmp_path)
    assert loaded.processor.pad_token == loaded.processor.eos_token
    assert loaded.model.config.pad_token_id == loaded.processor.eos_token_id
    inputs = loaded.processor(["w3 w4 w5", "w9"], padding=True, return_tensors="pt")
    loaded.model.eval()
    alone = loaded.model(**loaded.processor(["w9"], return_tensors="pt")).logits
    torch.testing.assert_close(loaded.model(**inputs).logits[1:], alone)


def test_another_image_size_is_refused_not_trained_from_random_positions(tmp_path):
    save_checkpoint("vit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_size": 64}))
    with pytest.raises(
        UserError, match=r"position_embeddings: \(1, 17, 16\) in the checkpoint, \(1, 65, 16\) in the model"
    ):
        load_family("vit", tmp_path)


def test_another_number_of_channels_is_refused(tmp_path):
    save_checkpoint("resnet", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_channels": 1}))
    with pytest.raises(UserError, match="not part of the head"):
        load_family("resnet", tmp_path)


@pytest.mark.parametrize("lost", ["vit.embeddings.cls_token", "encoder.layer.1.attention"])
def test_an_incomplete_checkpoint_is_refused(lost, tmp_path):
    save_checkpoint("vit", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if lost not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks .* weights of ViTForImageClassification outside the head"):
        load_family("vit", tmp_path)


def test_lost_batchnorm_statistics_are_refused(tmp_path):
    save_checkpoint("resnet", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "running_mean" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match="running_mean"):
        load_family("resnet", tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    save_checkpoint("vit", tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors file"):
        load_family("vit", tmp_path)


def test_a_checkpoint_without_preprocessing_is_refused(tmp_path):
    save_checkpoint("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"no preprocessor_config\.json"):
        load_family("vit", tmp_path)


def test_a_checkpoint_without_a_vocabulary_is_refused(tmp_path):
    save_checkpoint("bert", tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    transformers.AutoTokenizer.from_pretrained(tmp_path)  # the library's fault: an empty tokenizer, no error
    with pytest.raises(UserError, match="no tokenizer files"):
        load_family("bert", tmp_path)


def test_a_checkpoint_for_another_task_is_refused(tmp_path):
    save_checkpoint("bert", tmp_path)
    with pytest.raises(UserError, match="is a bert checkpoint, and transformers has no image-classification model"):
        load_family("vit", tmp_path)


def test_a_strangers_code_does_not_run(tmp_path):
    save_checkpoint("vit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "stranger",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="--trust-remote-code"):
        load_family("vit", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_unknown_package_checkpoint_lists_what_there_is():
    with pytest.raises(UserError, match="No checkpoint package:nothing-here ships with hf_finetune"):
        resolve_checkpoint("package:nothing-here")
    assert resolve_checkpoint("google/vit") == "google/vit"


@pytest.mark.slow
def test_a_missing_checkpoint_names_the_nearest_in_the_cache(tmp_path):
    """In a fresh process: huggingface_hub reads HF_HOME and HF_HUB_OFFLINE once."""
    (tmp_path / "hub" / "models--google--vit-base-patch16-224" / "snapshots").mkdir(parents=True)
    script = """
from hf_finetune.model.sources import loading
from transformers import AutoConfig
for name in ("google/vit-base-patch16-22", "/no/such/folder"):
    try:
        with loading(name):
            AutoConfig.from_pretrained(name)
    except Exception as fault:
        print(type(fault).__name__, fault)
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    one, two = done.stdout.splitlines()
    assert one.startswith(
        "UserError google/vit-base-patch16-22 is not in the local cache, and the Hub cannot be reached"
    )
    assert one.endswith("Did you mean google/vit-base-patch16-224?")
    assert two.startswith("UserError /no/such/folder is neither a folder nor a Hub id")


def test_loading_is_silent(tmp_path, capfd, caplog):
    save_checkpoint("timm_efficientnet", tmp_path / "timm")
    save_checkpoint("bert", tmp_path / "bert")
    capfd.readouterr()
    with caplog.at_level(logging.WARNING):
        load_family("timm_efficientnet", tmp_path / "timm")
        load_family("bert", tmp_path / "bert", head={"kind": "mlp"})
    said = capfd.readouterr()
    assert said.out == said.err == ""
    assert not caplog.records


@pytest.mark.real
@pytest.mark.parametrize(
    ("checkpoint", "task"),
    [
        ("WinKawaks/vit-tiny-patch16-224", "image-classification"),
        ("google/mobilenet_v2_1.0_224", "image-classification"),
        ("timm/tf_efficientnet_lite0.in1k", "image-classification"),
        ("sentence-transformers/all-MiniLM-L6-v2", "text-classification"),
    ],
)
def test_real_checkpoints_load_at_their_commit(checkpoint, task):
    recipe = recipe_for("bert" if task.startswith("text") else "vit", checkpoint)
    loaded = load_pretrained(
        recipe.model, task, num_labels=3, label_names=NAMES, problem_type="single_label_classification", seed=0
    )
    assert len(loaded.revision) == 40
    assert len(loaded.fresh) == 2


def test_scratch_of_a_timm_model_starts_as_timm_starts_it(tmp_path):
    """transformers draws every layer from normal(0, 0.02), with which a convolutional net hardly learns."""
    import timm

    save_checkpoint("timm_resnet", tmp_path)
    net = load_family("timm_resnet", tmp_path, strategy="scratch").model.timm_model
    own = timm.create_model("resnet18", channels=[8, 8, 16, 16])
    ratio = net.layer1[0].conv1.weight.std() / own.layer1[0].conv1.weight.std()
    assert 0.8 < ratio < 1.2
