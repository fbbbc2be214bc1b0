"""Four channels: what an alpha channel shows counts in cleaning and for the doctor, as the model is shown it."""

import numpy as np
import pytest
from data_samples import encoded, photo, private_cache  # noqa: F401
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as Pillow

from hf_finetune.advice import examine
from hf_finetune.data import load_data
from hf_finetune.recipes.schema import Recipe

CLEAR = Pillow.new("RGBA", (32, 32), (0, 0, 0, 0))


def four(clean=None, channels=4, **data):
    data = {"dataset": "memory", "validation": "validation", "test_split": None, "clean": clean, **data}
    model = {"checkpoint": "/nowhere", "in_channels": channels}
    return Recipe(task="image-classification", model=model, data=data)


def masked(image, seed):
    """The picture in another shape for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 2, (4, 4), dtype=np.uint8) * 255
    cut = image.convert("RGBA")
    cut.putalpha(Pillow.fromarray(coarse).resize(image.size, Pillow.Resampling.NEAREST))
    return cut


def source(train):
    features = Features({"image": Image(), "label": ClassLabel(names=["ants", "bees"])})
    splits = {"train": train, "validation": [photo(seed) for seed in range(100, 108)]}
    content = {name: [{"bytes": encoded(p), "path": None} for p in pictures] for name, pictures in splits.items()}
    return DatasetDict(
        {
            name: Dataset.from_dict({"image": rows, "label": [n % 2 for n in range(len(rows))]}, features=features)
            for name, rows in content.items()
        }
    )


def kinds(task):
    return [row["kind"] for row in task.cleaning.dropped]


def test_wholly_transparent_images_are_empty():
    pictures = [CLEAR if n % 3 == 0 else masked(photo(n), n) for n in range(20)]
    task = load_data(four({"empty": True, "duplicates": False}), source(pictures))
    assert kinds(task) == ["empty"] * 7 and len(task.train) == 13


@pytest.mark.parametrize("picture", [photo(7, (32, 32)), CLEAR], ids=["photo", "one colour"])
def test_images_that_differ_in_alpha_alone_are_no_near_copies(picture):
    """Of one colour, too: icons whose shape is in the alpha channel."""
    data = source([masked(picture, seed) for seed in range(20)])
    task = load_data(four({"near_duplicates": 4}), data)
    assert kinds(task) == [] and len(task.train) == 20
    assert "near_duplicates, for their alpha channel: 20" in task.cleaning.in_words()
    section = examine(four(), data=data)["Copies"]
    assert section.facts["near"] == [] and "20 images with an alpha channel" in section.lines[-1]


def test_opaque_images_are_compared_with_four_channels_as_with_three():
    pictures = [photo(seed, (120, 90)) for seed in range(12)]
    data = source([*pictures, pictures[4].resize((60, 45)).convert("RGBA"), masked(pictures[5], 0)])
    task = load_data(four({"near_duplicates": 4}), data)
    assert [row["row"] for row in task.cleaning.dropped] == [12]
    assert [pair["row"] for pair in examine(four(), data=data)["Copies"].facts["near"]] == [12]
    three = load_data(four({"near_duplicates": 4, "duplicates": False}, channels=None), data)
    assert [row["row"] for row in three.cleaning.dropped] == [12, 13] and not three.cleaning.not_compared
