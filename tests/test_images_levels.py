"""Golden pixels: levels, normalized on the device, are AutoImageProcessor's pixels, for every family."""

import numpy as np
import pytest
import torch
import transformers
from data_samples import PROCESSORS, photo
from PIL import Image
from transformers import AutoImageProcessor

from hf_finetune.data import collate_images, normalized
from hf_finetune.data.image_samples import Preprocessing
from hf_finetune.data.levels import Levels

FAMILIES = (
    "ViT",
    "DeiT",
    "Beit",
    "CLIP",
    "Siglip",
    "ConvNext",
    "MobileNetV2",
    "MobileViT",
    "EfficientNet",
    "Bit",
    "Levit",
)
REAL = ("WinKawaks/vit-tiny-patch16-224", "google/mobilenet_v2_1.0_224", "timm/tf_efficientnet_lite0.in1k")


def noise(size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def images():
    return [photo(0, (32, 32)), noise((32, 32)), photo(1, (300, 200)), noise((130, 401)), photo(2, (32, 32))]


def difference(processor, shown):
    """The largest difference to the processor's pixels, where white minus black is some 4 to 5."""
    expected = torch.stack(list(processor(shown, return_tensors="pt")["pixel_values"]))
    batch = collate_images(Preprocessing(processor)(shown))
    assert batch["pixel_values"].dtype == torch.uint8
    found = normalized(batch)["pixel_values"]
    assert found.dtype == torch.float32 and found.is_contiguous()
    return (found - expected).abs().max().item()


@pytest.mark.parametrize("ending", ["ImageProcessor", "ImageProcessorPil"])
@pytest.mark.parametrize("family", FAMILIES)
def test_levels_normalized_are_the_processors_pixels(family, ending):
    assert difference(getattr(transformers, family + ending)(), images()) < 1e-6


@pytest.mark.parametrize("name", PROCESSORS)
def test_an_image_has_the_same_levels_alone_and_in_company(name):
    make = Levels.of(PROCESSORS[name]())
    together = make(images())
    for image, levels in zip(images(), together, strict=True):
        assert torch.equal(make([image])[0], levels)


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_levels_of_real_checkpoints_and_real_images(name):
    from datasets import load_dataset

    small = load_dataset("uoft-cs/cifar10", split="test[:64]")["img"][:]
    photos = load_dataset("local/ants_bees", split="validation[:24]")["image"][:]
    processor = AutoImageProcessor.from_pretrained(name)
    assert difference(processor, small) < 1e-6
    assert difference(processor, [image.convert("RGB") for image in photos]) < 1e-6


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_a_real_model_gives_the_same_answers(name):
    from datasets import load_dataset
    from transformers import AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(name)
    model = AutoModelForImageClassification.from_pretrained(name).eval()
    photos = [image.convert("RGB") for image in load_dataset("local/ants_bees", split="validation[:24]")["image"][:]]
    with torch.no_grad():
        expected = model(pixel_values=torch.stack(list(processor(photos, return_tensors="pt")["pixel_values"]))).logits
        found = model(**normalized(collate_images(Preprocessing(processor)(photos)))).logits
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_a_processor_whose_pixels_are_no_levels_is_left_as_it_is():
    class Squared(transformers.ViTImageProcessor):
        def __call__(self, *args, **kwargs):
            found = super().__call__(*args, **kwargs)
            found["pixel_values"] = found["pixel_values"].square()
            return found

    processor = Squared(size={"height": 32, "width": 32})
    assert Levels.of(processor) is None
    [sample] = Preprocessing(processor)([photo(0)])
    assert set(sample) == {"pixel_values"}
    assert torch.equal(sample["pixel_values"], processor(photo(0), return_tensors="pt")["pixel_values"][0])


def test_a_processor_that_was_changed_has_other_levels():
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    assert Levels.of(processor)([photo(0)])[0].shape == (3, 32, 32)
    processor.size = {"height": 48, "width": 64}
    processor.image_mean = [0.1, 0.2, 0.3]
    assert Levels.of(processor)([photo(0)])[0].shape == (3, 48, 64)
    assert difference(processor, images()) < 1e-6


def test_texts_and_pixels_that_are_finished_pass_as_they_are():
    given = {"input_ids": torch.ones(2, 3), "labels": torch.zeros(2)}
    assert normalized(given) == given
    finished = torch.randn(2, 3, 8, 8)
    assert normalized({"pixel_values": finished})["pixel_values"] is finished
