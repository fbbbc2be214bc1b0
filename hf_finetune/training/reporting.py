"""`training.report_to`: the services that transformers logs to, checked before work starts, with the whole recipe."""

from __future__ import annotations

import importlib
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, TensorBoardCallback

from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import Recipe

# What to install, where it is not the service's own name.
_PACKAGE = {"comet_ml": "comet-ml", "azure_ml": "azureml-core", "codecarbon": "codecarbon", "flyte": "flytekit"}
_WITH_CONFIG = ("trackio", "wandb")


def check_reporting(names: list[str]) -> None:
    """Make sure that every service is known and installed.

    Args:
        names: as TrainingArguments hold them.

    Raises:
        UserError: one is not.
    """
    for name in names:
        kind = INTEGRATION_TO_CALLBACK.get(name)
        if kind is None:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UserError(f"training.report_to={name}: there is no such service. Known: none, {known}.")
        try:
            kind()
        except (RuntimeError, ImportError) as fault:
            package = _PACKAGE.get(name, name)
            raise UserError(
                f"training.report_to={name} needs a package that is not installed: pip install {package} "
                f"(or training.report_to=none). {fault}"
            ) from fault


class RecipeAsConfig(TrainerCallback):
    """Puts the recipe beside what transformers itself tells a service of the run, on rank 0.

    trackio and wandb get it as `recipe` in the run's config, TensorBoard as a text.

    Args:
        recipe: of the run.
        others: all callbacks of the Trainer, the services' among them; they have opened when this is called.
    """

    def __init__(self, recipe: Recipe, others: list[Any]) -> None:
        self.recipe = recipe
        self.others = others

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the services' own callbacks."""
        if not state.is_world_process_zero:
            return
        for name in _WITH_CONFIG:
            if name in args.report_to:
                config = importlib.import_module(name).config
                config.update({"recipe": self.recipe.model_dump(mode="json")}, allow_val_change=True)
        for other in self.others:
            if isinstance(other, TensorBoardCallback) and other.tb_writer is not None:
                text = "\n".join(f"    {line}" for line in self.recipe.to_yaml().splitlines())
                other.tb_writer.add_text("recipe", text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The services have closed their run; what is scored afterwards would open another, so they hear no more."""
        services = tuple(kind for name in args.report_to if (kind := INTEGRATION_TO_CALLBACK.get(name)))
        self.others[:] = [other for other in self.others if not isinstance(other, services)]
