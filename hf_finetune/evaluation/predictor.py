"""A finished model that answers: images or texts in, labels or numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from hf_finetune.data import LabelSpace, TextCollator, collate_images, text_samples
from hf_finetune.data.bands import Pixels, decode_channels
from hf_finetune.data.image_samples import Preprocessing
from hf_finetune.data.task_labels import labels_of_model
from hf_finetune.errors import UserError
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.evaluation.views import Views
from hf_finetune.outputs import Rule, probabilities

if TYPE_CHECKING:
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import ProblemType, Recipe, Task

_TEXT_KEYS = ("text", "text_pair")


@dataclass(frozen=True)
class Answers:
    """What a model says about inputs.

    Args:
        logits: float32 (N, C), divided by the model's temperature; NaN in rows that could not be read.
        probabilities: float32 (N, C), or the values for regression.
        errors: row -> why it could not be read.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    errors: dict[int, str] = field(default_factory=dict)


@dataclass
class Predictor:
    """A model with its processor.

    Args:
        loaded: a finished model.
        max_length: tokens kept of a text; the tokenizer's limit if None.
        window_overlap: read longer texts in windows that share this part; None cuts them.
        tta: views of each image whose logits are averaged.
        device: where to run; the best one there is if None.
    """

    loaded: LoadedModel
    max_length: int | None = None
    window_overlap: float | None = None
    tta: Views = "none"
    device: torch.device | str | None = None

    @classmethod
    def of(cls, loaded: LoadedModel, recipe: Recipe | None) -> Predictor:
        """A predictor that reads inputs as a run's recipe says; as transformers' pipelines do where there is none."""
        if recipe is None:
            return cls(loaded)
        data = recipe.data
        overlap = data.window_overlap if data.long_text == "windows" else None
        return cls(loaded, data.max_length, overlap, recipe.evaluation.tta)

    @cached_property
    def task(self) -> Task:
        """Image or text, as the processor takes them."""
        return "text-classification" if hasattr(self.loaded.processor, "pad_token") else "image-classification"

    @cached_property
    def labels(self) -> LabelSpace:
        """What the model answers."""
        tasks = getattr(self.loaded.model.config, "tasks", None)
        return labels_of_model(tasks) if tasks else LabelSpace(self.problem_type, self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        config = self.loaded.model.config
        return tuple(str(config.id2label[index]) for index in sorted(config.id2label))

    @cached_property
    def problem_type(self) -> ProblemType:
        """As the config says; where it does not, one output is regression and several are classes."""
        config = self.loaded.model.config
        return config.problem_type or ("regression" if len(self.names) == 1 else "single_label_classification")

    @cached_property
    def rule(self) -> Rule:
        """How its logits become answers, as its config says."""
        return Rule.of(self.loaded.model.config)

    def answer(self, values: Sequence[Any], batch_size: int = 32, progress: str | None = None) -> Answers:
        """Answers for images (PIL, arrays, paths, encoded bytes) or texts (also pairs, or {"text", "text_pair"})."""
        samples: Any
        if self.task == "image-classification":
            samples, collate = _Images(values, self.loaded.processor), collate_images
        else:
            rows = Dataset.from_dict(_text_columns(values))
            samples, collate = self.texts(rows), TextCollator(self.loaded.processor)  # type: ignore[assignment]
        logits = self.logits(samples, collate, batch_size, progress)
        errors: dict[int, str] = getattr(samples, "errors", {})
        spaces = [(part.space, part.outputs) for part in self.labels.tasks] or [(self.labels, slice(None))]
        likely = np.concatenate([probabilities(logits[:, at], space.problem_type) for space, at in spaces], axis=1)
        for row in errors:
            logits[row] = likely[row] = np.nan
        return Answers(logits, likely, errors)

    def texts(self, rows: Dataset) -> Any:
        """Texts (columns text, perhaps text_pair and label) as the model takes them."""
        return text_samples(
            rows,
            self.loaded.processor,
            max_length=self.max_length,
            window_overlap=self.window_overlap,
            problem_type=self.problem_type,
        )

    def logits(self, samples: Any, collate: Any, batch_size: int = 32, progress: str | None = None) -> np.ndarray:
        """Logits (N, C) of samples in their order, divided by the model's temperature; see `predict_logits`."""
        found = predict_logits(self.loaded.model, samples, collate, batch_size, self.device, progress, self.tta)
        return self.rule.tempered(found)

    def in_words(self, answers: Answers, top: int | None = None) -> list[Any]:
        """An answer for each row, None for one that could not be read.

        Classes: {"label", "score"} as transformers' pipelines give them, or the list of the `top` best. Multi-label:
        the list of those above their threshold (0.5), best first, or of the `top` best. Regression: a number, or a list
        of several. Several tasks: a dictionary of such answers by their names. A model that makes prediction sets adds
        "set", the names in it, to the (best) answer; one with thresholds "given" to each of the `top` best.
        """
        return [None if row in answers.errors else self._row(answers, row, top) for row in range(len(answers.logits))]

    def _row(self, answers: Answers, row: int, top: int | None) -> Any:
        logits, scores = answers.logits[row], answers.probabilities[row]
        if not self.labels.tasks:
            return _answer(self.labels, logits, scores, top, self.rule)
        return {
            part.name: _answer(part.space, logits[part.outputs], scores[part.outputs], top, self.rule)
            for part in self.labels.tasks
        }


def _answer(labels: LabelSpace, logits: np.ndarray, scores: np.ndarray, top: int | None, rule: Rule) -> Any:
    if labels.problem_type == "regression":
        return float(scores[0]) if len(scores) == 1 else scores.tolist()
    places = np.argsort(-logits, kind="stable")
    ranked: list[dict[str, Any]] = [{"label": labels.names[place], "score": float(scores[place])} for place in places]
    if labels.problem_type == "multi_label_classification":
        given = rule.decided(logits[None], labels.problem_type)[0][places].astype(bool).tolist()
        said = list(zip(ranked, given, strict=True))
        if top is None:
            return [one for one, yes in said if yes]
        return [one | ({"given": yes} if rule.thresholds else {}) for one, yes in said[:top]]
    if rule.quantile is not None:
        inside = rule.sets(scores[None])[0]
        ranked[0]["set"] = [labels.names[place] for place in places if inside[place]]
    return ranked[0] if top is None else ranked[:top]


class _Images(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Images read when their turn comes; one that cannot be decoded gets a black stand-in and a line in `errors`."""

    def __init__(self, values: Sequence[Any], processor: Any) -> None:
        self.values = values
        self.preprocessing = Preprocessing(processor)
        self.channels = self.preprocessing.channels
        self.errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, rows: list[int]) -> list[dict[str, torch.Tensor]]:
        images = [self._image(row) for row in rows]
        return self.preprocessing(images)

    def _image(self, row: int) -> Pixels:
        try:
            return decode_channels(_as_image(self.values[row], self.channels), self.channels)
        except OSError as error:
            self.errors[row] = str(error)
            return decode_channels(np.zeros((32, 32, self.channels), np.uint8), self.channels)


def _as_image(value: Any, channels: int = 3) -> Any:
    """Arrays and tensors as PIL images where there are such; anything else as it is, if it can be one."""
    if isinstance(value, dict) and "image" in value:
        value = value["image"]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return _from_array(value) if channels in (1, 3, 4) else value
    if not isinstance(value, (str, Path, bytes, dict, Image.Image)):
        raise UserError(f"An image is a PIL image, an array, a path or bytes; {type(value).__name__} was given.")
    return value


def _from_array(array: np.ndarray) -> Image.Image:
    """(H, W), (H, W, 1 to 4) or (1, 3 or 4, H, W) values: integers are 0 to 255, floats 0 to 1."""
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(f"An image array has shape (H, W), (H, W, C) or (C, H, W); {array.shape} was given.")
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise UserError(
                f"A float image array holds values from 0 to 1; this one holds {array.min():g} to {array.max():g}. "
                "Give 0 to 255 as integers (array.astype('uint8'))."
            )
        array = np.rint(array * 255)
    if array.dtype == np.uint16 and array.ndim == 2:
        return Image.fromarray(array)
    array = array // 257 if array.dtype == np.uint16 else array
    if array.size and (array.min() < 0 or array.max() > 255):
        raise UserError(
            f"An integer image array holds values from 0 to 255; this one holds {array.min()} to {array.max()}."
        )
    return Image.fromarray(array.astype(np.uint8))


def _text_columns(values: Sequence[Any]) -> dict[str, list[str]]:
    """Texts, (text, pair) tuples or dictionaries as columns."""
    rows = [_text_row(value) for value in values]
    if len({len(row) for row in rows}) > 1:
        raise UserError("Some inputs are texts and some are pairs of texts; give one kind.")
    return {key: [row[place] for row in rows] for place, key in enumerate(_TEXT_KEYS[: len(rows[0]) if rows else 0])}


def _text_row(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = tuple(value[key] for key in _TEXT_KEYS if value.get(key) is not None)
    row = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(row) not in (1, 2) or not all(isinstance(text, str) for text in row):
        raise UserError(
            'A text input is a text, a pair (text, text_pair) or {"text": ..., "text_pair": ...}; '
            f"{str(value)[:60]!r} was given."
        )
    return row
