"""Pixels are the processor's own; augmentation depends on (seed, epoch, id) and nothing else."""

import numpy as np
import pytest
import torch
from data_samples import PROCESSORS, encoded, image_recipe, photo, private_cache  # noqa: F401
from datasets import Dataset, Features, Image, Value
from transformers import ViTImageProcessor

from hf_finetune.data import collate_images, decode_image, image_samples, load_data, normalized
from hf_finetune.data.augment import BASIC
from hf_finetune.errors import UserError


def split(count=10, size=(40, 30)):
    rows = {
        "id": [100 + n for n in range(count)],
        "image": [{"bytes": encoded(photo(n, size)), "path": None} for n in range(count)],
        "label": [n % 3 for n in range(count)],
    }
    return Dataset.from_dict(
        rows, features=Features({"id": Value("int64"), "image": Image(decode=False), "label": Value("int64")})
    )


def pixels(sample):
    """One sample as the model takes it."""
    return normalized(collate_images([sample]))["pixel_values"][0]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(40, 30), (32, 32), (17, 90)])
def test_evaluation_pixels_are_the_processors_alone_and_in_company(name, size):
    processor, rows = PROCESSORS[name](), split(6, size)
    samples = image_samples(rows, processor, seed=0)
    batch = samples.__getitems__([4, 0, 5])
    for place, index in enumerate((4, 0, 5)):
        expected = processor(decode_image(rows[index]["image"]), return_tensors="pt")["pixel_values"][0]
        for sample in (samples[index], batch[place]):
            torch.testing.assert_close(pixels(sample), expected, atol=5e-7, rtol=0)
            assert sample["labels"] == index % 3 and sample["labels"].dtype == torch.int64


def test_images_of_mixed_sizes_in_one_batch():
    rows = Dataset.from_dict({"image": [photo(n, (20 + 7 * n, 30)) for n in range(6)]}).cast_column(
        "image", Image(decode=False)
    )
    processor = PROCESSORS["vit"]()
    batch = collate_images(image_samples(rows, processor).__getitems__(range(6)))
    assert set(batch) == {"pixel_values", "normalization"} and batch["pixel_values"].shape == (6, 3, 32, 48)
    for n in range(6):
        alone = processor(decode_image(rows[n]["image"]), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(normalized(batch)["pixel_values"][n], alone, atol=5e-7, rtol=0)


@pytest.mark.parametrize("name", PROCESSORS)
def test_augmented_pixels_have_the_processors_size_and_scale(name):
    processor, rows = PROCESSORS[name](), split()
    plain = image_samples(rows, processor, seed=0)
    augmented = image_samples(rows, processor, augment=BASIC, seed=0)
    assert augmented[3]["pixel_values"].shape == plain[3]["pixel_values"].shape
    assert not torch.equal(augmented[3]["pixel_values"], plain[3]["pixel_values"])
    flat = Dataset.from_dict(
        {"id": [0], "image": [{"bytes": encoded(photo().resize((1, 1)).resize((9, 9))), "path": None}]}
    )
    flat = flat.cast_column("image", Image(decode=False))
    one, other = (pixels(image_samples(flat, processor, augment=on, seed=0)[0]) for on in (BASIC, None))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_an_augmentation_depends_on_seed_epoch_and_id_alone():
    processor, rows = PROCESSORS["vit"](), split()
    first = image_samples(rows, processor, augment=BASIC, seed=0)
    expected = [first[n]["pixel_values"] for n in range(len(rows))]
    torch.manual_seed(123)
    np.random.seed(7)
    shuffled = image_samples(rows.select([7, 3, 9]), processor, augment=BASIC, seed=0)
    for place, index in enumerate((7, 3, 9)):
        assert torch.equal(shuffled[place]["pixel_values"], expected[index])
    other_seed = image_samples(rows, processor, augment=BASIC, seed=1)
    assert not torch.equal(other_seed[0]["pixel_values"], expected[0])
    first.set_epoch(1)
    assert not torch.equal(first[0]["pixel_values"], expected[0])
    first.set_epoch(0)
    assert torch.equal(first[0]["pixel_values"], expected[0])


def test_random_numbers_of_others_are_left_alone():
    samples = image_samples(split(), PROCESSORS["vit"](), augment=BASIC, seed=0)
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    samples.__getitems__(range(5))
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_that_stay_see_the_next_epoch(context):
    samples = image_samples(split(8), PROCESSORS["vit"](), augment=BASIC, seed=0)
    loader = torch.utils.data.DataLoader(
        samples, 4, num_workers=1, persistent_workers=True, collate_fn=collate_images, multiprocessing_context=context
    )
    for epoch in (0, 1):
        samples.set_epoch(epoch)
        seen = torch.cat([batch["pixel_values"] for batch in loader])
        here = torch.stack([samples[n]["pixel_values"] for n in range(8)])
        assert torch.equal(seen, here)


def test_flips_and_crops_happen_about_as_often_as_they_should():
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    rows = Dataset.from_dict(
        {"id": list(range(300)), "image": [{"bytes": encoded(image), "path": None} for image in [PilImage(ramp)] * 300]}
    )
    rows = rows.cast_column("image", Image(decode=False))
    samples = image_samples(rows, PROCESSORS["vit"](), augment=BASIC, seed=0)
    shown = normalized(collate_images(samples.__getitems__(range(300))))["pixel_values"][:, 0]
    flipped = (shown[:, 16, 0] > shown[:, 16, -1]).float().mean()
    assert 0.4 < flipped < 0.6
    widths = (shown[:, 16, 0] - shown[:, 16, -1]).abs() / 2  # share of the ramp that is seen
    assert 0.6 < widths.min() < 0.72 and widths.max() > 0.9


def PilImage(array):
    from PIL import Image as Pil

    return Pil.fromarray(array)


@pytest.mark.parametrize(
    ("label", "dtype", "shape"), [(2, torch.int64, ()), (0.5, torch.float32, ()), ([0.0, 1.0], torch.float32, (2,))]
)
def test_labels_of_every_problem(label, dtype, shape):
    rows = split(2).remove_columns("label").add_column("label", [label, label])
    batch = collate_images(image_samples(rows, PROCESSORS["vit"]()).__getitems__([0, 1]))
    assert batch["labels"].dtype == dtype and batch["labels"].shape == (2, *shape)


def test_a_processor_without_a_fixed_size():
    processor = ViTImageProcessor(do_resize=False)
    with pytest.raises(UserError, match=r"data\.augment=none"):
        image_samples(split(), processor, augment=BASIC, seed=0)
    rows = Dataset.from_dict({"image": [photo(0, (20, 20)), photo(1, (30, 20))]}).cast_column(
        "image", Image(decode=False)
    )
    samples = image_samples(rows, processor)
    with pytest.raises(UserError, match="different sizes"):
        collate_images([samples[0], samples[1]])


def test_regression_on_images_from_end_to_end():
    pictures = Dataset.from_dict({"image": [photo(n) for n in range(12)], "count": [float(n) for n in range(12)]})
    task = load_data(image_recipe("memory", test_split=None), pictures)
    sample = image_samples(task.train, PROCESSORS["vit"]())[0]
    assert sample["labels"] == float(task.train[0]["id"]) and sample["labels"].dtype == torch.float32
