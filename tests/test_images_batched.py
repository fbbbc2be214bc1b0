"""Random changes in one pass a batch on the device: the pixels of the sample-by-sample way, whatever the company."""

import pickle

import numpy as np
import pytest
import torch
from data_samples import PROCESSORS, photo, private_cache  # noqa: F401
from PIL import Image, ImageFilter
from test_data_augment import FULL, encoded, sharp
from test_step_sync import Readings
from torchvision.transforms import v2

from hf_finetune.data import collate_images, image_samples, normalized
from hf_finetune.data.augment import BASIC
from hf_finetune.data.batched_changes import CHANGES
from hf_finetune.data.batched_policies import _numbers, changed, recorded
from hf_finetune.data.batched_resize import blurred, cut_out
from hf_finetune.data.final_pixels import FinalPixels
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.schema import ImageAugment

BATCHED = [name for name in FULL if name != "aug_mix"]
STRENGTHS = {**FULL, "pad_crop": 4, "rotation": 40.0, "color_jitter": 0.5, "flip": 0.5, "grey": 0.5, "rand_augment": 9}
EVERYTHING = ImageAugment(**{name: STRENGTHS[name] for name in BATCHED if name != "erasing"}, erasing=0.5)
SIZES = ((60, 40), (20, 30), (90, 75), (300, 200), (48, 32))


def split(count=10, sizes=SIZES):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows = {
        "id": [100 + n for n in range(count)],
        "image": [{"bytes": encoded(sharp(n, sizes[n % len(sizes)])), "path": None} for n in range(count)],
        "label": [n % 3 for n in range(count)],
    }
    features = Features({"id": Value("int64"), "image": ImageFeature(decode=False), "label": Value("int64")})
    return Dataset.from_dict(rows, features=features)


def batch(augment, rows, *, on_device=True, processor="vit", seed=0, epoch=0, sizes=SIZES):
    """Rows as a model takes them, (N, C, H, W)."""
    samples = image_samples(
        split(max(rows) + 1, sizes), PROCESSORS[processor](), augment=augment, seed=seed, on_device=on_device
    )
    samples.set_epoch(epoch)
    return normalized(collate_images(samples.__getitems__(list(rows))))["pixel_values"]


def levels(pixels, processor="vit"):
    final = FinalPixels(PROCESSORS[processor]())
    return (pixels - final.offset) / final.scale


# --- the same pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processor", PROCESSORS)
def test_mirrored_images_are_the_processors_mirrored_to_the_last_bit(processor):
    plain = batch(None, range(6), on_device=False, processor=processor)
    assert torch.equal(batch(ImageAugment(flip=1), range(6), processor=processor), plain.flip(-1))
    assert torch.equal(batch(ImageAugment(vertical_flip=1), range(6), processor=processor), plain.flip(-2))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_no_change_leaves_the_evaluation_pixels(processor):
    plain = batch(None, range(6), on_device=False, processor=processor)
    assert torch.equal(batch(ImageAugment(), range(6), processor=processor), plain)
    hardly = ImageAugment(rotation=1e-9, color_jitter=1e-17, grey=1e-9, blur=1e-9, erasing=1e-9)
    found = batch(hardly, range(6), processor=processor)
    assert (levels(found, processor) - levels(plain, processor)).abs().max() < 1.01


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("name", [name for name in BATCHED if name != "erasing"])
def test_a_change_is_that_of_the_samples_to_a_few_levels(name, processor):
    augment = ImageAugment(**{name: STRENGTHS[name]})
    expected, found = (
        levels(
            batch(augment, range(10), on_device=way, processor=processor, sizes=((60, 40), (48, 32), (300, 200))),
            processor,
        )
        for way in (False, True)
    )
    difference = (expected - found).abs()
    if name == "blur":  # what lies beyond an edge is a blurred pixel to Pillow, and the last pixel to us
        difference = difference[..., 6:-6, 6:-6]
    assert difference.mean() < (0.6 if name == "blur" else 0.05)
    assert difference.flatten().quantile(0.999) < 2.01


def test_all_at_once_draw_what_the_samples_draw():
    augment = EVERYTHING.model_copy(update={"erasing": 0.0, "blur": 0.0})
    expected, found = (levels(batch(augment, range(20), on_device=way)) for way in (False, True))
    each = (expected - found).abs().mean(dim=(1, 2, 3))
    # A level that differs can be made forty by an equalized or posterized image.
    assert each.median() < 0.5 and (each < 3).float().mean() > 0.8


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("size", [(60, 40), (20, 30), (110, 75)])
def test_a_box_is_resized_as_by_pillow(resample, size):
    image = sharp(3, size)
    width, height = size
    boxes = [
        (0.0, 0.0, width, height),
        (0.2 * width, 0.1 * height, 0.9 * width, 0.95 * height),
        (1.5, 2.25, 17.3, 19.1),
    ]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).expand(3, -1, -1, -1)
    found = cut_out(pixels, torch.tensor(boxes), torch.tensor([[height, width]] * 3), (32, 48), resample)
    for box, mine in zip(boxes, found, strict=True):
        expected = np.asarray(image.resize((48, 32), Image.Resampling(resample), box=box)).astype(float)
        difference = np.abs(mine.permute(1, 2, 0).numpy() - expected)
        assert difference.mean() < 0.05 and difference.max() <= 3


