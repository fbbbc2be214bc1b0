"""What the page asks of a finished model: scores, what mattered, examples of its test split."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hf_finetune.console import warn
from hf_finetune.data.bands import channels_of, decode_channels
from hf_finetune.data.image_samples import Preprocessing
from hf_finetune.errors import UserError
from hf_finetune.publish.demo import title_of
from hf_finetune.publish.demo_page import Page, Shown, Task, refuse
from hf_finetune.publish.demo_shown import shown

if TYPE_CHECKING:
    from hf_finetune.evaluation.predictor import Predictor
    from hf_finetune.recipes import Recipe

_LOOKED_AT = 400  # rows of the test split, among which examples of many labels are chosen
_MOST_TEXT = 1_000  # characters of an example


@dataclass
class DemoAnswers:
    """An `Answer` of the page.

    Args:
        predictor: the model.
        page: what is shown.
    """

    predictor: Predictor
    page: Page
    at_work: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, given: Any, about: int) -> Shown:
        """Scores, and what mattered for the answer of one task."""
        predictor = self.predictor
        loaded = predictor.loaded
        with self.at_work:
            answers = predictor.answer([given])
            if answers.errors:
                raise refuse(f"The image cannot be decoded: {answers.errors[0]}.")
            if self.page.image:
                processing = Preprocessing(loaded.processor)
                given = processing([decode_channels(given, processing.channels)])[0]
            logits = torch.from_numpy(answers.logits[0])
            return shown(self.page, loaded.model, loaded.processor, given, logits, about, predictor.max_length)


def page_of(predictor: Predictor, recipe: Recipe | None, name: str, examples: list[Any]) -> Page:
    """What the page says of a model.

    Raises:
        UserError: it takes images of more channels than a page can show.
    """
    image = predictor.task == "image-classification"
    channels = channels_of(predictor.loaded.processor) if image else 3
    if channels not in (1, 3, 4):
        raise UserError(
            f"The model takes images of {channels} channels, which no page shows. hf-finetune predict and serve take "
            "them as .npy files."
        )
    parts = [(part.name, part.space) for part in predictor.labels.tasks] or [("", predictor.labels)]
    tasks = tuple(Task(title, space.problem_type, tuple(space.names)) for title, space in parts)
    pair = recipe is not None and recipe.data.text_pair is not None
    return Page(title_of(recipe, name), image, pair, tasks, examples)


def examples_of(predictor: Predictor, recipe: Recipe, folder: Path, count: int) -> list[Any]:
    """Some rows of the run's test split, of as many labels as possible: paths of images in `folder`, or texts.

    None, with a warning, where the data is not there: the page works without.
    """
    from hf_finetune.data import load_test

    try:
        test, _ = load_test(recipe, predictor.labels, trained_by=recipe.data, own=True)
    except (UserError, OSError) as error:
        warn(f"there are no examples: {error}")
        return []
    rows = test.select(range(min(len(test), _LOOKED_AT)))
    kept: dict[str, list[int]] = {}
    for row, label in enumerate(rows["label"][:]):
        kept.setdefault(repr(label) if isinstance(label, int) else "", []).append(row)
    turns = sorted((turn, label, row) for label, own in kept.items() for turn, row in enumerate(own))
    chosen = sorted(row for _, _, row in turns[:count])
    if predictor.task != "image-classification":
        columns = [name for name in ("text", "text_pair") if name in rows.column_names]
        return [tuple(str(rows[row][name])[:_MOST_TEXT] for name in columns) for row in chosen]
    return _pictures(rows, chosen, folder, channels_of(predictor.loaded.processor))


def _pictures(rows: Any, chosen: list[int], folder: Path, channels: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for row in chosen:
        try:
            image = decode_channels(rows[row]["image"], channels)
        except OSError:
            continue
        paths.append(folder / f"{len(paths):02}.png")
        image.save(paths[-1])  # type: ignore[union-attr]  # a page has images of 1, 3 or 4 channels
    return paths
