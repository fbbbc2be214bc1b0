"""What is learned from kept features is what is learned without: the same weights, the same scores."""

from __future__ import annotations

import pytest
import torch
from cache_samples import data_for, recipe_of, run, weights_of

from hf_finetune import prefix_store as store

FREEZE = {"kind": "freeze", "train_blocks": 1}
DATA = {"dataset": "none", "validation": "validation", "augment": "none"}
CASES = [
    ("vit", "head"),
    ("vit", FREEZE),
    ("resnet", "head"),
    ("resnet", FREEZE),
    ("timm_efficientnet", "head"),
    ("timm_vit", FREEZE),
    ("bert", "head"),
    ("bert", FREEZE),
    ("gpt2", FREEZE),
    ("swin", FREEZE),
]


STAGED = [
    ("vit", {"kind": "full", "zones": [0, 0.5, 1]}, {}),
    ("bert", {"kind": "lp_ft", "head_epochs": 2}, {"num_train_epochs": 3}),
    ("resnet", {"kind": "gradual", "blocks_per_stage": 2, "stage_epochs": 2}, {"num_train_epochs": 7}),
]


def assert_alike(one, other):
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=1e-4, atol=2e-5, msg=lambda words, name=name: f"{name}: {words}"
        )
    for split in ("validation", "test"):
        assert one.metrics[split]["loss"] == pytest.approx(other.metrics[split]["loss"], rel=1e-4)
        assert one.metrics[split]["accuracy"] == other.metrics[split]["accuracy"]


@pytest.mark.parametrize(("family", "strategy"), CASES, ids=lambda v: v if isinstance(v, str) else v["kind"])
def test_the_weights_are_those_of_a_run_without_it(tmp_path, capsys, family, strategy):
    kept = run(tmp_path, family, strategy, "kept")
    assert "frozen prefix: features of" in capsys.readouterr().out
    assert len(store.entries()) == 3
    assert_alike(kept, run(tmp_path, family, strategy, "plain", cache={"prefix": "off"}))
    assert "frozen prefix" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("family", "strategy", "training"), STAGED, ids=lambda v: v if isinstance(v, str) else v.get("kind")
)
def test_each_stage_keeps_its_own_prefix(tmp_path, capsys, family, strategy, training):
    sections = {"training": training, **({} if family == "bert" else {"data": DATA})}
    kept = run(tmp_path, family, strategy, "kept", **sections)
    assert "frozen prefix: features of" in capsys.readouterr().out
    assert_alike(kept, run(tmp_path, family, strategy, "plain", cache={"prefix": "off"}, **sections))


def test_features_of_a_part_that_an_earlier_stage_has_changed_are_not_kept(tmp_path, capsys):
    from hf_finetune import finetune
    from hf_finetune.recipes.schema import Recipe

    stages = [
        {"epochs": 1, "strategy": {"kind": "full"}, "learning_rate": 0.01},
        {"epochs": 2, "strategy": {"kind": "head"}},
    ]
    runs = []
    for prefix in ("auto", "off"):
        values = recipe_of(tmp_path, "vit", "head", prefix, data=DATA).model_dump(mode="json", exclude_unset=True)
        values["training"] = {"per_device_train_batch_size": 8, "dataloader_num_workers": 0}
        values |= {"strategy": {"kind": "stages", "stages": stages}, "cache": {"prefix": prefix}}
        runs.append(finetune(Recipe.model_validate(values), data=data_for("vit"), precision="no"))
    assert "features of" not in capsys.readouterr().out
    assert_alike(*runs)


def test_a_text_model_that_sees_its_padding_keeps_nothing():
    from model_samples import tiny

    from hf_finetune.model.border_proof import knows_no_padding
    from hf_finetune.model.replay import BATCH, LENGTH, Border, Replay, Shape

    model = tiny("bert").eval()
    border = Border("bert.encoder", 0, Shape((BATCH, LENGTH, model.config.hidden_size), torch.float32))
    replay = Replay(model, border, {}, pixels=(), dense=False, bare=False)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert knows_no_padding(replay, inputs)
    seen = model.bert.embeddings.forward
    model.bert.embeddings.forward = lambda *args, **kwargs: (
        seen(*args, **kwargs) + ids.new_tensor(kwargs["input_ids"].shape[1])
    )
    assert not knows_no_padding(replay, inputs)
