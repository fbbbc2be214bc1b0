"""Features are found again where they would be the same, and only there."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from cache_samples import data_for, recipe_of, run

from hf_finetune import finetune
from hf_finetune import prefix_store as store
from hf_finetune.model.replay import BATCH, Border, Shape
from hf_finetune.training import prefix_key
from hf_finetune.training.prefix_key import key_of, number_facts, place_of

CPU = torch.device("cpu")
FACTS = {"precision": "fp32", "dtype": "fp32", "change": "", "numbers": number_facts(CPU, False)}


class Processor:
    def to_dict(self):
        return {"size": 4}


def key(place=("vit.layers.2", 0, (-1, 4), "torch.float32"), **facts):
    return key_of("weights", place, object(), Processor(), "data", **{**FACTS, **facts})


def test_the_same_facts_are_the_same_key():
    assert key() == key()


@pytest.mark.parametrize(
    "facts",
    [
        {"numbers": number_facts(CPU, True)},
        {"numbers": number_facts(torch.device("cuda"), False)},
        {"numbers": {**FACTS["numbers"], "fp32 products": ("high", True, "MKL")}},
        {"precision": "bf16"},
        {"dtype": "bf16"},
        {"change": "flips"},
        {"place": ("vit.layers.1", 0, (-1, 4), "torch.float32")},
        {"place": ("vit.layers.2", "hidden_states", (-1, 4), "torch.float32")},
        {"place": ("vit.layers.2", 0, (-1, 5), "torch.float32")},
    ],
    ids=str,
)
def test_another_number_format_or_place_is_another_key(facts):
    assert key(**facts) != key()


@pytest.mark.parametrize("library", ["torch", "transformers", "timm", "torchvision", "pillow"])
def test_another_version_of_what_makes_the_numbers_is_another_key(monkeypatch, library):
    before, version = key(), prefix_key.version
    monkeypatch.setattr(prefix_key, "version", lambda name: "0" if name == library else version(name))
    assert key() != before


def test_the_choice_of_products_is_a_fact(monkeypatch):
    before = number_facts(CPU, False)
    monkeypatch.setattr(prefix_key, "library_in_use", lambda: "another")
    assert number_facts(CPU, False) != before
    assert key(numbers=number_facts(CPU, False)) != key(numbers=before)


def test_a_custom_head_changes_no_name(tmp_path):
    from hf_finetune.model.custom_head import CustomHeadConfig

    class Plain(torch.nn.Module):
        config = object()

    class Wrapped(torch.nn.Module):
        config = CustomHeadConfig()

    shape = Shape((BATCH, 4), torch.float32)
    assert place_of(Plain(), Border("vit.a", 0, shape)) == place_of(Wrapped(), Border("model.vit.a", 0, shape))
    assert place_of(Plain(), Border("vit.a", 0, shape)) != place_of(Plain(), Border("vit.b", 0, shape))


def settings(config):
    model = torch.nn.Module()
    model.config = config
    return prefix_key.settings_of(model)


def test_labels_of_a_timm_model_change_no_features():
    from transformers import TimmWrapperConfig

    first, second = (
        TimmWrapperConfig.from_dict({"architecture": "resnet18", "num_classes": len(names), "label_names": names})
        for names in (["ant", "bee"], ["cat", "dog", "eel"])
    )
    assert first.to_dict() != second.to_dict()
    assert settings(first) == settings(second)


def test_another_pooling_makes_other_features():
    from transformers import ViTConfig

    from hf_finetune.model.custom_head import CustomHeadConfig

    base = ViTConfig().to_dict()
    mean, greatest = (CustomHeadConfig(base=base, pooling=pooling) for pooling in ("mean", "max"))
    assert settings(mean) != settings(greatest)
    wide = CustomHeadConfig(base=base, head={"kind": "mlp"}, pooling="mean")
    assert settings(wide) == settings(mean)
    assert settings(CustomHeadConfig(base=base, head={"kind": "mlp"})) == settings(ViTConfig())


@pytest.mark.slow
def test_each_pooling_keeps_its_own_features(tmp_path, capsys):
    for number, pooling in enumerate(("mean", "max", "mean")):
        recipe = recipe_of(tmp_path, "vit", "head", f"run{number}")
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"pooling": pooling})})
        finetune(recipe, data=data_for("vit"), precision="no")
        said = capsys.readouterr().out
        assert ("kept from an earlier run" in said) == (number == 2)
        assert "computed again" not in said


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_the_same_rows_are_filled_once(tmp_path, capsys, family):
    """Validation and test are the same rows: of one content, two splits have one entry."""
    data = data_for(family)
    data = datasets.DatasetDict(train=data["train"], validation=data["validation"], test=data["validation"])
    finished = finetune(recipe_of(tmp_path, family, "head", "run"), data=data, precision="no")
    assert len(store.entries()) == 2
    assert f"{24 + 9} samples in" in capsys.readouterr().out
    assert finished.metrics["test"]["loss"] == pytest.approx(finished.metrics["validation"]["loss"], rel=1e-5)


def test_other_labels_of_the_same_images_find_their_features(tmp_path, capsys):
    run(tmp_path, "vit", "head", "first")
    data = data_for("vit")
    others = {name: split.remove_columns("label") for name, split in data.items()}
    others = {name: split.add_column("label", [n % 2 for n in range(len(split))]) for name, split in others.items()}
    capsys.readouterr()
    finetune(recipe_of(tmp_path, "vit", "head", "second"), data=datasets.DatasetDict(others), precision="no")
    assert "kept from an earlier run" in capsys.readouterr().out


def test_rows_in_another_order_are_others(tmp_path, capsys):
    run(tmp_path, "vit", "head", "first")
    data = data_for("vit")
    data["test"] = data["test"].select(range(9, -1, -1))
    capsys.readouterr()
    finetune(recipe_of(tmp_path, "vit", "head", "second"), data=data, precision="no")
    assert "2 of 3 splits kept from an earlier run" in capsys.readouterr().out


@pytest.mark.slow
def test_another_alpha_channel_is_another_image(tmp_path, capsys):
    def seen(alpha):
        def put(row, place):
            image = row["image"].convert("RGBA")
            image.putalpha(alpha if place == 1 else 255)  # none of the three rows that are looked at again
            return {"image": image}

        return data_for("vit").map(put, with_indices=True)

    def probabilities(name, data):
        model = {"checkpoint": str(tmp_path / "vit"), "in_channels": 4}
        finetune(recipe_of(tmp_path, "vit", "head", name, model=model), data=data, precision="no")
        return pd.read_parquet(tmp_path / name / "predictions.parquet")["probabilities"].tolist()

    data = seen(255)
    before = probabilities("first", data)
    data["test"] = seen(40)["test"]
    capsys.readouterr()
    after = probabilities("second", data)
    assert "2 of 3 splits kept from an earlier run" in capsys.readouterr().out
    assert not np.allclose(before[1], after[1], atol=1e-4)
    np.testing.assert_allclose(before[2:], after[2:], atol=1e-5)
