"""The fastest format is found by a few steps that leave no trace, written down, and kept."""

import json
import random

import numpy as np
import pytest
import torch
from model_samples import sweep
from run_samples import break_off
from trainer_samples import trainer, weights

from hf_finetune import finetune
from hf_finetune.recipes import load_recipe
from hf_finetune.training import fastest, known_formats, work
from hf_finetune.training.fastest import Way, settle_format
from hf_finetune.training.precision import NumberFormat

OPEN = NumberFormat("bf16", "the CPU computes in it")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """What other runs have measured is another subject."""
    monkeypatch.setattr(fastest, "recall_format", lambda key: None)
    monkeypatch.setattr(fastest, "remember_format", lambda key, found: None)


@pytest.fixture
def worth(monkeypatch):
    """Every run is worth measuring."""
    monkeypatch.setattr(work, "_WORTH_MEASURING", {"cpu": 0.0})


@pytest.fixture
def costs(monkeypatch):
    """costs({way: seconds}): what the clock is made to say; steps are taken all the same."""
    measure = fastest._measure

    def set_to(seconds):
        def measured(trainer, ways, rows):
            measure(trainer, ways, rows)
            return {way: seconds[way] for way in ways}, 4

        monkeypatch.setattr(fastest, "_measure", measured)

    return set_to


@pytest.mark.parametrize("family", sweep(["resnet", "bert", "timm_efficientnet"]))
def test_measuring_leaves_no_trace(tmp_path, family, worth):
    ours = trainer(tmp_path, family)
    before = weights(ours.model), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    modes = [module.training for module in ours.model.modules()]
    found = settle_format(ours, OPEN)
    assert found.reason.startswith("ms a step of 4: ")
    after = weights(ours.model), torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]
    assert (before[3] == after[3]).all()
    assert all(parameter.grad is None for parameter in ours.model.parameters())
    assert [module.training for module in ours.model.modules()] == modes


@pytest.mark.parametrize("family", ["resnet", "bert"])
def test_training_after_measuring_is_training_without_it_to_the_bit(tmp_path, family, worth):
    measured = trainer(tmp_path / "measured", family)
    found = settle_format(measured, OPEN)
    measured.train()
    told = trainer(tmp_path / "told", family)
    settle_format(told, OPEN, {"precision": found.name, "channels_last": measured.channels_last})
    told.train()
    assert told.format == measured.format
    assert all(torch.equal(tensor, weights(told.model)[name]) for name, tensor in weights(measured.model).items())


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((1.0, 2.0, 3.0, 4.0), Way(True, True)),
        ((2.0, 1.0, 3.0, 4.0), Way(False, True)),
        ((2.0, 2.1, 3.0, 4.0), Way(False, True)),  # bf16 must be worth its rounding
        ((2.0, 2.0, 1.0, 4.0), Way(True, False)),
        ((2.0, 2.0, 2.0, 1.0), Way(False, False)),
    ],
)
def test_the_fastest_is_taken(tmp_path, worth, costs, seconds, chosen):
    costs(dict(zip((Way(True, True), Way(False, True), Way(True, False), Way(False, False)), seconds, strict=True)))
    ours = trainer(tmp_path, "resnet")
    found = settle_format(ours, OPEN)
    assert (ours.format, found.name) == (tuple(chosen), "bf16" if chosen.bf16 else "no")
    convolution = next(module for module in ours.model.modules() if isinstance(module, torch.nn.Conv2d))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last) == chosen.channels_last


@pytest.mark.parametrize(("few", "seen"), [((1.0, 1.3), {4, 16}), ((1.0, 1.6), {4})])
def test_what_is_close_is_decided_at_the_size_of_the_batch(tmp_path, monkeypatch, worth, few, seen):
    """Small batches flatter bf16: here it is the faster one of 4 samples, the slower one of 16."""
    looked = set()

    def seconds(trainer, batch, way):
        samples = len(batch["labels"])
        looked.add(samples)
        return 0.01 * (few if samples == 4 else (2.0, 1.0))[0 if way.bf16 else 1]

    monkeypatch.setattr(fastest, "_seconds", seconds)
    ours = trainer(tmp_path, "vit", size=64, per_device_train_batch_size=16, num_train_epochs=1000)
    found = settle_format(ours, OPEN)
    assert looked == seen
    assert found.name == ("no" if 16 in seen else "bf16")


def test_what_the_hardware_emulates_is_never_tried(tmp_path):
    emulated = NumberFormat("no", "the CPU does not compute in bf16")
    assert [way.bf16 for way in fastest._ways(trainer(tmp_path, "resnet").model, emulated)] == [False, False]


def test_what_the_user_asks_for_is_not_measured_away(tmp_path, worth, costs):
    costs({Way(False, True): 1.0, Way(False, False): 2.0})
    ours = trainer(tmp_path, "resnet")
    assert settle_format(ours, NumberFormat("no", "asked for")).name == "no"
    assert ours.format == (False, True)
    patches = trainer(tmp_path / "vit", "vit", precision="bf16")
    assert settle_format(patches, NumberFormat("bf16", "asked for")) == ("bf16", "asked for")