def test_a_blur_is_pillows():
    image = sharp(1, (64, 48))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().expand(4, -1, -1, -1)
    radii = [0.0, 0.1, 0.9, 2.0]
    found = blurred(pixels, torch.tensor(radii))
    assert torch.equal(found[0], pixels[0])
    for radius, mine in zip(radii, found, strict=True):
        expected = np.asarray(image.filter(ImageFilter.GaussianBlur(radius))).astype(float)
        difference = np.abs(mine.permute(1, 2, 0).numpy() - expected)
        assert difference.mean() < 1 and difference[8:-8, 8:-8].max() <= 5


@pytest.mark.parametrize("policy", [v2.RandAugment, v2.TrivialAugmentWide])
def test_every_operation_of_the_policies_is_torchvisions(policy):
    smooth = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": [120, 110, 100]}
    transform, image = policy(**smooth), photo(2, (48, 32))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None]
    fill = torch.tensor(smooth["fill"]).float().view(3, 1, 1)
    for name, (magnitudes, signed) in policy._AUGMENTATION_SPACE.items():
        strengths = magnitudes(31, 32, 48)
        for strength in [0.0] if strengths is None else [float(strengths[at]) for at in (0, 9, 30)]:
            for sign in (1, -1) if signed else (1,):
                shown = transform._apply_image_or_video_transform(
                    image, name, sign * strength, transform.interpolation, transform._fill
                )
                drawn = torch.tensor([[_numbers(name, sign * strength, (32, 48))]])
                found = changed(pixels, drawn, fill)[0].permute(1, 2, 0).numpy()
                difference = np.abs(found - np.asarray(shown).astype(float))
                assert difference.mean() < 0.1 and difference.max() <= 2, (name, sign * strength)


def test_the_policies_draw_as_torchvision_draws():
    for policy in (v2.RandAugment(magnitude=9), v2.TrivialAugmentWide()):
        torch.manual_seed(3)
        first = [recorded(policy, (32, 48)) for _ in range(5)]
        after = torch.rand(1)
        torch.manual_seed(3)
        for _ in range(5):
            policy(photo(0, (48, 32)))
        assert torch.equal(torch.rand(1), after)
        assert len({array.tobytes() for array in first}) > 1
        assert policy(photo(0, (48, 32))).size == (48, 32)  # the transform itself is left as it was


# --- by (seed, epoch, id) alone --------------------------------------------------------------------------------------


def test_an_image_is_changed_alike_alone_and_in_any_company():
    expected = batch(EVERYTHING, range(10))
    for rows in ([3], [7, 2], [4, 9, 0, 1]):
        assert torch.equal(batch(EVERYTHING, rows), expected[rows])
    torch.manual_seed(5)
    assert torch.equal(batch(EVERYTHING, range(10)), expected)
    assert not torch.equal(batch(EVERYTHING, range(10), seed=1), expected)
    assert not torch.equal(batch(EVERYTHING, range(10), epoch=1), expected)


def test_a_large_batch_is_done_in_parts():
    alone = [batch(BASIC, [row]) for row in (0, 63, 64, 69)]
    assert torch.equal(batch(BASIC, range(70))[[0, 63, 64, 69]], torch.cat(alone))


@pytest.mark.parametrize("augment", [EVERYTHING, ImageAugment(flip=0.5)])
def test_workers_send_the_same_in_every_epoch(augment):
    samples = image_samples(split(8), PROCESSORS["vit"](), augment=augment, on_device=True)
    loader = torch.utils.data.DataLoader(
        samples, 2, num_workers=2, persistent_workers=True, collate_fn=collate_images, multiprocessing_context="fork"
    )
    for epoch in (0, 1):
        samples.set_epoch(epoch)
        seen = torch.cat([normalized(found)["pixel_values"] for found in loader])
        assert torch.equal(seen, batch(augment, range(8), epoch=epoch))


def test_random_numbers_of_others_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batch(EVERYTHING, range(4))
    assert torch.equal(torch.rand(3), expected)


# --- what travels, and what it costs ---------------------------------------------------------------------------------


def test_small_images_travel_as_they_are_and_large_ones_cut_out():
    samples = image_samples(split(5), PROCESSORS["vit"](), augment=BASIC, on_device=True)
    found = collate_images(samples.__getitems__([0, 1, 2, 4]))
    assert found["pixel_values"].dtype == torch.uint8 and found["pixel_values"].shape == (4, 3, 75, 90)
    assert samples[3]["pixel_values"].shape == (3, 32, 48)  # of 300 x 200
    moved = found[CHANGES].to("cpu", non_blocking=True)
    assert {name: value.shape[0] for name, value in moved.values.items()} == dict.fromkeys(moved.values, 4)
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(normalized(again)["pixel_values"], normalized(found)["pixel_values"])


