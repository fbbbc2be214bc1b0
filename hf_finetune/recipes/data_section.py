"""The `data:` section: where samples come from, how they are split, changed and cleaned."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag

from hf_finetune.recipes.section import (
    UNION_FORMS,
    Chance,
    NotNegative,
    Positive,
    ProblemType,
    Section,
    Share,
    SplitOrShare,
)

# The forms that data.augment takes, as pydantic's locations name them.
NAME_FORM, IMAGE_FORM, TEXT_FORM = UNION_FORMS


class ImageAugment(Section):
    """Changes of training images; each is off unless named, and they apply in this order."""

    crop: tuple[Share, Chance] | None = Field(
        None, description="Random resized crop: smallest and largest share of the image's area that is kept."
    )
    pad_crop: Annotated[int, Field(ge=0, lt=32)] = Field(
        0, description="Pad by so many pixels (of a side of 32) and crop at random."
    )
    flip: Chance = Field(0.0, description="Chance of a horizontal flip.")
    vertical_flip: Chance = Field(0.0, description="Chance of a vertical flip.")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="Largest angle, in degrees.")
    color_jitter: Chance = Field(
        0.0, description="Strength, 0 to 1, of changes of brightness, contrast and saturation; 0.4 is usual."
    )
    grey: Chance = Field(0.0, description="Chance of a grey image.")
    blur: Chance = Field(0.0, description="Chance of a Gaussian blur.")
    rand_augment: Annotated[int, Field(ge=0, le=30)] = Field(
        0, description="RandAugment (arXiv:1909.13719): two operations of this magnitude, of 30; 9 is usual."
    )
    trivial_augment: bool = Field(False, description="TrivialAugment (arXiv:2103.10158).")
    aug_mix: Annotated[int, Field(ge=0, le=10)] = Field(
        0, description="AugMix (arXiv:1912.02781) of this severity, of 10; 3 is usual."
    )
    erasing: Chance = Field(
        0.0, description="Chance of a random rectangle filled with noise (random erasing, arXiv:1708.04896)."
    )


class TextAugment(Section):
    """Changes of training texts, on tokens: masked, or left out where the tokenizer has no mask token."""

    word_dropout: Chance = Field(0.0, description="Chance of each token to be masked.")
    span_dropout: Chance = Field(0.0, description="Share of the tokens masked in one run of neighbours.")
    keep: Chance = Field(0.5, description="Chance that a text is left as it is.")


def _augment_of(value: Any) -> str:
    """Which of the forms of `data.augment` a value is meant to be: by its keys, so that a typo is told as one."""
    if not isinstance(value, (dict, Section)):
        return NAME_FORM
    keys = set(value) if isinstance(value, dict) else set(type(value).model_fields)
    of_texts = len(keys & set(TextAugment.model_fields))
    return TEXT_FORM if of_texts > len(keys & set(ImageAugment.model_fields)) else IMAGE_FORM


Augment = Annotated[
    Annotated[Literal["auto", "none", "basic"], Tag(NAME_FORM)]
    | Annotated[ImageAugment, Tag(IMAGE_FORM)]
    | Annotated[TextAugment, Tag(TEXT_FORM)],
    Discriminator(_augment_of),
]


class Clean(Section):
    """What is dropped from the training rows; every row is listed in cleaned.jsonl with its reason."""

    duplicates: bool = Field(
        True, description="Exact copies; the first stays. Of copies of rows of a validation split none does."
    )
    near_duplicates: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None,
        description="Images whose perceptual hashes (64 bits) differ in at most so many bits; 4 is usual for photos, "
        "and too many for drawings, digits and the like.",
    )
    empty: bool = Field(True, description="Rows without a text or with a one-colour image.")
    max_per_class: PositiveInt | None = Field(None, description="At most so many rows a class, drawn at random.")


class Data(Section):
    """Where the samples come from, which columns hold them, and how they are split."""

    dataset: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] = Field(
        description="Hub id, folder of class folders, csv/tsv/json/jsonl/parquet file(s) or glob, {split: file(s)}, "
        "or package:NAME."
    )
    config: str | None = Field(None, description="Configuration name of a Hub data set.")
    revision: str | None = Field(None, description="Commit, tag or branch of a Hub data set.")
    streaming: bool = Field(
        False,
        description="Training rows stay in their shards (parquet, JSON lines, WebDataset tars; here or on the Hub) and "
        "are read as they are needed: for data that is too large to be prepared.",
    )
    image: str | None = Field(None, description="Image column; found from the features where left out.")
    text: str | None = Field(None, description="Text column; found from the features where left out.")
    text_pair: str | None = Field(None, description="Second text column, for pairs.")
    label: str | None = Field(None, description="Label column; found from the features where left out.")
    problem_type: ProblemType | None = Field(
        None, description="Follows from the label column: floats mean regression, lists multi-label, else classes."
    )
    group: str | None = Field(
        None,
        description="Column whose equal values belong together (a patient, a document): no two of the shares held out "
        "of train, and no two folds, have a group in common.",
    )
    train_split: str = Field("auto", description="A split's name; auto: the one called train, or the only one.")
    test_split: SplitOrShare | None = Field(
        "auto",
        description="A split's name, or a share of train held out for the test; null for no test. auto: the split "
        "called test, else the one called validation where data.validation is a share, else 0.2 of train.",
    )
    validation: SplitOrShare = Field(
        0.1, description="A split's name, or a share of train (stratified, seeded). Chooses the best checkpoint."
    )
    max_train_samples: PositiveInt | None = Field(
        None, description="Seeded, stratified subset of train, taken before the validation share is held out."
    )
    max_eval_samples: PositiveInt | None = Field(
        None, description="Seeded, stratified subset of the test split, and of a validation split named by you."
    )
    fold: tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="[2, 5]: the second of five folds of train does not train and is predicted in the end "
        "(held_out.parquet). evaluation.cross_validation=5 runs them all.",
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="By which rows are chosen and held out; the recipe's seed if left out."
    )
    on_error: Literal["raise", "skip"] = Field(
        "raise", description="Broken rows: stop and name them, or leave them out and list them in skipped.jsonl."
    )
    augment: Augment = Field(
        "auto",
        description="Changes of the training samples, by name and strength, such as {pad_crop: 4, flip: 0.5}. "
        "basic: random resized crop and flip of images; auto: basic where the backbone learns from natural images.",
    )
    augment_on: Literal["auto", "device", "samples"] = Field(
        "auto",
        description="Where training images are changed: on the device that trains, a batch in one pass, or sample by "
        "sample on the CPU, by Pillow. auto: device on CUDA, except with aug_mix; else samples.",
    )
    mixup: NotNegative = Field(0.0, description="Alpha of mixup (Zhang et al. 2018, arXiv:1710.09412); 0 is none.")
    cutmix: NotNegative = Field(0.0, description="Alpha of CutMix (Yun et al. 2019, arXiv:1905.04899); 0 is none.")
    max_length: PositiveInt | None = Field(None, description="Tokens kept of a text; the model's limit if left out.")
    long_text: Literal["truncate", "windows"] = Field(
        "truncate",
        description="Texts longer than the model takes: cut, or read in overlapping windows whose logits are averaged.",
    )
    window_overlap: Share = Field(0.25, description="Share of a window that it has in common with the one before.")
    weight: Positive | None = Field(
        None,
        description="Where tasks bring data sets of their own: how often rows of this one are drawn, relative to "
        "theirs; by the number of rows if left out.",
    )
    clean: Clean | None = Field(
        None, description="Rows dropped from train; all but max_per_class before a validation share is held out."
    )
