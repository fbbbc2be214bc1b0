"""docs/migrating.md has every option of the example scripts and of TrainingArguments, and what it points to exists."""

import dataclasses
import re

import pytest
from docs_pages import text_of
from transformers import TrainingArguments

from hf_finetune import load_recipe
from hf_finetune.errors import RecipeError
from hf_finetune.recipes.schema import Recipe
from hf_finetune.recipes.training_arguments import ELSEWHERE, Training

PAGE = text_of("docs/migrating.md")
_BOTH = (
    "model_name_or_path", "config_name", "cache_dir", "model_revision", "token", "trust_remote_code",
    "ignore_mismatched_sizes", "dataset_name", "dataset_config_name", "max_train_samples", "max_eval_samples",
)  # fmt: skip
# The fields of the scripts' ModelArguments and DataTrainingArguments.
SCRIPTS = {
    "image": {*_BOTH, "model_type", "image_processor_name", "train_dir", "validation_dir", "train_val_split",
              "image_column_name", "label_column_name"},
    "text": {*_BOTH, "tokenizer_name", "use_fast_tokenizer", "task_name", "max_seq_length", "overwrite_cache",
             "pad_to_max_length", "max_predict_samples", "train_file", "validation_file", "test_file"},
}  # fmt: skip
ARGUMENTS = {field.name for field in dataclasses.fields(TrainingArguments)}


def rows(part, columns):
    """The cells of a part's table."""
    text = PAGE.split(f"## {part}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `--")]
    assert lines and columns
    return [[cell.strip() for cell in line] for line in re.findall(r"^\| (`--.*?) \|(.*)$", text, re.M)]


def options(cell):
    return re.findall(r"`--(\w+)`", cell)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_options_are_all_there_and_no_others(script):
    said = {name for first, rest in rows("The scripts' own options", 4) if script in rest.split("|")[0]
            for name in options(first)}  # fmt: skip
    assert said == SCRIPTS[script]


def test_training_arguments_that_are_elsewhere_are_all_there_and_exist():
    said = {name for first, _ in rows("TrainingArguments", 2) for name in options(first)}
    older = {"do_train", "do_eval", "do_predict", "local_rank"}  # of the scripts, or of other releases
    assert said - ARGUMENTS <= older
    assert said == {name for name in ELSEWHERE if name in ARGUMENTS | older}


def test_all_other_training_arguments_keep_their_names():
    kept = {name for name in ARGUMENTS - set(ELSEWHERE) if not name.startswith("_")}
    assert kept <= set(Training.model_fields)


def test_the_keys_it_points_to_exist():
    keys = set(re.findall(r"`((?:model|data|training|evaluation|hub|strategy)(?:\.\w+)+)", PAGE))
    assert len(keys) > 15
    for key in keys:
        section, name = key.split(".")[:2]
        field = Recipe.model_fields[section].annotation
        known = getattr(field, "model_fields", None) or {"head_lr_multiplier": 1}
        assert name in known, key


def test_names_of_older_releases_are_errors_that_name_todays():
    for name in re.search(r"Names of older releases \(([^)]*)\)", PAGE)[1].replace("`", "").split(", "):
        with pytest.raises(RecipeError, match=r"today|never overwrites"):
            load_recipe("digits", f"training.{name.removeprefix('--')}=1")
