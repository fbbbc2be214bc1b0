"""Rate multipliers of every parameter, for the strategies that say who learns without adding anything to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.errors import UserError
from hf_finetune.model.anatomy import is_norm
from hf_finetune.strategy.rates_by_part import by_depth, by_parameter
from hf_finetune.strategy.stage import LearningStage, stage_of

if TYPE_CHECKING:
    from torch import nn

    from hf_finetune.model import LoadedModel
    from hf_finetune.recipes.schema import BitFit, Features, Freeze, Full, HeadOnly, LpFt, Norms, Recipe, Scratch

    ByPart = Full | HeadOnly | Freeze | Scratch | LpFt | Features
    Plain = ByPart | BitFit | Norms


def stage_for(
    settings: Plain,
    loaded: LoadedModel,
    recipe: Recipe,
    learning_rate: float | None = None,
    epochs: float | None = None,
) -> LearningStage:
    """The stage that a strategy without adapters describes.

    Args:
        settings: the strategy, or that of one of several stages; of lp_ft, its second stage.
        loaded: the model.
        recipe: whose checkpoint the messages name, and whose `model.batch_norm` holds.
        learning_rate: of the stage; None for the run's own.
        epochs: of the stage; None for all of the run's.

    Raises:
        UserError: more blocks than there are, zones without enough blocks, or nothing of the backbone matched.
    """
    anatomy, model = loaded.anatomy, loaded.model
    if settings.kind == "bitfit" or settings.kind == "norms":
        learning = biases(model, norms=settings.norms) if settings.kind == "bitfit" else norms(model)
        multipliers = _with_head(settings, loaded, learning, recipe)
        # The scales and biases of a BatchNorm that learn can undo whatever its statistics would: those of a small batch
        # only add noise.
        stay = recipe.model.batch_norm != "train"
        who = "norms" if settings.kind == "norms" else "biases, norms" if settings.norms else "biases"
        return stage_of(
            model, anatomy, multipliers, statistics_stay=stay, who=who, learning_rate=learning_rate, epochs=epochs
        )
    parts = _parts(settings, loaded, recipe)
    return stage_of(model, anatomy, by_parameter(anatomy, parts), learning_rate=learning_rate, epochs=epochs)


def head_multiplier(settings: Any, loaded: LoadedModel) -> float:
    """Rate of the head over that of the rest; a head that the checkpoint brought is as pretrained as the rest."""
    return float(getattr(settings, "head_lr_multiplier", 1.0)) if loaded.fresh else 1.0


def biases(model: nn.Module, *, norms: bool) -> set[str]:
    """Names of all biases, those of the norms too; with `norms`, also of the norms' scales (arXiv:2106.10199)."""
    found = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    return found | _norm_parameters(model) if norms else found


def norms(model: nn.Module) -> set[str]:
    """Names of the norms' scales and biases."""
    return _norm_parameters(model)


def _norm_parameters(model: nn.Module) -> set[str]:
    return {
        f"{module_name}.{name}" if module_name else name
        for module_name, module in model.named_modules()
        if is_norm(module)
        for name, _ in module.named_parameters(recurse=False)
    }


def _with_head(settings: BitFit | Norms, loaded: LoadedModel, learning: set[str], recipe: Recipe) -> dict[str, float]:
    head = set(loaded.anatomy.head.parameters)
    body = [name for name, _ in loaded.model.named_parameters() if name in learning and name not in head]
    if not body:
        what, remedy = (
            ("norm with parameters", "strategy=bitfit or strategy=freeze")
            if settings.kind == "norms"
            else ("bias or norm", "strategy=freeze or strategy=lora")
            if settings.norms
            else ("bias", "strategy.norms=true, which lets the norms' scales learn too")
        )
        raise UserError(
            f"strategy={settings.kind}: {recipe.model.checkpoint} ({type(loaded.model).__name__}) has no {what} "
            f"outside its head, so nothing but the head would learn. Use {remedy}."
        )
    return dict.fromkeys(body, 1.0) | dict.fromkeys(head, head_multiplier(settings, loaded))


def _parts(settings: ByPart, loaded: LoadedModel, recipe: Recipe) -> dict[str, float]:
    """Multipliers by part; a part that is not named is frozen."""
    anatomy, head = loaded.anatomy, head_multiplier(settings, loaded)
    if settings.kind in ("head", "features"):
        return {"head": 1.0}
    if settings.kind == "freeze":
        blocks, wanted = anatomy.blocks, settings.train_blocks
        if wanted > len(blocks):
            raise UserError(
                f"strategy.train_blocks={wanted}: {recipe.model.checkpoint} has {len(blocks)} "
                f"{'block' if len(blocks) == 1 else 'blocks'}. Give at most that many, or strategy=full."
            )
        return dict.fromkeys((block.name for block in blocks[-wanted:]), 1.0) | {"head": head}
    decay, zones = getattr(settings, "layer_decay", None), getattr(settings, "zones", None)
    return by_depth(anatomy, head, decay, zones)
