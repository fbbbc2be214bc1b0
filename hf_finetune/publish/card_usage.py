"""The model card's lines of code: they run as they stand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from hf_finetune.recipes.schema import VIEWS

if TYPE_CHECKING:
    from hf_finetune.data import LabelSpace
    from hf_finetune.recipes import Recipe

_IMAGE = 'image = Image.new("RGB", (224, 224), "white")  # or Image.open("photo.jpg")'


def usage(recipe: Recipe, name: str, own_code: bool) -> str:
    """How to use the model.

    Args:
        recipe: of the run.
        name: of the model: `owner/name`, or a folder's.
        own_code: whether the model's code lies beside its weights.
    """
    if recipe.tasks:
        return _usage_of_tasks(recipe, name)
    image = recipe.task == "image-classification"
    imports = ["from PIL import Image"] * image + ["from transformers import pipeline"]
    trust = ", trust_remote_code=True" if own_code else ""
    lines = [*imports, "", f'model = pipeline("{recipe.task}", model="{name}"{trust})']
    if image:
        lines += [_IMAGE, "print(model(image))"]
    elif recipe.data.text_pair:
        lines += ['print(model({"text": "one text", "text_pair": "another"}))']
    else:
        lines += ['print(model("a text"))']
    own = (
        "\n\nThe model's head or pooling is not one of transformers': its code is `custom_head.py` and "
        "`custom_layers.py` beside the weights, which the flag lets run."
    )
    return _block(lines) + _to_a_file(name) + own * own_code


def _usage_of_tasks(recipe: Recipe, name: str) -> str:
    image = recipe.task == "image-classification"
    kind = "AutoImageProcessor" if image else "AutoTokenizer"
    reads = "image" if image else '"one text", "another"' if recipe.data.text_pair else '"a text"'
    lines = [
        *["from PIL import Image"] * image,
        f"from transformers import AutoModel, {kind}",
        "",
        f'model = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()',
        f'processor = {kind}.from_pretrained("{name}", trust_remote_code=True)',
        *[_IMAGE] * image,
        f'print(model.decode(model(**processor({reads}, return_tensors="pt")).logits))',
    ]
    told = (
        "It prints an answer for each task. `pipeline()` knows no several tasks. The model's code is `multi_task.py` "
        "and what it imports, beside the weights, which the flag lets run."
    )
    return f"{_block(lines)}\n\n{told}{_to_a_file(name)}"


def _block(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def _to_a_file(name: str) -> str:
    return f"\n\nOr, in batches and to a file: `hf-finetune predict {shlex.quote(name)} INPUT... --out predictions.csv`"


def reads_otherwise(recipe: Recipe) -> bool:
    """Whether a run reads inputs in another way than a pipeline does."""
    return recipe.data.long_text == "windows" or recipe.evaluation.tta != "none"


def beyond_pipelines(recipe: Recipe) -> str:
    """What a run's own predictions do and a pipeline does not."""
    notes = []
    if recipe.data.long_text == "windows":
        notes.append(
            f"Texts longer than the model takes were read in windows that overlap by {recipe.data.window_overlap:.0%}, "
            "and the windows' logits averaged. `pipeline()` knows no windows: it reads a text whole, and fails beyond "
            "the model's own limit."
        )
    if (tta := recipe.evaluation.tta) != "none":
        notes.append(
            f"The scores and `predictions.parquet` average the logits over {VIEWS[tta]} views of each image "
            f"(`evaluation.tta={tta}`). `pipeline()` sees one view, so its answers differ a "
            "little; `hf-finetune evaluate FOLDER evaluation.tta=none` scores that."
        )
    notes += _rule(recipe)
    return " ".join([*notes, "`hf-finetune predict` and `Run.predict` do it as the run did."]) if notes else ""


def _rule(recipe: Recipe) -> list[str]:
    """Notes on what stands under `hf_finetune` in config.json, which only this package reads."""
    wanted, notes = recipe.evaluation, []
    if wanted.calibration != "none":
        notes.append(
            "Logits are divided by the `temperature` that `config.json` keeps under `hf_finetune`; `pipeline()` does "
            "not know it, and its probabilities are those before calibration."
        )
    if wanted.thresholds != "none":
        notes.append(
            "Each label is given above its own of the `thresholds` that `config.json` keeps under `hf_finetune`; "
            "`pipeline()` does not know them."
        )
    if wanted.conformal is not None:
        notes.append(
            f"With each answer comes a set of classes that holds the right one with {wanted.conformal:.0%} chance, for "
            "inputs like those of validation (split conformal prediction)."
        )
    return notes


def no_probabilities(metrics: dict[str, dict[str, Any]], labels: LabelSpace) -> str:
    """Of a fit whose decision values stand where a classifier's logits are."""
    classifier = metrics.get("train", {}).get("classifier")
    if classifier not in ("ridge", "svm") or labels.problem_type == "regression":
        return ""
    return (
        f"The head was fitted by scikit-learn ({classifier}): its logits are decision values. The scores made of them "
        "rank the classes, and are no calibrated probabilities."
    )
