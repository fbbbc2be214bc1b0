"""Images of other than three channels: grey, RGBA, and arrays, from the column to the model and the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Array3D, ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from model_samples import save_checkpoint
from PIL import Image
from surgery_samples import changed

from hf_finetune import finetune
from hf_finetune.data import image_samples
from hf_finetune.data.bands import decode_channels, encode_arrays, pixels_of
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import Recipe


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_images_take_the_mode_of_so_many_channels(channels, mode):
    image = Image.new("RGBA", (4, 3), (10, 20, 30, 40))
    assert decode_channels(image, channels).mode == mode
    assert decode_channels(np.zeros((channels, 3, 4), np.uint8), channels).mode == mode
    assert decode_channels(np.zeros((3, 4, channels), np.uint8), channels).size == (4, 3)
    if channels == 4:
        assert decode_channels(image, 4).getpixel((0, 0)) == (10, 20, 30, 40)


def test_arrays_of_every_number_type_are_levels_of_0_to_255(tmp_path):
    levels = np.arange(13 * 6, dtype=np.uint8).reshape(13, 2, 3)
    for array in (levels, levels.astype(np.uint16) * 257, levels.astype(np.float32) / 255, levels.transpose(1, 2, 0)):
        np.testing.assert_allclose(decode_channels(array, 13), levels, atol=1e-4)
        np.save(tmp_path / "bands.npy", array)
        np.testing.assert_allclose(decode_channels(str(tmp_path / "bands.npy"), 13), levels, atol=1e-4)
        content = (tmp_path / "bands.npy").read_bytes()
        np.testing.assert_allclose(decode_channels({"bytes": content, "path": None}, 13), levels, atol=1e-4)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((12, 4, 4), np.uint8), r"shape \(12, 4, 4\), and the model takes 13 channels"),
        (np.full((13, 4, 4), 300.0), "holds 300 to 300: floats are 0 to 1"),
        (np.full((13, 4, 4), np.nan), "holds nan"),
        (Image.new("RGB", (4, 4)), "it is an image, and the model takes 13 channels"),
        (b"\x93NUMPY\x01\x00", "the array cannot be read"),
    ],
)
def test_what_does_not_fit_is_said(value, words):
    with pytest.raises(OSError, match=words):
        decode_channels(value, 13)


def test_pickled_arrays_are_not_opened(tmp_path):
    np.save(tmp_path / "bands.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(OSError, match="cannot be read"):
        decode_channels(tmp_path / "bands.npy", 13)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_columns_of_arrays_keep_their_type(kind):
    array = (np.random.default_rng(0).random((13, 2, 2)) * (1 if kind == "float32" else 200)).astype(kind)
    features = Features({"image": Array3D((13, 2, 2), kind)})
    row = encode_arrays(Dataset.from_dict({"image": [array]}, features=features), "image")[0]
    np.testing.assert_allclose(decode_channels(row["image"], 13), decode_channels(array, 13))
    lists = encode_arrays(Dataset.from_dict({"image": [[[[7, 200]] * 3] * 13]}), "image")[0]
    assert decode_channels(lists["image"], 13).dtype == np.uint8


@pytest.mark.parametrize("family", ["vit", "timm_resnet"])
def test_arrays_are_normalized_as_images_are(family, tmp_path):
    processor = changed(family, tmp_path, in_channels=4).processor
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 4), dtype=np.uint8), "RGBA")
    [expected] = pixels_of(processor, [image])
    [found] = pixels_of(processor, [np.asarray(image).transpose(2, 0, 1)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_images_for_another_number_of_channels_stop_before_training(tmp_path):
    processor = changed("vit", tmp_path, in_channels=13).processor
    rows = Dataset.from_dict({"image": [Image.new("RGB", (8, 8))]}).cast_column("image", ImageFeature(decode=False))
    with pytest.raises(UserError, match=r"Row 0 .* the model takes 13 channels.* say model.in_channels=N"):
        image_samples(rows, processor)


@pytest.mark.parametrize(("family", "channels"), [("vit", 13), ("timm_resnet", 13), ("vit", 1), ("timm_resnet", 4)])
def test_a_run_on_other_channels_predicts_as_it_scored(family, channels, tmp_path):
    save_checkpoint(family, tmp_path / "checkpoint")
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 255, (24, channels, 20, 20), dtype=np.uint8)
    labels = ClassLabel(names=["dark", "light"])
    if channels == 13:
        features = Features({"image": Array3D((channels, 20, 20), "uint8"), "label": labels})
        images = list(arrays)
    else:
        features = Features({"image": ImageFeature(), "label": labels})
        images = [decode_channels(array, channels) for array in arrays]
    rows = Dataset.from_dict({"image": images, "label": [row % 2 for row in range(24)]}, features=features)
    recipe = Recipe.model_validate(
        {
            "task": "image-classification",
            "model": {"checkpoint": str(tmp_path / "checkpoint"), "in_channels": channels, "image_size": 32},
            "data": {"dataset": "memory", "test_split": 0.25, "validation": 0.25},
            "training": {"num_train_epochs": 1, "report_to": "none"},
            "output_dir": str(tmp_path / "run"),
        }
    )
    run = finetune(recipe, data=rows)
    assert run.metrics["test"]["samples"] == 6
    answers = run.predict(images[:3])
    assert len(answers) == 3
    import pandas as pd

    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    tested = int(table["id"][0])
    again = run.predict(images[tested])
    assert again["label"] == table["prediction"][0]
