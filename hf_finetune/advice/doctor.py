"""What is the matter with the data of a recipe: reads as the table of contents of the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_finetune.advice.doctor_copies import copies
from hf_finetune.advice.doctor_errors import label_errors
from hf_finetune.advice.doctor_features import load_checkpoint
from hf_finetune.advice.doctor_inputs import images, texts
from hf_finetune.advice.doctor_leaks import leaks
from hf_finetune.advice.doctor_material import Material, gather
from hf_finetune.advice.doctor_report import Report, Section
from hf_finetune.advice.doctor_splits import balance, broken, names_that_differ, sizes
from hf_finetune.data.legible import bad_bytes_named
from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_finetune.recipes.schema import Recipe

MAX_SAMPLES = 5000


def examine(
    recipe: Recipe,
    *,
    max_samples: int = MAX_SAMPLES,
    data: Dataset | DatasetDict | None = None,
    trust_remote_code: bool = False,
) -> Report:
    """Look at everything a recipe would train and test on; nothing is changed, nothing is trained but a small probe.

    Every row is read once (kept in the cache of `datasets`, as before training). What needs the checkpoint looks at
    `max_samples` rows at most, drawn by the recipe's seed. Broken rows and strange labels are told, and stop nothing.

    Args:
        recipe: names data and checkpoint.
        max_samples: rows whose features, tokens and columns are looked at.
        data: a data set in memory, in place of `recipe.data.dataset`.
        trust_remote_code: run code from the Hub that a checkpoint brings.

    Raises:
        DataError: the train split cannot be found or understood.
        UserError: the network or a package is missing.
    """
    material = gather(recipe, data)
    with bad_bytes_named({split.name: split.source for split in material.splits}):
        sections = [section for section in _sections(material, max_samples, trust_remote_code) if section is not None]
    kind = material.labels.problem_type.replace("_", " ")
    return Report(f"{_source(recipe)}: {recipe.task}, {kind}", sections)


def _source(recipe: Recipe) -> str:
    given = recipe.data.dataset
    return given if isinstance(given, str) else ", ".join(map(str, given))


def _sections(material: Material, limit: int, trust_remote_code: bool) -> Iterator[Section | None]:
    yield sizes(material)
    yield balance(material)
    yield names_that_differ(material)
    yield broken(material)
    yield copies(material)
    if material.recipe.task == "image-classification":
        yield images(material)
    yield from _seen_by_the_checkpoint(material, limit, trust_remote_code)
    yield leaks(material, limit)


def _seen_by_the_checkpoint(material: Material, limit: int, trust_remote_code: bool) -> Iterator[Section]:
    """What needs the checkpoint; where it cannot be loaded, the rest of the report is still worth having."""
    recipe = material.recipe
    try:
        loaded = load_checkpoint(recipe, material.labels, trust_remote_code)
        if recipe.task == "text-classification":
            yield texts(material, loaded.processor, limit)
        yield label_errors(material, loaded, limit)
    except UserError as error:
        yield Section(
            "Likely label errors", [f"not looked at: {error}"], ["name a checkpoint that loads, then ask again"]
        )
