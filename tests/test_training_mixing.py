"""mixup and CutMix: labels in the shares of the pixels, the same numbers after a resume, none at alpha 0."""

import numpy as np
import pytest
import torch
from data_samples import encoded, photo, private_cache  # noqa: F401
from datasets import Dataset, Features, Image, Value
from test_training_trainer import train_and_interrupt
from trainer_samples import trainer, weights
from transformers import ViTImageProcessor

from hf_finetune.data import LabelSpace, collate_images, image_samples
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import ImageAugment, Loss, Recipe
from hf_finetune.training.losses import training_loss
from hf_finetune.training.mixing import Mixing, changes_in_words, with_box

CLASSES = 4
SINGLE = LabelSpace("single_label_classification", tuple("abcd"))


def flat_batch(size=16, channels=3, side=20):
    """Images of one value each, the number of their class."""
    labels = torch.arange(size) % CLASSES
    pixels = labels.float().view(-1, 1, 1, 1).expand(-1, channels, side, side + 4).clone()
    return {"pixel_values": pixels, "labels": labels}


def recipe(loss="auto", **data):
    return Recipe(
        task="image-classification",
        model={"checkpoint": "none"},
        data={"dataset": "none", **data},
        loss={"kind": loss},
        seed=3,
    )


def test_alpha_0_is_none():
    assert Mixing.of(recipe(mixup=0, cutmix=0), SINGLE) is None
    assert Mixing.of(recipe(mixup=0.2), SINGLE) == Mixing(0.2, 0.0, CLASSES, 3)


def test_mixup_labels_are_the_shares_of_the_pixels():
    mixing = Mixing(1.0, 0.0, CLASSES, seed=0)
    shares = []
    for step in range(20):
        mixed = mixing(flat_batch(), step)
        labels, values = mixed["labels"], mixed["pixel_values"]
        assert labels.shape == (16, CLASSES) and labels.dtype == torch.float32
        torch.testing.assert_close(labels.sum(1), torch.ones(16))
        # A pixel is share x its class + (1 - share) x the other's; so is the label's mean class.
        torch.testing.assert_close(values[:, 0, 0, 0], labels @ torch.arange(4.0))
        assert (values == values[:, :1, :1, :1]).all()
        shares.append(float(labels[0, 0]))
    assert np.std(shares) > 0.1 and 0.3 < np.mean(shares) < 0.9


def test_cutmix_labels_are_the_shares_of_the_area():
    mixing = Mixing(0.0, 1.0, CLASSES, seed=0)
    covered = []
    for step in range(30):
        mixed = mixing(flat_batch(), step)
        for pixels, label in zip(mixed["pixel_values"], mixed["labels"], strict=True):
            area = torch.stack([(pixels[0] == number).float().mean() for number in range(CLASSES)])
            torch.testing.assert_close(label, area)
        covered.append(float(1 - mixed["labels"][0, 0]))
    assert min(covered) < 0.1 and max(covered) > 0.3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_box_counts_what_lies_inside(share):
    one, other = torch.zeros(2, 3, 11, 17), torch.ones(2, 3, 11, 17)
    rng = np.random.default_rng(0)
    for _ in range(50):
        mixed, left = with_box(one, other, share, rng)
        assert float(1 - mixed.mean()) == pytest.approx(left, abs=1e-6)
        assert left >= share - 0.1 and not (share == 1.0 and left < 1)
    assert one.sum() == 0  # the given images are left alone


def test_where_both_are_given_batches_take_either():
    mixing = Mixing(1.0, 1.0, CLASSES, seed=0)
    flat = [
        bool((mixed["pixel_values"] == mixed["pixel_values"][:, :, :1, :1]).all())
        for mixed in (mixing(flat_batch(), step) for step in range(40))
    ]
    assert 10 <= sum(flat) <= 30


def test_numbers_depend_on_seed_step_and_place_in_the_step():
    def mixed(mixing, step):
        return mixing(flat_batch(), step)["pixel_values"]

    through = Mixing(0.5, 0.5, CLASSES, seed=1)
    seen = {(step, place): mixed(through, step) for step in range(4) for place in range(2)}
    resumed = Mixing(0.5, 0.5, CLASSES, seed=1)
    torch.manual_seed(99)
    assert torch.equal(mixed(resumed, 2), seen[2, 0]) and torch.equal(mixed(resumed, 2), seen[2, 1])
    assert not torch.equal(seen[2, 0], seen[2, 1]) and not torch.equal(seen[2, 0], seen[3, 0])
    assert not torch.equal(mixed(Mixing(0.5, 0.5, CLASSES, seed=2), 2), seen[2, 0])


