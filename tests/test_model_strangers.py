"""Checkpoints of the Hub that point at others: what an adapter and a processor of a stranger may say."""

import json
import pickle
import shutil

import pytest
import torch
from faults.hostile import hub_cache
from model_samples import save_checkpoint

from hf_finetune.errors import UserError
from hf_finetune.model.saving import load_finished
from hf_finetune.model.strangers import look_over

LORA = {
    "peft_type": "LORA",
    "r": 2,
    "target_modules": ["query"],
    "layers_to_transform": [0],
    "inference_mode": True,
    "task_type": "SEQ_CLS",
}


@pytest.fixture
def hub(tmp_path):
    """Puts a folder into the cache as a repository of the Hub."""

    def put(folder, repo):
        root = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        shutil.copytree(folder, root / "snapshots" / ("a" * 40))
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("a" * 40)
        return repo

    with hub_cache(tmp_path):
        yield put


def adapter(folder, base, weights="adapter_model.safetensors", **more):
    """A finished model with an adapter beside it that names its base."""
    from safetensors.torch import save_file

    save_checkpoint("bert", folder, num_labels=2)
    (folder / "adapter_config.json").write_text(json.dumps(LORA | {"base_model_name_or_path": base} | more))
    name = "base_model.model.bert.encoder.layer.0.attention.self.query"
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    tensors = {f"{name}.lora_A.weight": torch.ones(2, width), f"{name}.lora_B.weight": torch.ones(width, 2)}
    if weights.endswith(".bin"):
        (folder / weights).write_bytes(pickle.dumps(tensors))
    elif weights:
        save_file(tensors, folder / weights, {"format": "pt"})
    return folder


def test_an_adapter_of_the_hub_has_a_base_of_the_hub(hub, tmp_path, monkeypatch):
    base = hub(save_checkpoint("bert", tmp_path / "base", num_labels=2), "them/base")
    theirs = hub(adapter(tmp_path / "theirs", base), "them/adapter")
    loaded = load_finished(theirs).model
    assert any("lora" in name for name, _ in loaded.named_parameters())
    itself = hub(adapter(tmp_path / "itself", "them/itself"), "them/itself")  # as this package publishes runs
    assert load_finished(itself).revision == "a" * 40
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate((str(tmp_path / "base"), "base", "../base", "./base", "~/base", None)):
        evil = hub(adapter(tmp_path / f"evil{number}", place), f"them/evil{number}")
        with pytest.raises(UserError, match="as its base model"):
            look_over(evil, evil, None)
    look_over(str(tmp_path / "evil0"), "evil0", None)  # a person's own folder names what it likes


def test_the_base_of_an_adapter_is_looked_over(hub, tmp_path):
    save_checkpoint("bert", tmp_path / "base", num_labels=2)
    settings = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 10**9}))
    theirs = hub(adapter(tmp_path / "theirs", hub(tmp_path / "base", "them/base")), "them/adapter")
    with pytest.raises(UserError, match=r"base model them/base: .* at most 2,000 layers"):
        load_finished(theirs)


def test_the_configuration_that_was_looked_over_is_the_one_that_is_built(hub, tmp_path):
    """Not that of an adapter's base, which may ask for all memory."""
    save_checkpoint("bert", tmp_path / "base", num_labels=2)
    settings = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(settings | {"vocab_size": 10**5}))
    theirs = hub(adapter(tmp_path / "theirs", hub(tmp_path / "base", "them/base")), "them/adapter")
    assert load_finished(theirs).model.config.vocab_size == settings["vocab_size"]


def test_a_pickled_adapter_of_the_hub_is_refused(hub, tmp_path):
    base = hub(save_checkpoint("bert", tmp_path / "base", num_labels=2), "them/base")
    theirs = hub(adapter(tmp_path / "theirs", base, "adapter_model.bin"), "them/adapter")
    with pytest.raises(UserError, match="its adapter is pickled"):
        load_finished(theirs)


def test_no_adapter_fetches_others(hub, tmp_path):
    theirs = hub(adapter(tmp_path / "theirs", "them/adapter", adapters={"0": "/home/me/mine"}), "them/adapter")
    with pytest.raises(UserError, match="sets adapters"):
        look_over(theirs, theirs, None)


def test_sizes_of_an_image_processor_inside_a_processor_count(tmp_path):
    """transformers takes that part before preprocessor_config.json."""
    folder = save_checkpoint("vit", tmp_path / "model")
    look_over(str(folder), "model", None)
    file = folder / "processor_config.json"
    file.write_text(json.dumps({"image_processor": {"size": {"height": 10**9, "width": 10**9}}}))
    with pytest.raises(UserError, match=r"processor_config\.json makes images of size=.* at most 16,384 pixels"):
        look_over(str(folder), "model", None)
    file.write_text(json.dumps({"image_processor": {"size": {"height": 64, "width": 64}}, "processor_class": "X"}))
    look_over(str(folder), "model", None)
