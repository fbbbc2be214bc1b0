"""Attention, gradient checkpointing and torch.compile: what a step may do otherwise and must give alike."""

import pytest
import torch
from model_samples import CORE, FAMILIES, batch, save_checkpoint
from strategy_samples import load, recipe_for
from trainer_samples import NAMES, trainer, weights

from hf_finetune.training.checkpoints import WEIGHTS

COMPILED_IN_CI = ("vit", "timm_resnet", "bert")  # the C++ compiler takes half a minute for each


def one_epoch(folder, family, strategy="full", **training):
    ours = trainer(folder, family, strategy, size=12, still=True, num_train_epochs=1, optim="sgd", **training)
    ours.train()
    return ours


@pytest.mark.parametrize("family", CORE)
def test_attention_is_that_of_torch_where_the_model_has_it(tmp_path, family):
    model = load(recipe_for(family, save_checkpoint(family, tmp_path / "c")), NAMES).model
    if getattr(model, "_supports_sdpa", False) and not family.startswith("timm"):
        assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "strategy", ["full", {"kind": "freeze", "train_blocks": 1}, {"kind": "lora", "r": 2}, "bitfit"]
)
@pytest.mark.parametrize("family", ["vit", "bert", "timm_vit"])
def test_checkpointed_activations_give_the_same_gradients(tmp_path, family, strategy):
    """Also where the stem is frozen, so that nothing that goes into the first block asks for a gradient."""
    plain = weights(one_epoch(tmp_path / "plain", family, strategy).model)
    ours = one_epoch(tmp_path / "ours", family, strategy, gradient_checkpointing=True)
    start = weights(trainer(tmp_path / "start", family, strategy).model)
    found = weights(ours.model)
    assert found.keys() == plain.keys()
    assert all(torch.allclose(found[name], plain[name], atol=1e-6) for name in found)
    learned = [name for name, parameter in ours.model.named_parameters() if parameter.requires_grad]
    assert any(not torch.equal(found[name], start[name]) for name in learned)


@pytest.mark.parametrize("family", ["vit", "timm_vit", "bert"])
def test_checkpointing_keeps_less_for_the_backward_pass(tmp_path, family):
    kept = {}
    for checkpointing in (False, True):
        ours = trainer(tmp_path / str(checkpointing), family, num_train_epochs=1, gradient_checkpointing=checkpointing)
        ours.train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            ours.compute_loss(ours.model.train(), batch(family))
        kept[checkpointing] = sum(sizes)
    assert kept[True] < 0.6 * kept[False]


@pytest.mark.parametrize(
    "family",
    # The C++ compiler takes half a minute for each.
    [pytest.param(name, marks=pytest.mark.slow if name in ("vit", "bert") else pytest.mark.long) for name in FAMILIES],
)
def test_a_compiled_model_learns_the_same_and_saves_clean_names(tmp_path, family):
    torch.compiler.reset()
    plain = one_epoch(tmp_path / "plain", family)
    ours = one_epoch(tmp_path / "ours", family, torch_compile=True)
    found, expected = weights(ours.model), weights(plain.model)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-3) for name in found)
    from safetensors.torch import load_file

    names = [
        set(load_file(next((tmp_path / folder / "checkpoints").glob("checkpoint-*")) / WEIGHTS))
        for folder in ("plain", "ours")
    ]
    assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit"])
def test_a_compiled_run_is_resumed_where_it_was(tmp_path, family):
    torch.compiler.reset()
    whole = trainer(tmp_path, family, size=12, torch_compile=True)
    whole.train()
    second = trainer(tmp_path, family, size=12, torch_compile=True)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-3"))
    assert second.state.global_step == whole.state.global_step
    found, expected = weights(second.model), weights(whole.model)
    assert all(torch.allclose(found[name], expected[name], atol=1e-2) for name in found)
