"""What a command of `compare` means: axes, combinations, budgets; everything wrong is told at once, before any run."""

import json
import re

import pytest

from hf_finetune.advice.compare_plan import plan_of
from hf_finetune.advice.seeds import at_seed
from hf_finetune.choice.auto import with_chosen
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.grid import axes_of, cells_of, split_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("head,lora,full", ["head", "lora", "full"]),
        ("[64,64]", ["[64,64]"]),
        ("[64,64],[128]", ["[64,64]", "[128]"]),
        ("{kind: lora, r: 4},head", ["{kind: lora, r: 4}", "head"]),
        ('"a,b.csv",c.csv', ['"a,b.csv"', "c.csv"]),
        ("it's,so", ["it's", "so"]),
    ],
)
def test_commas_divide_values_outside_of_brackets_and_quotes(text, values):
    assert split_values(text) == values


def names(*pairs, strategy="full"):
    axes, common, faults = axes_of(pairs)
    assert not faults
    return {cell.name: cell.pairs for cell in cells_of(axes, common, {"strategy": strategy, "model.head": "linear"})}


def test_every_combination_is_one_recipe():
    found = names("strategy=head,full", "model.checkpoint=google/a,timm/b", "training.num_train_epochs=2")
    assert list(found) == ["head, a", "head, b", "full, a", "full, b"]
    assert found["full, b"] == ("training.num_train_epochs=2", "strategy=full", "model.checkpoint=timm/b")


def test_checkpoints_of_one_last_name_keep_the_whole():
    assert list(names("model.checkpoint=google/vit,mine/vit")) == ["google/vit", "mine/vit"]


def test_a_key_that_only_some_strategies_have_is_laid_over_those():
    found = names("strategy=head,lora", "strategy.r=4,8", "strategy.merge=true")
    assert list(found) == ["head", "lora, r=4", "lora, r=8"]
    assert found["head"] == ("strategy=head",)
    assert "strategy.merge=true" in found["lora, r=4"]


def test_a_key_that_none_of_them_has_stays_the_fault_it_is():
    assert names("strategy=head,full", "strategy.r=4")["head"] == ("strategy.r=4", "strategy=head")
    with pytest.raises(RecipeError, match=r"strategy\.r"):
        plan_of("digits", ["strategy=head,full", "strategy.r=4"])


def test_folders_are_names_that_every_file_system_takes():
    axes, common, _ = axes_of(["data.augment={flip: 0.5},{flip: 0.5, crop: [0.5, 1]},none"])
    folders = [cell.folder for cell in cells_of(axes, common, {"strategy": "full", "model.head": "linear"})]
    assert len(set(folders)) == 3
    assert all(re.fullmatch(r"[\w.=-]+", folder, re.ASCII) for folder in folders)


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(RecipeError) as told:
        plan_of(
            "digits",
            ["strategy=head,lorra", "seed=1,2", "evaluation.test=true,false", "training.lerning_rate=1",
             "evaluation.metrics=accuracy,macro_f1",
             "data.augment=none,", f"output_dir={tmp_path}"],
            "ten",
        )  # fmt: skip
    text = str(told.value)
    wanted = [
        "lorra",
        "seeds=N",
        "evaluation.test",
        "training.learning_rate",
        "[accuracy,macro_f1]",
        "empty value",
        "budget",
        "10min",
    ]
    assert [part for part in wanted if part not in text] == []
    assert text.count("lerning_rate") == 1  # of both combinations, told once
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_one_combination_names_it():
    with pytest.raises(RecipeError, match=r"lorra: .*lora"):
        plan_of("digits", ["strategy=head,lorra"])


def test_something_must_differ():
    with pytest.raises(RecipeError, match="strategy=head,lora,full"):
        plan_of("digits", ["seeds=5"])


