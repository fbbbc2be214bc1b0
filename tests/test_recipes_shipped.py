"""Every shipped recipe, found by looking: valid, complete on one page, equal after a round trip."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY

import hf_finetune.recipes as recipes_package
from hf_finetune.recipes import list_recipes, load_recipe
from hf_finetune.recipes.json_schema import json_schema, schema_text
from hf_finetune.recipes.schema import Expected
from hf_finetune.recipes.shipped import shipped_files
from hf_finetune.recipes.yaml_text import read_yaml

FILES = sorted((REPOSITORY / "recipes").rglob("*.yaml"))
NAMED = (
    "digits pretrain_digits_vit pretrain_digits_resnet cifar10 cifar10_lora cifar10_resnet18 fashion_mnist beans "
    "food101 sst2 sst2_lora ag_news imdb mrpc stsb emotion cifar10_vgg16 cifar10_narrow_head cats_mobilenet "
    "flowers_small cells_small big_dissimilar big_similar cifar100_mixup ag_news_lp_ft imdb_gradual "
    "sst2_distill two_labels"
)


def test_the_promised_recipes_are_there_and_all_are_listed():
    assert set(NAMED.split()) <= {file.stem for file in FILES}
    assert set(list_recipes()) == {file.stem for file in FILES}
    assert len(FILES) == len({file.stem for file in FILES})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEvery:
    def test_loads_by_name_by_file_and_by_import(self, file):
        by_name = load_recipe(file.stem)
        assert by_name == load_recipe(str(file)) == getattr(recipes_package, file.stem)
        assert by_name.output_dir == f"runs/{file.stem}"

    def test_round_trips(self, file, tmp_path):
        recipe = load_recipe(file.stem)
        (tmp_path / "again.yaml").write_text(recipe.to_yaml())
        assert load_recipe(str(tmp_path / "again.yaml")) == recipe

    def test_opens_with_its_title_its_command_and_the_schema(self, file):
        title, command, modeline, *_ = file.read_text().splitlines()
        assert re.fullmatch(r"# .{20,}\.", title)
        assert command == f"#   accelerate launch hf_finetune/run.py recipe={file.stem}"
        assert modeline == "# yaml-language-server: $schema=./schema.json"

    def test_is_one_page_in_the_schemas_order_and_complete(self, file):
        text = file.read_text()
        assert len(text.splitlines()) <= 50
        keys = list(read_yaml(text).value)
        recipe = load_recipe(file.stem)
        assert keys == [key for key in recipe.written() if key in keys]
        assert {"task", "model", "data", "strategy", "training", "evaluation", "expected", "output_dir"} <= set(keys)
        assert {"num_train_epochs", "learning_rate", "per_device_train_batch_size"} <= set(recipe.training.values())

    def test_is_what_the_schema_says_for_every_reader_of_yaml(self, file):
        validator = jsonschema.Draft202012Validator(json_schema())
        as_text = read_yaml(file.read_text()).value
        as_yaml_11 = yaml.safe_load(file.read_text())
        for document in (as_text, as_yaml_11, load_recipe(file.stem).written()):
            # Through JSON: an editor sees lists and text, not tuples and our own text class.
            assert [e.message for e in validator.iter_errors(json.loads(json.dumps(document)))] == []

    def test_is_in_the_table_with_its_checkpoint_and_strategy(self, file):
        table = (REPOSITORY / "recipes" / "README.md").read_text().splitlines()
        rows = [line for line in table if line.startswith(f"| [{file.stem}]({file.name})")]
        recipe = load_recipe(file.stem)
        assert len(rows) == 1
        assert f"| {recipe.model.checkpoint} | {recipe.strategy.kind} |" in rows[0]


def test_the_committed_schema_is_in_step():
    committed = (REPOSITORY / "recipes" / "schema.json").read_text()
    assert committed == schema_text(), "run: hf-finetune schema > recipes/schema.json"


@pytest.mark.parametrize(
    "change",
    [{"sed": 0}, {"strategy": "lroa"}, {"strategy": {"kind": "full", "r": 4}}, {"training": {"learning_rate": "fast"}}],
)
def test_the_schema_refuses_what_a_recipe_refuses(change):
    document = json.loads(json.dumps(load_recipe("digits").written())) | change
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(document)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "3"},
        {"strategy": "lora"},
        {"training": {"learning_rate": "1e-4", "num_train_epochs": 3, "tf32": "true"}},
    ],
)
def test_the_schema_takes_what_a_recipe_takes(change):
    document = json.loads(json.dumps(load_recipe("digits").written())) | change
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(document)


def test_no_recipe_hides_a_module_of_its_package():
    modules = {file.stem for file in (REPOSITORY / "hf_finetune" / "recipes").glob("*.py")}
    assert not modules & set(shipped_files())
    assert all(name.isidentifier() for name in shipped_files())


def test_a_run_ends_with_what_its_recipe_expects():
    from hf_finetune.training.scoring import Report

    report = Report(
        {"train": {"seconds": 1.0, "total_seconds": 2.0}, "test": {"accuracy": 0.9, "samples": 10}}, None, None
    )
    expected = Expected(metric="accuracy", split="test", value=0.91, interval=(0.9, 0.92), seeds=3)
    line = "The recipe's own figure: test accuracy 0.9100 (95% between 0.9000 and 0.9200), mean of 3 seeds."
    assert line in report.in_words(Path("run"), expected).splitlines()
    assert "own figure" not in report.in_words(Path("run"))
    assert load_recipe("digits").expected is not None
