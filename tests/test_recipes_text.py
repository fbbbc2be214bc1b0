"""Text becomes values by the field it lands in: YAML, command line and Python by one rule."""

import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_finetune.errors import RecipeError
from hf_finetune.recipes import Recipe, load_recipe
from hf_finetune.recipes.optimizer_names import PLAIN_OPTIMIZERS
from hf_finetune.recipes.training_arguments import ELSEWHERE, OWN, REMOVED, Training
from hf_finetune.recipes.yaml_text import Plain, read_value, read_yaml, write_yaml

# --- reading ---------------------------------------------------------------------------------------------------------


def test_only_null_lists_mappings_and_quotes_mean_something():
    value = read_yaml("a: 1e-4\nb: no\nc: 0123456\nd: '1'\ne: null\nf:\ng: [1, x]\nh: {k: ~}\ni: 2024-01-01").value
    assert value == {
        **{"a": "1e-4", "b": "no", "c": "0123456", "d": "1", "e": None, "f": None},
        **{"g": ["1", "x"], "h": {"k": None}, "i": "2024-01-01"},
    }
    assert isinstance(value["a"], Plain) and not isinstance(value["d"], Plain)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\na: 2\n", 2, "twice"),
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("a: 1\nb: *x\n", 2, "aliases"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "tags"),
        ("a: [1\nb: 2\n", 2, "not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "one YAML document"),
        ("? [a]\n: 1\n", 1, "key must be text"),
        ("[" * 40 + "]" * 40, 1, "deep"),
    ],
)
def test_what_is_not_part_of_a_recipe_is_named_with_its_line(text, line, word):
    (_, found, message), *_ = read_yaml(text).faults
    assert word in message and found == line


def test_billion_laughs_stays_small():
    text = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefghijk", "bcdefghijkl", strict=True)
    )
    assert len(str(read_yaml(text).value)) < 1000


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.recursive(leaves, lambda x: st.lists(x, max_size=3), max_leaves=5)
    )
)
@settings(max_examples=150, deadline=None)
def test_what_is_written_reads_again(value):
    from hf_finetune.recipes.training_arguments import _leaves

    assert _leaves(read_yaml(write_yaml(value)).value) == value


@pytest.mark.parametrize("text", ["[a", "{a: 1", "'a", "[0-9]*.csv"])
def test_a_value_that_begins_as_structure_must_be_one(text):
    with pytest.raises(ValueError, match="YAML"):
        read_value(text)


# --- types -----------------------------------------------------------------------------------------------------------


def test_text_takes_the_type_of_its_field():
    recipe = load_recipe(
        "digits",
        "training.learning_rate=1e-4",
        "model.revision=0123456",
        "training.eval_strategy=epoch",
        "training.dataloader_pin_memory=false",
        "training.report_to=[trackio, tensorboard]",
        "training.lr_scheduler_kwargs={num_cycles: 2, name: '3', rates: [1e-3, true, null]}",
        "data.max_train_samples=100",
        "data.label='null'",
        "data.test_split=0.25",
        "evaluation.metrics=accuracy",
    )
    values = recipe.training.values()
    assert values["learning_rate"] == 1e-4 and isinstance(values["learning_rate"], float)
    assert recipe.model.revision == "0123456"
    assert values["dataloader_pin_memory"] is False and values["report_to"] == ["trackio", "tensorboard"]
    assert values["lr_scheduler_kwargs"] == {"num_cycles": 2, "name": "3", "rates": [1e-3, True, None]}
    assert recipe.data.max_train_samples == 100 and recipe.data.label == "null" and recipe.data.test_split == 0.25
    assert recipe.evaluation.metrics == ("accuracy",)


def test_a_key_inside_a_mapping_can_be_set():
    recipe = load_recipe(
        "digits", "training.lr_scheduler_kwargs.num_cycles=2", "data.dataset.train=a.csv", "data.test_split=0.1"
    )
    assert recipe.training.values()["lr_scheduler_kwargs"] == {"num_cycles": 2}
    assert recipe.data.dataset == {"train": "a.csv"}