def test_nothing_waits_for_the_device():
    samples = image_samples(split(4), PROCESSORS["vit"](), augment=EVERYTHING, on_device=True)
    found = collate_images(samples.__getitems__(range(4)))
    with Readings() as counter:
        normalized(found)
    assert counter.found == []


def test_erasing_fills_one_rectangle_with_noise():
    plain, erased = batch(ImageAugment(), range(30)), batch(ImageAugment(erasing=1), range(30))
    noise = []
    for before, after in zip(plain, erased, strict=True):
        gone = (before != after).any(0)
        assert gone.any() and gone[gone.any(1)][:, gone.any(0)].all()  # a rectangle
        assert 0.01 < gone.float().mean() < 0.4
        noise.append(after[:, gone].flatten())
    assert len({round(float(values[0]), 4) for values in noise}) == 30
    noise = torch.cat(noise)
    assert (
        abs(noise.mean()) < 0.02
        and abs(noise.std() - 1) < 0.02
        and abs((noise.abs() < 1).float().mean() - 0.683) < 0.02
    )
    neighbours = torch.corrcoef(torch.stack([noise[:-1], noise[1:]]))[0, 1]
    assert abs(neighbours) < 0.03
    half = batch(ImageAugment(erasing=0.5), range(60)) != batch(ImageAugment(), range(60))
    assert 0.25 < half.flatten(1).any(1).float().mean() < 0.75


# --- what a recipe may say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("digits", ("data.augment={aug_mix: 3}", "data.augment_on=device"), "aug_mix has no form for a whole batch"),
        ("digits", ("data.augment=none", "data.augment_on=device"), "nothing changes images here"),
        ("sst2", ("data.augment_on=device",), "says where images are changed"),
        ("digits", ("data.augment_on=gpu",), "auto"),
    ],
)
def test_what_cannot_be_is_refused_in_words(recipe, overrides, words):
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(recipe, *overrides)
    assert [fault.path for fault in caught.value.faults] == ["data.augment_on"]


def test_where_images_are_changed():
    from hf_finetune.training.random_changes import changed_on_device

    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    named = {
        place: load_recipe("digits", "data.augment=basic", f"data.augment_on={place}")
        for place in ("auto", "device", "samples")
    }
    assert changed_on_device(named["auto"], BASIC, gpu) and not changed_on_device(named["auto"], BASIC, cpu)
    assert changed_on_device(named["device"], BASIC, cpu) and not changed_on_device(named["samples"], BASIC, gpu)
    assert not changed_on_device(named["auto"], ImageAugment(aug_mix=3), gpu)
    assert not changed_on_device(named["device"], None, gpu)


def test_other_channels_are_refused():
    from transformers import ViTImageProcessor

    grey = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5], image_std=[0.5])
    with pytest.raises(UserError, match=r"data\.augment=none"):
        image_samples(split(), grey, augment=BASIC, on_device=True)
    with pytest.raises(UserError, match=r"data\.augment=none"):
        image_samples(split(), ViTImageProcessor(do_resize=False), augment=BASIC, on_device=True)


# --- in runs ---------------------------------------------------------------------------------------------------------


def test_a_run_says_where_and_kept_views_are_those_of_a_run_without_them(tmp_path, capsys):
    from cache_samples import run
    from test_cache_equal import assert_alike

    data = {"dataset": "none", "validation": "validation", "augment": {"crop": (0.6, 1.0), "flip": 0.5, "rotation": 20}}
    data["augment_on"] = "device"
    kept = run(tmp_path, "vit", "head", "kept", data=data, cache={"views": 2, "prefix": "on"})
    real = run(tmp_path, "vit", "head", "real", data=data, cache={"prefix": "off"})
    assert "rotation 20 (on CPU, by the batch)" in capsys.readouterr().out
    assert_alike(kept, real)
    # Kept features of images that were changed sample by sample are others.
    samples = run(
        tmp_path, "vit", "head", "samples", data={**data, "augment_on": "samples"}, cache={"views": 2, "prefix": "on"}
    )
    out = capsys.readouterr().out
    assert "by the batch" not in out and "they do not run at all" not in out
    # The same crops, flips and angles: only levels are rounded otherwise.
    assert samples.metrics["train"]["loss"] == pytest.approx(real.metrics["train"]["loss"], rel=0.02)


@pytest.mark.gpu
def test_a_gpu_gives_the_pixels_of_the_cpu():
    samples = image_samples(split(10), PROCESSORS["vit"](), augment=EVERYTHING, on_device=True)
    found = collate_images(samples.__getitems__(range(10)))
    there = {name: value.to("cuda") for name, value in found.items() if name != "labels"}
    here, there = normalized(found)["pixel_values"], normalized(there)["pixel_values"].cpu()
    assert (levels(here) - levels(there)).abs().flatten().quantile(0.99) < 1.01