def test_a_small_run_is_not_measured_and_the_same_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(fastest, "_measure", None)
    ours = trainer(tmp_path, "resnet", precision="bf16")
    assert settle_format(ours, OPEN) == ("no", "a small run")
    assert ours.format == (False, False)


def test_the_work_of_a_forward_pass_is_counted(tmp_path):
    ours = trainer(tmp_path, "bert")
    tokens = ours.train_dataset[0]["input_ids"].shape[-1]
    matrices = sum(module.weight.numel() for module in ours.model.modules() if isinstance(module, torch.nn.Linear))
    pooled = sum(
        module.weight.numel()
        for name, module in ours.model.named_modules()
        if isinstance(module, torch.nn.Linear) and ("pooler" in name or "classifier" in name)
    )
    config = ours.model.config
    attention = 2 * config.num_hidden_layers * tokens**2 * config.hidden_size  # scores, and the mean by them
    with fastest.untouched(ours):
        assert fastest._work(ours, fastest.batch_of(ours, [0, 1])).operations / 2 == 2 * (
            (matrices - pooled) * tokens + pooled + attention
        )
        assert not torch.nn.modules.module._global_forward_hooks  # a count leaves nothing behind


def test_the_work_of_layers_that_are_no_linear_of_torchs_is_counted(tmp_path):
    """GPT-2 has transposed products in a class of transformers' own."""
    ours = trainer(tmp_path, "gpt2")
    tokens = ours.train_dataset[0]["input_ids"].shape[-1]
    matrices = sum(module.weight.numel() for module in ours.model.modules() if type(module).__name__ == "Conv1D")
    with fastest.untouched(ours):
        assert fastest._work(ours, fastest.batch_of(ours, [0, 1])).operations / 2 > 2 * matrices * tokens > 0


def test_numbers_that_come_and_go_are_work_too():
    """By its operations alone an epoch of 2,000 images of MobileNetV2, minutes on two cores, was a small run."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    model = MobileNetV2ForImageClassification(MobileNetV2Config(image_size=224, num_labels=10))
    with work.counted(model) as found:
        model(torch.zeros(1, 3, 224, 224))
    assert 5e8 < found.operations < 7e8
    assert 1e7 < found.numbers < 4e7
    assert work.worth_measuring(found.total, 2_000, torch.device("cpu"))
    assert not work.worth_measuring(found.operations, 2_000, torch.device("cpu"))
    assert not work.worth_measuring(found.total, 2_000, torch.device("cuda"))
    with pytest.raises(RuntimeError, match="3 channels"), work.counted(model):
        model(torch.zeros(1, 4, 224, 224))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_run_is_large_by_the_numbers_of_its_layers_too(tmp_path, monkeypatch):
    ours = trainer(tmp_path, "resnet")
    found = fastest._work(ours, fastest.batch_of(ours, [0, 1]))
    rows = len(ours.train_dataset) * ours.args.num_train_epochs
    limit = 3 * rows * (found.operations + 8 * found.numbers) / 2
    monkeypatch.setattr(work, "_WORTH_MEASURING", {"cpu": limit})
    assert settle_format(ours, OPEN).reason.startswith("ms a step of 4: ")


def test_channels_last_changes_the_layout_and_not_the_model(tmp_path):
    """The same sums in another order: equal up to rounding, and files that lie as always."""
    from safetensors.torch import load_file

    kept = {}
    for name, last in (("plain", False), ("last", True)):
        ours = trainer(tmp_path / name, "resnet", num_train_epochs=1)
        ours.compute_in(bf16=False, channels_last=last)
        ours.train()
        kept[name] = weights(ours.model)
        newest = max((tmp_path / name / "checkpoints").glob("checkpoint-*"))
        written = load_file(newest / "weights.safetensors")
        assert all(tensor.is_contiguous() for tensor in written.values())
    assert all(torch.allclose(tensor, kept["last"][name], atol=1e-3) for name, tensor in kept["plain"].items())


def test_a_resumed_run_goes_on_as_it_began_without_measuring(tmp_path, worth, costs, monkeypatch):
    recipe = load_recipe(
        "digits",
        *("data.max_train_samples=100", "data.max_eval_samples=40", "training.num_train_epochs=2"),
        *("evaluation.bootstrap=0", f"output_dir={tmp_path / 'run'}"),
    )
    costs({Way(True, True): 1.0, Way(False, True): 2.0, Way(True, False): 2.0, Way(False, False): 2.0})
    whole = finetune(recipe.model_copy(update={"output_dir": str(tmp_path / "whole")}))

    break_off(recipe, monkeypatch)
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert (state["precision"], state["channels_last"]) == ("bf16", True)
    monkeypatch.setattr(fastest, "_decide", None)
    run = finetune(recipe)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[name]), name
        assert tensor.is_contiguous()


def test_a_format_counts_for_inputs_of_like_size(tmp_path, monkeypatch):
    ours = trainer(tmp_path, "bert")
    keys = [
        known_formats.key_of_format(ours, {"input_ids": torch.zeros(2, tokens, dtype=torch.long)}, "open")
        for tokens in (30, 32, 512)
    ]
    assert keys[0] == keys[1] != keys[2]
    monkeypatch.setattr(known_formats, "processor", lambda: "another")
    assert known_formats.key_of_format(ours, {"input_ids": torch.zeros(2, 30)}, "open") != keys[0]