def test_multi_label_and_regression_targets_are_mixed_as_they_are():
    batch = flat_batch()
    values = batch["labels"].float()
    mixing = Mixing.of(recipe(mixup=1.0), LabelSpace("regression", ("size",)))
    mixed = mixing({**batch, "labels": values}, 0)
    assert mixed["labels"].shape == (16,)
    torch.testing.assert_close(mixed["pixel_values"][:, 0, 0, 0], mixed["labels"])
    many = Mixing.of(recipe(cutmix=1.0), LabelSpace("multi_label_classification", tuple("abcd")))
    mixed = many({**batch, "labels": torch.eye(CLASSES)[batch["labels"]]}, 0)
    torch.testing.assert_close(mixed["pixel_values"].mean((1, 2, 3)), mixed["labels"] @ torch.arange(4.0))


def test_cutmix_of_numbers_is_refused_before_and_after_the_data_is_known():
    with pytest.raises(UserError, match=r"data\.cutmix: cutmix mixes labels by the area"):
        Mixing.of(recipe(cutmix=1.0), LabelSpace("regression", ("size",)))
    with pytest.raises(ValueError, match="cutmix mixes labels by the area"):
        recipe(cutmix=1.0, problem_type="regression")


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "bce", "coral"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_labels_is_the_mixture_of_the_losses(kind, smoothing):
    loss = training_loss(Loss(kind=kind), "single_label_classification", smoothing)
    torch.manual_seed(0)
    logits, one, other = torch.randn(16, CLASSES), torch.arange(16) % CLASSES, torch.arange(16) // 4
    mixed = 0.3 * torch.eye(CLASSES)[one] + 0.7 * torch.eye(CLASSES)[other]
    torch.testing.assert_close(loss(logits, mixed), 0.3 * loss(logits, one) + 0.7 * loss(logits, other))


# --- in training -----------------------------------------------------------------------------------------------------


def photos(count=24):
    rows = {
        "id": list(range(count)),
        "image": [{"bytes": encoded(photo(n)), "path": None} for n in range(count)],
        "label": [n % 3 for n in range(count)],
    }
    features = Features({"id": Value("int64"), "image": Image(decode=False), "label": Value("int64")})
    return Dataset.from_dict(rows, features=features)


def mixed_trainer(folder, family="vit", mixing=True, **training):
    run = trainer(folder, family, num_train_epochs=3, gradient_accumulation_steps=2, **training)
    augment = ImageAugment(pad_crop=4, flip=0.5, rand_augment=9, erasing=0.25)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    run.train_dataset = image_samples(photos(), processor, augment=augment, seed=0)
    run.data_collator = collate_images
    run.mixing = Mixing(0.4, 1.0, 3, seed=0) if mixing else None
    return run


@pytest.mark.parametrize("family", ["vit", "timm_resnet"])
def test_resumed_equals_uninterrupted_with_changes_and_mixing(tmp_path, family):
    from hf_finetune.training.checkpoints import newest_whole

    save = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2}
    whole = mixed_trainer(tmp_path / "whole", family, **save)
    whole.train()
    train_and_interrupt(mixed_trainer(tmp_path / "parts", family, **save), 5)
    second = mixed_trainer(tmp_path / "parts", family, **save)
    second.train(resume_from_checkpoint=str(newest_whole(tmp_path / "parts" / "checkpoints")))
    expected = weights(whole.model)
    for name, tensor in weights(second.model).items():
        assert torch.equal(tensor, expected[name]), name


def test_mixing_changes_training_and_not_evaluation(tmp_path):
    with_mixing, without = mixed_trainer(tmp_path), mixed_trainer(tmp_path, mixing=False)
    plain = image_samples(photos(6), ViTImageProcessor(size={"height": 32, "width": 32}))
    before, after = (run.predict(plain) for run in (with_mixing, without))
    assert np.array_equal(before.predictions, after.predictions) and before.label_ids.shape == (6,)
    for run in (with_mixing, without):
        run.train()
    assert any(
        not torch.equal(a, b) for a, b in zip(with_mixing.model.parameters(), without.model.parameters(), strict=True)
    )


def test_what_is_changed_is_said():
    data = recipe(augment={"crop": [0.6, 1.0], "flip": 0.5, "trivial_augment": True}, mixup=0.2).data
    assert changes_in_words(data, data.augment) == "crop 0.6 to 1, flip 0.5, trivial_augment, mixup 0.2"
    assert changes_in_words(recipe().data, None) == "off"


def test_texts_are_said_to_be_changed_as_texts_are():
    from types import SimpleNamespace

    from hf_finetune.training.random_changes import image_augment

    texts = Recipe(
        task="text-classification",
        model={"checkpoint": "none"},
        data={"dataset": "none", "augment": {"word_dropout": 0.1}},
    )
    assert image_augment(texts, SimpleNamespace(natural_images=True)) is None
    assert changes_in_words(texts.data, None) == "word_dropout 0.1"
