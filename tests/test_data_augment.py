"""Every named change of images and texts: it happens, at its strength, in its place, by (seed, epoch, id) alone."""

import pickle

import numpy as np
import pytest
import torch
from data_samples import PROCESSORS, encoded, photo, private_cache  # noqa: F401
from datasets import Dataset, Features, Image, Value
from PIL import Image as PilImage
from test_data_text_samples import rows as text_rows
from test_data_text_samples import tokenizer

from hf_finetune.data import collate_images, image_samples, normalized, text_samples
from hf_finetune.data.augment import operations_of
from hf_finetune.data.augment_text import hidden_words
from hf_finetune.data.final_pixels import FinalPixels
from hf_finetune.errors import RecipeError
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.schema import ImageAugment, TextAugment

FULL = {
    "crop": (0.3, 0.5),
    "pad_crop": 31,
    "flip": 1.0,
    "vertical_flip": 1.0,
    "rotation": 180.0,
    "color_jitter": 1.0,
    "grey": 1.0,
    "blur": 1.0,
    "rand_augment": 30,
    "trivial_augment": True,
    "aug_mix": 10,
    "erasing": 1.0,
}
OFF = {name: None if name == "crop" else 0 for name in FULL}
EVERYTHING = ImageAugment(**{**FULL, "pad_crop": 4, "rotation": 20, "color_jitter": 0.3, "flip": 0.5, "grey": 0.3})


