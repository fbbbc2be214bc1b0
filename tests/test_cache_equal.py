"""What is learned from kept features is what is learned without: the same weights, the same scores."""

from __future__ import annotations

import pytest
import torch
from cache_samples import run, weights_of

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