@pytest.mark.parametrize(("budget", "minutes"), [("10min", 10), ("90s", 1.5), ("2 h", 120), ("7", 7), ("0.5m", 0.5)])
def test_a_budget_is_minutes_of_training_for_each(budget, minutes):
    plan = plan_of("digits", ["strategy=head,full"], budget)
    assert plan.minutes == pytest.approx(minutes)
    given = [recipe.training.values()["max_minutes"] for recipe in plan.cells.values()]
    assert given == pytest.approx([minutes, minutes])
    assert f"{minutes:g} minutes" in plan.in_words()


def test_without_one_all_have_the_same_epochs():
    assert "the same 15 epochs each" in plan_of("digits", ["strategy=head,full"]).in_words()
    assert "unequal budgets: 1 epoch, 2 epochs" in plan_of("digits", ["training.num_train_epochs=1,2"]).in_words()
    with pytest.raises(RecipeError, match="the same thing"):
        plan_of("digits", ["strategy=head,full", "training.max_minutes=3"], "1h")


def test_the_runs_are_ordinary_ones_on_the_same_rows():
    plan = plan_of("digits", ["strategy=head,full", "seeds=3", "seed=7"])
    trials = plan.trials()
    assert list(trials)[:3] == ["head, seed 7", "full, seed 7", "head, seed 8"]  # all are seen early
    recipes = [recipe for _, _, recipe in trials.values()]
    assert {recipe.seeds for recipe in recipes} == {1} and {recipe.data_seed for recipe in recipes} == {7}
    folder = "runs/digits-compare/head"
    assert [recipe.output_dir for recipe in recipes][:4:2] == [folder, f"{folder}/seeds/8"]
    assert all(recipe == load_recipe_of(recipe) for recipe in recipes)


def load_recipe_of(recipe):
    from hf_finetune.recipes.schema import Recipe

    return Recipe.model_validate(recipe.model_dump())


def test_learning_rates_are_those_of_each_strategy_and_that_is_said():
    plan = plan_of("digits", ["strategy=head,full"])
    assert any(note.startswith("head: ") and "learning rate" in note for note in plan.notes)
    assert "learning_rate" not in plan.cells["head"].training.values()
    assert plan.cells["full"].training.values()["learning_rate"] == 5e-4


def test_a_folder_in_the_way_is_told_before_any_run(tmp_path):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "thesis.txt").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "recipe.yaml").write_text(load_recipe("digits", "strategy=lora").to_yaml())
    with pytest.raises(UserError) as told:
        plan_of("digits", ["strategy=head,full", f"output_dir={tmp_path}"])
    assert "thesis.txt" in str(told.value) and "another recipe" in str(told.value)


def test_what_auto_has_chosen_is_no_other_recipe(tmp_path):
    """The same command again, and with more seeds, after auto has chosen and run."""
    pairs = ["strategy=auto,head", f"output_dir={tmp_path}"]
    (tmp_path / "auto" / "seeds" / "1").mkdir(parents=True)
    chosen = {"strategy": {"kind": "lora"}, "training": {"learning_rate": 0.01, "num_train_epochs": 2}}
    asked = load_recipe("digits", "strategy=auto", "training.num_train_epochs=null").written()
    (tmp_path / "auto" / "advice.json").write_text(json.dumps({"chosen": chosen, "asked": asked}))
    for place, recipe in (("auto", 0), ("auto/seeds/1", 1)):
        own = at_seed(
            with_chosen(load_recipe("digits", "strategy=auto", f"output_dir={tmp_path}/auto"), chosen), recipe
        )
        (tmp_path / place / "recipe.yaml").write_text(own.model_copy(update={"expected": None}).to_yaml())
        (tmp_path / place / "metrics.json").write_text("{}")
    assert "unequal budgets" in plan_of("digits", [*pairs, "seeds=2", "training.num_train_epochs=null"]).in_words()
    (tmp_path / "auto" / "advice.json").unlink()
    with pytest.raises(UserError, match="another recipe's run"):
        plan_of("digits", [*pairs, "seeds=2", "training.num_train_epochs=null"])


def test_a_runs_folder_is_no_comparisons(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="a folder of its own"):
        plan_of("digits", ["strategy=head,full", f"output_dir={tmp_path}"])