def test_training_is_transformers_training_arguments():
    """The names come from the source; here they are compared with the class itself."""
    from transformers import TrainingArguments

    theirs = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    ours = set(Training.model_fields)
    assert not set(OWN) & theirs
    assert ours - set(OWN) == {name for name in theirs if name not in ELSEWHERE and not name.startswith("_")}
    assert set(ELSEWHERE) <= theirs, "no longer an argument: move it to REMOVED"
    assert not set(REMOVED) & theirs
    assert all(field.default is None for field in Training.model_fields.values())
    assert all(field.description for field in Training.model_fields.values())


def test_every_enumerated_value_is_one_that_transformers_takes():
    import typing

    from transformers import SchedulerType, TrainingArguments
    from transformers.trainer_utils import IntervalStrategy, SaveStrategy
    from transformers.training_args import OptimizerNames

    for name, theirs in (
        ("lr_scheduler_type", SchedulerType),
        ("eval_strategy", IntervalStrategy),
        ("save_strategy", SaveStrategy),
        ("optim", OptimizerNames),
    ):
        literal, _ = typing.get_args(Training.model_fields[name].annotation)
        ours = set(PLAIN_OPTIMIZERS) if name == "optim" else set()
        assert set(typing.get_args(literal)) == {member.value for member in theirs} | ours
    assert Training(lr_scheduler_type=SchedulerType.COSINE).values() == {"lr_scheduler_type": "cosine"}
    assert TrainingArguments(**load_recipe("cifar10").training.values(), use_cpu=True).learning_rate == 3e-4


# --- writing ---------------------------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=12).filter(lambda text: text.strip())
heads = st.just({"kind": "linear"}) | st.fixed_dictionaries(
    {
        "kind": st.just("mlp"),
        "hidden": st.lists(st.integers(1, 9999), min_size=1, max_size=3),
        "dropout": st.floats(0, 0.99),
    }
)
kinds = st.sampled_from([{"kind": "full"}, {"kind": "head"}, {"kind": "scratch"}, "lora"]) | st.fixed_dictionaries(
    {
        "kind": st.just("lora"),
        "r": st.integers(1, 512),
        "alpha": st.floats(1e-6, 1e6),
        "targets": st.none() | st.lists(names, max_size=3),
        "merge": st.booleans(),
    }
)
mappings = st.dictionaries(names, leaves, min_size=1, max_size=3)
recipes = st.fixed_dictionaries(
    {
        "task": st.just("image-classification"),
        "model": st.fixed_dictionaries({"checkpoint": names, "revision": st.none() | names, "head": heads}),
        "data": st.fixed_dictionaries(
            {
                "dataset": names | st.lists(names, min_size=1, max_size=2),
                "image": st.just("the image"),
                "label": st.none() | names,
                "validation": st.floats(1e-6, 0.5),
                "test_split": st.just("test") | st.none() | st.floats(1e-6, 0.49),
            }
        ),
        "strategy": kinds,
        "training": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.floats(1e-12, 10),
                "max_steps": st.integers(-1, 10**9),
                "optim_args": names,
                "tf32": st.booleans(),
                "report_to": st.just("none") | st.lists(names, min_size=1, max_size=2),
                "lr_scheduler_kwargs": mappings,
            },
        ),
        "seed": st.integers(0, 2**32 - 1),
        "output_dir": names,
    }
)


@given(values=recipes)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_recipe_round_trips_exactly(values, tmp_path):
    recipe = Recipe.model_validate(values)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    again = load_recipe(str(file))
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


def test_the_header_cannot_carry_keys():
    recipe = load_recipe("digits").model_copy(update={"output_dir": "x"})
    sneaky = recipe.with_overrides('model.checkpoint="a\\nseed: 7\\u2028seed: 8"')
    assert sneaky.model.checkpoint.startswith("a\nseed")
    header = [line for line in sneaky.to_yaml().splitlines() if line.startswith("#")]
    assert len(header) == 3 and read_yaml(sneaky.to_yaml()).value["seed"] == "0"


def test_a_number_that_is_not_finite_is_refused():
    for text in ("nan", "inf", "-inf"):
        with pytest.raises(RecipeError, match=r"training\.learning_rate"):
            load_recipe("digits", f"training.learning_rate={text}")
    assert math.isfinite(load_recipe("digits").training.values()["learning_rate"])
