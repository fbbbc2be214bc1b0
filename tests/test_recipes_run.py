"""Every shipped recipe runs: rows with its own columns, a tiny model of its own architecture."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Image
from model_samples import save_checkpoint

from hf_finetune import finetune, list_recipes, load_recipe

ARCHITECTURES = {
    "google/vit-base-patch16-224-in21k": "vit",
    "sentence-transformers/all-MiniLM-L6-v2": "bert",
    "microsoft/resnet-18": "resnet",
    "microsoft/resnet-50": "resnet",
    "google/mobilenet_v2_1.0_224": "mobilenet_v2",
    "timm/vgg16.tv_in1k": "timm_vgg",
    "google-bert/bert-base-uncased": "bert",
    "distilbert/distilbert-base-uncased": "distilbert",
    "package:digits-vit": "vit",
    "package:digits-resnet": "resnet",
}


def rows_for(recipe, size=28) -> Dataset:
    """Random rows with the columns that the recipe names."""
    generator = np.random.default_rng(0)
    data, columns = recipe.data, {}
    if recipe.task == "image-classification":
        columns[data.image] = [generator.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(size)]
    for column in filter(None, (data.text, data.text_pair)):
        columns[column] = [" ".join(f"w{n}" for n in generator.integers(3, 50, 6)) for _ in range(size)]
    if recipe.evaluation.metrics and "pearson" in recipe.evaluation.metrics:
        columns[data.label] = [float(value) for value in generator.normal(2, 1, size)]
        return Dataset.from_dict(columns)
    labels = [task.label for task in recipe.tasks.values()] or [data.label]
    rows = Dataset.from_dict(columns | {label: [index % 7 for index in range(size)] for label in labels})
    for label in labels:
        rows = rows.cast_column(label, ClassLabel(names=list("abcdefg")))
    return rows.cast_column(data.image, Image()) if data.image else rows


# As another one but for their data, of which there is none here.
LIKE_OTHERS = {"beans", "big_similar", "emotion", "fashion_mnist", "food101", "imdb"}
LARGE = {"cifar10_vgg16"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS | LARGE else ())
        for name in sorted(list_recipes())
    ],
)
def test_a_shipped_recipe_takes_a_step(name, tmp_path):
    shipped = load_recipe(name)
    checkpoint = save_checkpoint(ARCHITECTURES[shipped.model.checkpoint], tmp_path / "checkpoint")
    # One step; stages take epochs, and need one step each.
    staged = shipped.strategy.kind in ("lp_ft", "gradual")
    recipe = shipped.with_overrides(
        f"model.checkpoint={checkpoint}",
        f"output_dir={tmp_path / 'run'}",
        "training.num_train_epochs=1" if staged else "training.max_steps=1",
        *(["strategy.train_blocks=1"] if shipped.strategy.kind == "freeze" else []),
        "training.per_device_train_batch_size=4",
        "evaluation.bootstrap=20",
        *(["data.max_length=16"] if shipped.task == "text-classification" else []),
    )
    assert recipe.strategy.kind == shipped.strategy.kind
    if recipe.distill is not None:
        teacher = recipe.with_overrides("distill=null", f"output_dir={tmp_path / 'teacher'}")
        recipe = recipe.with_overrides(f"distill.teacher={tmp_path / 'teacher'}")
    splits = {recipe.data.train_split, recipe.data.test_split, recipe.data.validation} - {None}
    data = DatasetDict({split: rows_for(recipe) for split in splits if isinstance(split, str)})
    if recipe.distill is not None:
        finetune(teacher, data=data, precision="no")
    run = finetune(recipe, data=data, precision="no")
    scores = run.metrics["test"]
    assert scores["samples"] == (28 if isinstance(recipe.data.test_split, str) else round(28 * recipe.data.test_split))
    assert run.metrics["train"]["steps"] == 1 or staged
    named = [f"{name}_{metric}" for name, task in shipped.tasks.items() for metric in task.metrics]
    for metric in named or shipped.evaluation.metrics:
        assert metric in scores
