"""A finished run: its scores, its recipe, its model, and answers from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_finetune.evaluation.predictor import Predictor
    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes import Recipe


class Run:
    """What a recipe left in its folder. Nothing is loaded until it is asked for.

    Args:
        path: output_dir of a finished run.
        trust_remote_code: allow code from the Hub that the checkpoint brings.

    Raises:
        UserError: there is no finished run there.
    """

    def __init__(self, path: str | Path, *, trust_remote_code: bool = False) -> None:
        self.path = Path(path)
        self._trust = trust_remote_code
        lacking = [name for name in ("recipe.yaml", "config.json", "metrics.json") if not (self.path / name).is_file()]
        if lacking:
            raise UserError(
                f"{self.path} holds no finished run: {', '.join(lacking)} is missing. "
                "Give the output_dir of a run; one that was interrupted goes on when its command is given again."
            )

    @classmethod
    def load(cls, path: str | Path, *, trust_remote_code: bool = False) -> Run:
        """A run by its output_dir."""
        return cls(path, trust_remote_code=trust_remote_code)

    def again(self) -> Run:
        """The same run, its files read anew."""
        return type(self)(self.path, trust_remote_code=self._trust)

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """`train`, `validation` and `test`, as metrics.json holds them; of several runs `seeds` too."""
        scores: dict[str, dict[str, Any]] = json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))
        return scores

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, with the revisions that were loaded."""
        from hf_finetune.recipes import load_recipe

        return load_recipe(str(self.path / "recipe.yaml"))

    @property
    def model(self) -> PreTrainedModel:
        """The saved model, in eval mode."""
        return self._loaded.model

    @property
    def processor(self) -> Any:
        """Its image processor or tokenizer."""
        return self._loaded.processor

    def predict(
        self, inputs: Any, *, top: int | None = None, batch_size: int = 32, progress: bool = False, folds: bool = False
    ) -> Any:
        """Answers for images or texts.

        Args:
            inputs: one input or a list. Images: PIL images, arrays ((H, W), (H, W, C) or (C, H, W); integers 0 to 255
                or floats 0 to 1), paths, encoded bytes. Texts: strings, (text, pair) tuples, {"text", "text_pair"}.
            top: the best so many labels for each input, in place of the answer alone.
            batch_size: inputs at a time.
            progress: show a bar.
            folds: the mean of the models of its folds answers (`evaluation.cross_validation`).

        Returns:
            for each input: {"label", "score"} for classes, with "set" where the model makes prediction sets (in the
            first of `top`); a list of those above 0.5 (or their thresholds) for multi-label, of `top` with "given"
            where it has thresholds; a number (or several) for regression. For a single input, its answer alone.

        Raises:
            UserError: an input is no image or text, or an image cannot be decoded (its place is named); or a single
                text for a model that learned from pairs.
        """
        if not _is_many(inputs):
            return self.predict([inputs], top=top, batch_size=batch_size, progress=progress, folds=folds)[0]
        values = list(inputs)
        if not values:
            return []
        data = self.recipe.data
        if data.text_pair and any(isinstance(value, str) for value in values):
            raise UserError(
                f"The model takes pairs of texts ({data.text}, {data.text_pair}), and single texts were given. "
                "Give (text, pair) tuples."
            )
        predictor = self._folds if folds else self._predictor
        answers = predictor.answer(values, batch_size, "predicting" if progress else None)
        if answers.errors:
            row, reason = next(iter(answers.errors.items()))
            raise UserError(f"{len(answers.errors)} of {len(values)} inputs cannot be read; number {row}: {reason}")
        return predictor.in_words(answers, top)

    def evaluate(self, *overrides: str) -> dict[str, Any]:
        """Metrics with intervals on the run's test split, or on other data: run.evaluate("data.dataset=new.csv")."""
        from hf_finetune.evaluation.commands import score_finished

        return score_finished(self._loaded, str(self.path), overrides, trust_remote_code=self._trust)

    def push(self, repo: str, *, private: bool = False, revision: str | None = None) -> str:
        """Push the run to the Hub in one commit, and return its address: see `hf_finetune.publish.push_run`."""
        from hf_finetune.publish import push_run

        return push_run(self.path, repo, private=private, revision=revision)

    @cached_property
    def _loaded(self) -> LoadedModel:
        from hf_finetune.model import load_finished

        return load_finished(self.path, trust_remote_code=self._trust)

    @cached_property
    def _predictor(self) -> Predictor:
        from hf_finetune.evaluation.predictor import Predictor

        return Predictor.of(self._loaded, self.recipe)

    @cached_property
    def _folds(self) -> Predictor:
        from hf_finetune.evaluation.folds_predictor import predictor_of_folds

        return predictor_of_folds(self.path, self.recipe, trust_remote_code=self._trust)

    def __repr__(self) -> str:
        split = "test" if "test" in self.metrics else "validation"
        scores = {
            name: round(value, 4)
            for name, value in self.metrics.get(split, {}).items()
            if isinstance(value, float) and name != "loss"
        }
        return f"Run({str(self.path)!r}, {split}: {scores})"


def _is_many(inputs: Any) -> bool:
    """Whether this is a collection of inputs: a list, a column, a generator. A pair of texts (a tuple) is one input."""
    if (
        isinstance(inputs, (str, bytes, Path, dict))
        or hasattr(inputs, "__array_interface__")
        or hasattr(inputs, "mode")
    ):
        return getattr(inputs, "ndim", 0) == 4
    if isinstance(inputs, tuple):
        return not (len(inputs) == 2 and all(isinstance(part, str) for part in inputs))
    if hasattr(inputs, "ndim"):
        return bool(inputs.ndim == 4)
    return isinstance(inputs, Sequence) or hasattr(inputs, "__iter__")
