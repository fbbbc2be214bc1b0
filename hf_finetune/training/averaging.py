"""After training: averages of weights, each kept only if it is better on validation than what it would replace.

The average is tried as a whole model, BatchNorm statistics included: those of a soup are averaged as the weights are
(the checkpoints are of one run, so they are near each other), those of an EMA are the latest. Statistics estimated anew
would take another pass over the training data; where the averaged ones are wrong, validation says so and they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from hf_finetune.console import say
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.checkpoints import WEIGHTS
from hf_finetune.training.ema import Ema

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hf_finetune.training.trainer import FinetuneTrainer

Tensors = dict[str, torch.Tensor]


def keep_best_average(recipe: Recipe, trainer: FinetuneTrainer, validation: Dataset[Any]) -> None:
    """Try the recipe's averages against the trained model; the best by `evaluation.best` stays in the trainer's model.

    Every rank takes part. A tie keeps what is there. One line of the log for each average that was tried.
    """
    if trainer.ema is None and recipe.average.soup is None:
        return
    contest = Contest(trainer, validation)
    if trainer.ema is not None:
        _try_ema(contest, trainer.ema)
    if recipe.average.soup is not None:
        _try_soup(contest, recipe.average.soup, recipe.average.soup_size)
    contest.put_best()


class Contest:
    """The best weights so far, and how good they are on validation."""

    def __init__(self, trainer: FinetuneTrainer, validation: Dataset[Any]) -> None:
        self.trainer, self.validation = trainer, validation
        self.metric = trainer.args.metric_for_best_model or "loss"
        known = trainer.state.best_metric
        self.value = self.score() if known is None else float(known)
        self.best: Tensors | None = None  # None: the model as it was given

    def score(self, tensors: Tensors | None = None) -> float:
        """`evaluation.best` of the model, with these tensors put into it."""
        held = None if tensors is None else self._put(tensors)
        metrics = self.trainer.predict(self.validation, metric_key_prefix="validation").metrics
        if held is not None:
            self._put(held)
        return float((metrics or {})[f"validation_{self.metric}"])

    def better(self, value: float, than: float, or_equal: bool = False) -> bool:
        """Whether one value of the metric beats another; one that is not a number beats none."""
        wins = value > than if self.trainer.args.greater_is_better else value < than
        return wins or (than != than and value == value) or (or_equal and value == than)

    def enter(self, name: str, tensors: Tensors, value: float | None = None) -> bool:
        """Keep these tensors if they are better than the best so far; say which."""
        value = self.score(tensors) if value is None else value
        kept = self.better(value, self.value)
        say(f"{name} {self.metric} {value:.4f} against {self.value:.4f}: {'kept' if kept else 'not kept'}")
        if kept:
            self.best, self.value = tensors, value
            self.trainer.kept = name
        return kept

    def put_best(self) -> None:
        """Leave the winner in the model."""
        if self.best is not None:
            self._put(self.best)

    @torch.no_grad()
    def _put(self, tensors: Tensors) -> Tensors:
        """Copy tensors into the model; gives back copies of what was there."""
        model = self.trainer.model
        live = dict(model.named_parameters()) | dict(model.named_buffers())
        before = {name: live[name].detach().clone() for name in tensors}
        for name, tensor in tensors.items():
            live[name].copy_(tensor)
        return before


def _try_ema(contest: Contest, ema: Ema) -> None:
    """The average at the end, and the one beside the best checkpoint: training may have gone on past its best."""
    state = contest.trainer.state
    if ema.steps:
        contest.enter(f"EMA at step {state.global_step}", ema.tensors)
    best = state.best_global_step
    folder = Path(contest.trainer.args.output_dir) / f"checkpoint-{best}"
    if best and best != state.global_step and folder.is_dir():
        earlier = Ema(ema.decay)
        earlier.load(folder)
        contest.enter(f"EMA at step {best}", earlier.tensors)


def _try_soup(contest: Contest, kind: str, size: int) -> None:
    """Model soups (Wortsman et al. 2022, arXiv:2203.05482) of the run's best checkpoints that are still there."""
    folder = Path(contest.trainer.args.output_dir)
    steps = [step for step in contest.trainer.best_steps(size) if (folder / f"checkpoint-{step}" / WEIGHTS).is_file()]
    stored = {step: load_file(str(folder / f"checkpoint-{step}" / WEIGHTS)) for step in steps}
    # In another stage other parameters may have learned: such a checkpoint is no ingredient.
    steps = [step for step in steps if stored[step].keys() == stored[steps[0]].keys()]
    if len(steps) < 2:
        say("soup: there is one checkpoint, which is the model")
        return
    if kind == "uniform":
        contest.enter(f"uniform soup of steps {_listed(steps)}", mean([stored[step] for step in steps]))
        return
    chosen, value = steps[:1], contest.score(stored[steps[0]])
    for step in steps[1:]:
        tried = contest.score(mean([stored[number] for number in [*chosen, step]]))
        if contest.better(tried, value, or_equal=True):
            chosen, value = [*chosen, step], tried
    if len(chosen) == 1:
        say(f"greedy soup: no checkpoint makes step {chosen[0]} better, which is the model")
        return
    contest.enter(f"greedy soup of steps {_listed(chosen)}", mean([stored[step] for step in chosen]), value)


def mean(ingredients: Sequence[Tensors]) -> Tensors:
    """The mean of each tensor; counters are the first's. Of one, or of equals, it is that to the bit."""
    average = {name: tensor.clone() for name, tensor in ingredients[0].items()}
    for count, tensors in enumerate(ingredients[1:], start=2):
        for name, tensor in average.items():
            if tensor.is_floating_point():
                tensor.lerp_(tensors[name], 1.0 / count)
    return average


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))