def sharp(seed, size):
    """A picture of coloured squares, (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    return PilImage.fromarray(coarse).resize(size, PilImage.Resampling.NEAREST)


def split(count=6, size=(60, 40)):
    rows = {
        "id": [100 + n for n in range(count)],
        "image": [{"bytes": encoded(sharp(n, size)), "path": None} for n in range(count)],
        "label": [n % 3 for n in range(count)],
    }
    return Dataset.from_dict(
        rows, features=Features({"id": Value("int64"), "image": Image(decode=False), "label": Value("int64")})
    )


def pixels(augment, processor=None, count=6, seed=0, epoch=0):
    """Samples as one tensor (N, C, H, W)."""
    samples = image_samples(split(count), processor or PROCESSORS["vit"](), augment=augment, seed=seed)
    samples.set_epoch(epoch)
    return normalized(collate_images(samples.__getitems__(range(count))))["pixel_values"]


def test_the_list_of_names_is_the_recipes():
    assert list(FULL) == list(ImageAugment.model_fields)


@pytest.mark.parametrize("name", FULL)
def test_a_change_happens_at_full_strength_and_not_at_none(name):
    plain = pixels(None)
    torch.testing.assert_close(pixels(ImageAugment(**{name: OFF[name]})), plain, atol=1e-5, rtol=0)
    changed = pixels(ImageAugment(**{name: FULL[name]}))
    assert changed.shape == plain.shape and changed.dtype == torch.float32
    # TrivialAugment may draw the identity, or an operation at strength 0.
    different = (changed - plain).abs().amax(dim=(1, 2, 3)) > 0.01
    assert different.float().mean() >= (0.5 if name in ("trivial_augment", "rand_augment") else 1.0)


@pytest.mark.parametrize("name", PROCESSORS)
def test_no_change_leaves_the_processors_own_pixels(name):
    processor = PROCESSORS[name]()
    torch.testing.assert_close(pixels(ImageAugment(), processor), pixels(None, processor), atol=1e-5, rtol=0)
    assert pixels(EVERYTHING, processor).shape == pixels(None, processor).shape


def test_mirrored_images_are_the_processors_mirrored():
    plain = pixels(None)
    torch.testing.assert_close(pixels(ImageAugment(flip=1)), plain.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels(ImageAugment(vertical_flip=1)), plain.flip(-2), atol=1e-5, rtol=0)
    half = pixels(ImageAugment(flip=0.5), count=40)
    mirrored = ((half - pixels(None, count=40).flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-5).float().mean()
    assert 0.25 < mirrored < 0.75


def test_pad_crop_moves_the_image_by_pixels_of_32_and_fills_with_the_mean_color():
    plain, moved = pixels(None), pixels(ImageAugment(pad_crop=8))  # up to 8 of 32 rows and 12 of 48 columns
    shifts = []
    for before, after in zip(plain, moved, strict=True):
        found = [
            (down, across)
            for down in range(-8, 9)
            for across in range(-12, 13)
            if torch.allclose(inner(after, down, across), inner(before, -down, -across), atol=1e-5)
        ]
        assert len(found) == 1, found
        shifts += found
        down, across = found[0]
        outside = torch.ones(32, 48, dtype=torch.bool)
        outside[max(down, 0) : 32 + min(down, 0), max(across, 0) : 48 + min(across, 0)] = False
        assert after[:, outside].abs().max() < 0.01 if outside.any() else True
    assert len(set(shifts)) > 3


def inner(image, down, across):
    """What of an image moved by (down, across) was inside before."""
    height, width = image.shape[-2:]
    return image[:, max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)]


def test_grey_is_grey_and_erasing_replaces_one_rectangle():
    grey = pixels(ImageAugment(grey=1))
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    # Erasing comes last, so that everything before it is drawn alike with and without.
    before = {"flip": 0.5, "rotation": 20, "color_jitter": 0.5}
    kept, erased = pixels(ImageAugment(**before)), pixels(ImageAugment(**before, erasing=1))
    for one, other in zip(kept, erased, strict=True):
        gone = (one != other).any(0)
        assert gone.any() and gone[gone.any(1)][:, gone.any(0)].all()  # a rectangle
        assert 0.01 < gone.float().mean() < 0.4


def test_operations_come_in_the_order_of_the_recipes_keys():
    names = [type(operation).__name__ for operation in operations_of(EVERYTHING, FinalPixels(PROCESSORS["vit"]()))]
    assert names == [
        "RandomRotation",
        "ColorJitter",
        "RandomGrayscale",
        "RandomBlur",
        "RandAugment",
        "TrivialAugmentWide",
        "AugMix",
    ]


def test_changes_depend_on_seed_epoch_and_id_alone():
    expected = pixels(EVERYTHING)
    torch.manual_seed(5)
    torch.rand(7)
    assert torch.equal(pixels(EVERYTHING), expected)
    samples = image_samples(split().select([4, 1]), PROCESSORS["vit"](), augment=EVERYTHING)
    found = normalized(collate_images(samples.__getitems__([0, 1])))["pixel_values"]
    assert torch.equal(found[0], expected[4])
    assert torch.equal(found[1], expected[1])
    assert not torch.equal(pixels(EVERYTHING, seed=1), expected)
    assert not torch.equal(pixels(EVERYTHING, epoch=1), expected)


def test_random_numbers_of_others_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    pixels(EVERYTHING)
    assert torch.equal(torch.rand(3), expected)


def test_workers_give_the_same_pixels_in_every_epoch():
    samples = image_samples(split(8), PROCESSORS["vit"](), augment=EVERYTHING)
    loader = torch.utils.data.DataLoader(
        samples, 2, num_workers=2, persistent_workers=True, collate_fn=collate_images, multiprocessing_context="fork"
    )
    for epoch in (0, 1):
        samples.set_epoch(epoch)
        seen = torch.cat([normalized(batch)["pixel_values"] for batch in loader])
        assert torch.equal(seen, pixels(EVERYTHING, count=8, epoch=epoch))


def test_samples_travel_to_spawned_workers():
    samples = image_samples(split(2), PROCESSORS["vit"](), augment=EVERYTHING)
    again = pickle.loads(pickle.dumps(samples.augmentation))
    image = photo(0)
    here, there = (change([image], 0, [3])[0]["pixel_values"] for change in (samples.augmentation, again))
    assert torch.equal(here, there)


# --- texts -----------------------------------------------------------------------------------------------------------


def texts(augment, make=None, pair=False, seed=0, epoch=0, count=30):
    table = text_rows(count, pair).add_column("id", list(range(count)))
    samples = text_samples(table, make or with_mask(), augment=augment, seed=seed)
    samples.set_epoch(epoch)
    return [samples[n] for n in range(count)]


def with_mask(**options):
    made = tokenizer(**options)
    made.add_special_tokens({"mask_token": "[MASK]"})
    return made


def ids(samples):
    return [sample["input_ids"] for sample in samples]


def test_words_are_masked_and_special_tokens_never():
    make = with_mask()
    plain = texts(None, pair=True)
    hidden = texts(TextAugment(word_dropout=1, keep=0), pair=True)
    for before, after in zip(plain, hidden, strict=True):
        assert after["token_type_ids"] == before["token_type_ids"]
        for token, now in zip(before["input_ids"], after["input_ids"], strict=True):
            assert now == (token if token in (make.cls_token_id, make.sep_token_id) else make.mask_token_id)


def test_shares_are_as_said():
    rng = np.random.default_rng(0)
    words = hidden_words(20_000, TextAugment(word_dropout=0.2), rng)
    assert abs(words.mean() - 0.2) < 0.01
    starts = set()
    for _ in range(50):
        span = np.flatnonzero(hidden_words(20, TextAugment(span_dropout=0.3), rng))
        assert len(span) == 6 and span[-1] - span[0] == 5  # one run of neighbours
        starts.add(int(span[0]))
    assert min(starts) == 0 and max(starts) == 14


def test_keep_is_the_chance_of_an_unchanged_text():
    plain = ids(texts(None, count=200))
    assert ids(texts(TextAugment(word_dropout=1, keep=1), count=200)) == plain
    assert ids(texts(TextAugment(keep=0), count=200)) == plain  # nothing is named
    kept = [a == b for a, b in zip(ids(texts(TextAugment(word_dropout=1, keep=0.3), count=200)), plain, strict=True)]
    assert 0.2 < np.mean(kept) < 0.4


def test_without_a_mask_token_words_are_left_out_and_one_stays():
    plain = texts(None, tokenizer(), pair=True)
    half = texts(TextAugment(word_dropout=0.5, keep=0), tokenizer(), pair=True)
    none = texts(TextAugment(word_dropout=1, keep=0), tokenizer(), pair=True)
    for before, some, few in zip(plain, half, none, strict=True):
        assert len(few["input_ids"]) == 4  # [CLS], [SEP] twice, a word
        for after in (some, few):
            assert len({len(values) for name, values in after.items() if name != "labels"}) == 1
            left = iter(before["input_ids"])
            assert all(token in left for token in after["input_ids"])  # in the order they had


def test_text_changes_depend_on_seed_epoch_and_id_alone():
    augment = TextAugment(word_dropout=0.3, span_dropout=0.2, keep=0)
    expected = ids(texts(augment))
    np.random.seed(3)
    assert ids(texts(augment)) == expected
    assert ids(texts(augment, seed=1)) != expected and ids(texts(augment, epoch=1)) != expected
    table = text_rows(30).add_column("id", list(range(30))).select([9, 4])
    samples = text_samples(table, with_mask(), augment=augment)
    assert ids([samples[0], samples[1]]) == [expected[9], expected[4]]


# --- what a recipe may say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("data.augment={flp: 0.5}", "data.augment.flp", "did you mean data.augment.flip?"),
        ("data.augment.flp=0.5", "data.augment.flp", "did you mean data.augment.flip?"),
        ("data.augment={wrd_dropout: 0.5}", "data.augment.wrd_dropout", "did you mean data.augment.word_dropout?"),
        ("data.augment={flip: 2}", "data.augment.flip", "must be at most 1"),
        ("data.augment={flip: 0.5, word_dropout: 0.1}", "data.augment.word_dropout", "some are for images, some for"),
        ("data.augment=bsic", "data.augment", "did you mean basic?"),
        ("data.augment=null", "data.augment", "or changes by name such as {flip: 0.5}"),
        ("data.augment={word_dropout: 0.1}", "data.augment", "are for texts, and the task is image-classification"),
        ("data.augment={crop: [0.9, 0.5]}", "data.augment.crop", "the smallest share comes first, as in [0.5, 0.9]"),
        ("data.augment={rand_augment: 40}", "data.augment.rand_augment", "at most 30"),
        ("data.long_text=windows", "data.long_text", "windows are for texts"),
        ("evaluation.tta=flp", "evaluation.tta", "did you mean flip?"),
    ],
)
def test_what_cannot_be_is_refused_in_words(override, path, words):
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", override)
    assert [fault.path for fault in caught.value.faults] == [path] and words in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.augment={flip: 0.5}", "flip: for images, and the task is text-classification"),
        ("data.mixup=0.2", "tokens have no average"),
        ("data.cutmix=1", "tokens have no average"),
        ("evaluation.tta=flip", "views images, and the task is text-classification"),
    ],
)
def test_texts_have_no_changes_of_images(override, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("sst2", override)


def test_a_named_change_takes_the_place_of_basic():
    recipe = load_recipe("digits", "data.augment=basic", "data.augment.rotation=10")
    assert recipe.data.augment == ImageAugment(rotation=10)
    assert load_recipe("digits", "data.augment.flip=0.5").data.augment == ImageAugment(flip=0.5)  # the recipe says none


def test_a_recipe_with_changes_is_written_and_read(tmp_path):
    for augment in (EVERYTHING, ImageAugment(), TextAugment(word_dropout=0.1)):
        texts = isinstance(augment, TextAugment)
        recipe = load_recipe("sst2" if texts else "digits")
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"augment": augment})})
        (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
        assert load_recipe(str(tmp_path / "recipe.yaml")).data.augment == augment
