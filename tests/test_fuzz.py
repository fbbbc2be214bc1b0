"""A small part of `tests/faults/fuzz.py`: what reads recipes refuses in words or accepts what there is."""

import pytest
from faults.fuzz import Overrides, Tally, Yaml, fuzz, make_inputs
from faults.fuzz_images import fuzz_images

from hf_finetune.errors import RecipeError
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.yaml_text import read_yaml


@pytest.fixture(scope="module")
def inputs():
    return make_inputs(seed=2026)


def test_overrides(inputs):
    tally = fuzz(Overrides(), inputs.override, 400, Tally())
    assert not tally.wrong, tally.wrong[:3]
    assert tally.counts["accepted"] > 40 and tally.counts["refused"] > 40


def test_recipes(inputs):
    tally = fuzz(Yaml(), inputs.recipe, 250, Tally())
    assert not tally.wrong, tally.wrong[:3]
    assert tally.counts["accepted"] > 5 and tally.counts["refused"] > 40


def test_the_judge_sees_a_key_that_is_not_taken():
    recipe = load_recipe("digits")
    assert Yaml().lacking(recipe.to_yaml(), recipe) is None
    assert Yaml().lacking(f"{recipe.to_yaml()}\nsneaked: 1\n", recipe) == "sneaked"
    assert Overrides().lacking("seeed=1", recipe) == "seeed"


@pytest.mark.parametrize("text", ['"\\UFFFFFFFF"', '"\\U7FFFFFFF"', "%YAML 9" + "9" * 5000 + ".1\n---\na: b"])
def test_what_breaks_the_parser_is_a_fault(text):
    assert "not YAML" in read_yaml(text).faults[0][2]


@pytest.mark.parametrize(
    "pair",
    [
        'output_dir="\\UFFFFFFFF"',
        "output_dir=\udcff",
        "training.lr_scheduler_kwargs" + ".a" * 2000 + "=1",
        "training.lr_scheduler_kwargs..a=1",
        "a" + ".a" * 50_000 + "=1",
        "training.lr_scheduler_kwargs={a: 1e999}",
        "seed=" + "9" * 5000,
        "seed=99999999999",
    ],
)
def test_what_broke_overrides_is_a_fault(pair):
    with pytest.raises(RecipeError):
        load_recipe("digits", pair)


@pytest.mark.parametrize(
    "key", ["evaluation: {metrics: %s}", "evaluation: {best: %s}", "output_dir: %s", "strategy: %s"]
)
def test_half_a_character_is_told_wherever_it_stands(key, tmp_path):
    (tmp_path / "a.yaml").write_text(load_recipe("digits").to_yaml() + "\n" + key % '"x\\ud800"')
    with pytest.raises(RecipeError, match="half a character"):
        load_recipe(str(tmp_path / "a.yaml"))


def test_a_split_of_thousands_of_digits_does_not_break_another_data_set():
    recipe = load_recipe("cifar10", f"data.train_split={'9' * 5000}")
    with pytest.raises(RecipeError):
        recipe.with_overrides("data.dataset=x", "data.revision=[")


@pytest.mark.filterwarnings("ignore")
def test_images():
    figures = fuzz_images(400)
    assert not figures["first_wrong"], figures["first_wrong"][:3]
    assert figures["data decoded"] > 50 and figures["data refused"] > 50
