"""Overrides: kinds and fields in either order, what must not stay behind, and every fault at once with its origin."""

import itertools

import pytest
from hub_samples import download

from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes import Recipe, load_recipe
from hf_finetune.recipes.load import resolve
from hf_finetune.recipes.origins import with_origins
from hf_finetune.recipes.rates import default_learning_rate
from hf_finetune.recipes.schema import Full, Lora, MlpHead


def faults_of(*pairs, recipe="cifar10"):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, pairs)
    return {fault.path: fault for fault in caught.value.faults}


# --- kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pairs", list(itertools.permutations(["strategy=lora", "strategy.r=4", "strategy.merge=true"]))
)
def test_a_kind_and_its_fields_come_in_any_order(pairs):
    assert load_recipe("cifar10", *pairs).strategy == Lora(r=4, merge=True)


def test_a_kind_can_be_chosen_in_three_ways():
    for pair in ("strategy=lora", "strategy.kind=lora", "strategy={kind: lora}"):
        assert load_recipe("cifar10", pair).strategy == Lora()
    assert load_recipe("cifar10", "model.head.hidden=[8, 4]", "model.head=mlp").model.head == MlpHead(hidden=(8, 4))


def test_another_kind_drops_the_fields_of_the_first_and_the_same_kind_keeps_them():
    assert load_recipe("cifar10_lora", "strategy=full").strategy == Full()
    assert load_recipe("cifar10_lora", "strategy=lora").strategy == load_recipe("cifar10_lora").strategy != Lora()


def test_a_field_of_another_kind_says_which_kind_has_it():
    fault = faults_of("strategy.r=4")["strategy.r"]
    assert "strategy lora" in fault.message and "kind is full" in fault.message


# --- what must not stay behind ---------------------------------------------------------------------------------------


def test_a_rate_tuned_for_another_strategy_does_not_stay_and_is_said():
    resolved = resolve("cifar10", ["strategy=head"])
    assert "learning_rate" not in resolved.recipe.training.values()
    assert default_learning_rate(resolved.recipe) == 1e-3
    (note,) = resolved.notes
    assert "3e-4" in note and "full" in note and "head" in note and "0.001" in note
    kept = resolve("cifar10", ["training.learning_rate=0.5", "strategy=head"])
    assert kept.recipe.training.values()["learning_rate"] == 0.5 and not kept.notes
    same = resolve("cifar10", ["strategy=full"])
    assert same.recipe == load_recipe("cifar10") and not same.notes


def test_python_overrides_follow_the_same_rules(capsys):
    recipe = load_recipe("cifar10")
    assert recipe.with_overrides("strategy=lora", "strategy.r=4") == load_recipe(
        "cifar10", "strategy=lora", "strategy.r=4"
    )
    assert "learning rate" in capsys.readouterr().out
    assert recipe == load_recipe("cifar10"), "the first recipe is unchanged"
    with pytest.raises(RecipeError, match="override"):
        recipe.with_overrides("sed=1")


def test_a_pinned_revision_goes_with_its_checkpoint_and_data_set(tmp_path):
    pinned = load_recipe("mrpc", "model.revision=abc", "data.revision=def")
    (tmp_path / "pinned.yaml").write_text(pinned.to_yaml())
    file = str(tmp_path / "pinned.yaml")
    other = resolve(file, ["model.checkpoint=me/mine", "data.dataset=me/pairs"])
    assert (other.recipe.model.revision, other.recipe.data.revision, other.recipe.data.config) == (None, None, None)
    assert len(other.notes) == 2
    assert load_recipe(file, "model.checkpoint=me/mine", "model.revision=new").model.revision == "new"
    assert load_recipe(file, "model.checkpoint=google-bert/bert-base-uncased").model.revision == "abc"


def test_columns_and_splits_go_with_their_data_set_and_what_the_user_says_stays():
    resolved = resolve("beans", ["data.dataset=photos/"])
    data = resolved.recipe.data
    assert (data.image, data.label, data.train_split, data.test_split, data.validation) == (
        None,
        None,
        "auto",
        "auto",
        0.1,
    )
    (note,) = resolved.notes
    assert "image 'image', label 'labels'" in note and "validation 'validation'" in note and "beans" in note
    said = load_recipe("beans", "data.dataset=photos/", "data.label=kind", "data.test_split=0.3", "data.validation=dev")
    assert (said.data.label, said.data.test_split, said.data.validation) == ("kind", 0.3, "dev")
    assert load_recipe("sst2", "data.dataset=a.csv").data.validation == 0.05, "a share fits any data"
    assert load_recipe("beans").with_overrides("data.dataset=photos/").data == data


def test_pairs_keep_their_columns_until_others_are_named():
    kept = load_recipe("mrpc", "data.dataset=local/msr_paraphrase", "data.config=null", "data.test_split=test").data
    assert (kept.text, kept.text_pair, kept.label) == ("sentence1", "sentence2", None)
    single = load_recipe("stsb", "data.dataset=local/movie_ratings", "data.text=text", "data.label=rating").data
    assert (single.text, single.text_pair, single.label) == ("text", None, "rating")


def test_a_data_set_of_files_names_its_splits():
    with pytest.raises(RecipeError, match="'test' is not among the splits"):
        load_recipe("cifar10", "data.dataset={train: a.csv}", "data.test_split=test")
    assert load_recipe("cifar10", "data.dataset={train: a.csv}").data.test_split == "auto"


def test_fields_of_a_section_left_to_its_default_belong_to_the_default_kind(tmp_path):
    recipe = tmp_path / "bare.yaml"
    recipe.write_text("task: text-classification\nmodel: {checkpoint: x}\ndata: {dataset: a.csv}\n")
    assert load_recipe(str(recipe), "strategy.head_lr_multiplier=5").strategy == Full(head_lr_multiplier=5)
    fault = faults_of("strategy.r=4", recipe=str(recipe))["strategy.r"]
    assert "only strategy lora has this key" in fault.message
    assert "only model.head mlp" in faults_of("model.head.hidden=[8]", recipe=str(recipe))["model.head.hidden"].message


def test_a_measured_result_stays_only_with_the_recipe_it_was_measured_on():
    measured = load_recipe("digits", "expected={metric: accuracy, split: test, value: 0.98}")
    assert measured.with_overrides("seed=3", "output_dir=elsewhere").expected == measured.expected
    assert measured.with_overrides("training.num_train_epochs=1").expected is None


def test_of_a_key_given_twice_the_last_one_holds():
    assert load_recipe("digits", "seed=1", "seed=2").seed == 2


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "path", "words"),
    [
        ("traning.learning_rate=1", "traning.learning_rate", "did you mean training.learning_rate?"),
        ("strategy.rank=4", "strategy.rank", "did you mean strategy.r?"),
        ("lr=1e-3", "lr", "did you mean training.learning_rate?"),
        ("learning_rate=1e-3", "learning_rate", "did you mean training.learning_rate?"),
        ("training.learning-rate=1", "training.learning-rate", "did you mean training.learning_rate?"),
        ("model.name=x", "model.name", "did you mean model.checkpoint?"),
        ("zzz=1", "zzz", "a recipe has task, model, data"),
        ("seed.more=1", "seed.more", "seed takes a value"),
        ("training.output_dir=x", "training.output_dir", "own key output_dir"),
        ("training.bf16=true", "training.bf16", "precision=auto|no|bf16|fp16"),
        ("training.load_best_model_at_end=true", "training.load_best_model_at_end", "evaluation.best"),
        ("training.push_to_hub=true", "training.push_to_hub", "where files are pushed"),
        ("training.deepspeed=x.json", "training.deepspeed", "accelerate_configs/"),
        ("training.use_cpu=true", "training.use_cpu", "--cpu"),
        ("training.warmup_ratio=0.1", "training.warmup_ratio", "training.warmup_steps"),
        ("training.evaluation_strategy=epoch", "training.evaluation_strategy", "training.eval_strategy"),
        ("training.learning_rate=fast", "training.learning_rate", "'fast' must be a number"),
        ("training.num_train_epochs=-1", "training.num_train_epochs", "more than 0"),
        ("training.eval_strategy=epochs", "training.eval_strategy", "did you mean epoch?"),
        ("training.eval_strategy=no", "training.eval_strategy", "use epoch or steps"),
        ("training.warmup_steps=1.5", "training.warmup_steps", "whole number of steps"),
        ("strategy=lroa", "strategy", "did you mean lora?"),
        ("model.head={kind: mlp, hidden: []}", "model.head.hidden", "at least 1"),
        ("data.validation=1.5", "data.validation", "less than 1, or a split's name"),
        ("data.on_error=ignore", "data.on_error", "raise, skip"),
        ("data.max_train_samples=0", "data.max_train_samples", "more than 0"),
        ("seed=1.5", "seed", "'1.5' must be a whole number"),
        ("task=null", "task", "image-classification"),
        ("data.test_split=train", "data.test_split", "train split too"),
        ("data.validation=test", "data.validation", "test split too"),
        ("data.validation=train", "data.validation", "train split too"),
        ("data.text=title", "data.text", "is for text"),
        ("data.max_length=9", "data.max_length", "is for text"),
        ("data.label=img", "data.label", "same column as data.image"),
        ("data.train_split=train[:10]", "data.train_split", "data.max_train_samples=N"),
        ("data.test_split=test[:10]", "data.test_split", "data.max_eval_samples=N"),
        ("evaluation.metrics=[acuracy]", "evaluation.metrics", "did you mean accuracy?"),
        ("evaluation.metrics=[accuracy, mse]", "evaluation.metrics", "no kind of problem has all"),
        ("evaluation.best=ece", "evaluation.best", "not among evaluation.metrics"),
        ("strategy", "'strategy'", "write strategy=VALUE"),
        ("lora", "'lora'", "did you mean strategy=lora?"),
        ("--seed=3", "--seed", "write seed=3"),
        ("seed=", "seed", "seed=null"),
        ("=3", "'=3'", "not key=value"),
        ("data.dataset=[0-9]*.csv", "data.dataset", "quote it"),
    ],
)
def test_a_fault_says_where_and_what_to_do(pair, path, words):
    fault = faults_of(pair)[path]
    assert words in fault.message
    assert fault.origin == "command line" or "splits" in words


@pytest.mark.parametrize(
    ("pair", "path", "words"),
    [
        ("data.image=picture", "data.image", "is for images"),
        ("data.augment=basic", "data.augment", "are for images"),
        ("data.text=null", "data.text_pair", "needs data.text"),
        ("data.text=sentence2", "data.text_pair", "same column as data.text"),
        ("data.problem_type=regression", "evaluation.metrics", "not a metric for regression"),
    ],
)
def test_faults_of_text_recipes(pair, path, words):
    assert words in faults_of(pair, recipe="mrpc")[path].message


def test_shares_must_leave_something_to_train_on():
    assert "nothing to train on" in faults_of("data.validation=0.5", "data.test_split=0.5")["data.validation"].message


def test_metrics_of_the_hub_are_named_not_judged():
    assert load_recipe("cifar10", "evaluation.metrics=[accuracy, evaluate:me/mine]").evaluation.metrics is not None


def test_all_faults_come_at_once_pairs_too():
    faults = faults_of("sed=1", "training.learning_rate=fast", "data.text=title", "lora", "strategy.r=2")
    assert set(faults) == {"sed", "training.learning_rate", "data.text", "'lora'", "strategy.r"}


def test_a_file_is_named_with_the_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "task: image-classification\nmodel: {checkpoint: a/b}\ndata:\n  dataset: c/d\n  lable: x\nsed: 3\nseed: a\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file), "output_dir=x", "trainig.max_steps=3")
    assert {(fault.path, fault.origin) for fault in caught.value.faults} == {
        ("data.lable", "mine.yaml line 5"),
        ("sed", "mine.yaml line 6"),
        ("seed", "mine.yaml line 7"),
        ("trainig.max_steps", "override"),
    }
    assert "did you mean data.label?" in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\n")
    with pytest.raises(RecipeError, match=r"task .*missing") as caught:
        load_recipe(str(file))
    assert {fault.path for fault in caught.value.faults} == {"task", "model", "data"}
    file.write_text("[a, b]")
    with pytest.raises(RecipeError, match="keys and values"):
        load_recipe(str(file))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar", "did you mean cifar10"),
        ("nothing.yaml", "cannot be read"),
        ("a/folder", "neither a .yaml file nor"),
        ("hub:not a name", "hub:owner/name"),
        ("hub:nobody/nothing", "cannot be reached"),
    ],
)
def test_a_recipe_that_is_not_there(name, words):
    with pytest.raises(UserError, match=words):
        load_recipe(name)


# --- where recipes come from -----------------------------------------------------------------------------------------


def test_a_runs_folder_is_a_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(load_recipe("digits").to_yaml())
    assert load_recipe(str(tmp_path)) == load_recipe("digits")


def test_a_recipe_from_the_hub_does_not_choose_where_things_go(tmp_path, monkeypatch):
    theirs = load_recipe(
        "digits", "output_dir=/etc/cron.d", "training.report_to=[wandb]", "training.trackio_space_id=them/theirs"
    )
    download("them/digits-of-mine", theirs, tmp_path, monkeypatch)
    resolved = resolve("hub:them/digits-of-mine")
    chosen = resolve("hub:them/digits-of-mine@main", ["training.report_to=tensorboard", "output_dir=here"])
    assert resolved.recipe.output_dir == "runs/digits-of-mine"
    assert not {"report_to", "trackio_space_id"} & set(resolved.recipe.training.values())
    assert len(resolved.notes) == 3 and "/etc/cron.d" in resolved.notes[0]
    assert chosen.recipe.training.values()["report_to"] == "tensorboard" and chosen.recipe.output_dir == "here"


def test_nothing_in_a_recipe_turns_on_remote_code(tmp_path):
    for key in ("trust_remote_code", "model.trust_remote_code", "data.trust_remote_code", "training.trust_remote_code"):
        assert key in faults_of(f"{key}=true")


def test_origins_tell_file_line_command_line_and_default():
    resolved = resolve("cifar10", ["strategy=lora", "strategy.r=4", "training.lr_scheduler_kwargs={num_cycles: 2}"])
    told = with_origins(resolved).splitlines()[3:]
    lines = {line.split(":")[0].strip(): line.rpartition("# ")[2] for line in reversed(told)}
    assert lines["task"] == "cifar10.yaml line 4"
    assert (lines["r"], lines["num_cycles"]) == ("command line",) * 2
    strategy = told[told.index(next(line for line in told if line.startswith("strategy:"))) + 1]
    assert "kind: lora" in strategy and strategy.endswith("# command line")
    assert (lines["alpha"], lines["on_error"], lines["bootstrap"]) == ("default",) * 3


def test_a_recipe_made_in_python_is_checked_like_any_other():
    made = Recipe(task="image-classification", model={"checkpoint": "a/b"}, data={"dataset": "c/d"}, strategy="lora")
    assert made.strategy == Lora()
    with pytest.raises(ValueError, match="is for text"):
        Recipe(task="image-classification", model={"checkpoint": "a/b"}, data={"dataset": "c/d", "text": "t"})
    with pytest.raises(ValueError, match="frozen"):
        made.seed = 3


@pytest.mark.parametrize("lower", ["strategy.layer_decay=0.75", "strategy.zones=[0,0.1,1]"])
def test_where_lower_blocks_take_less_the_default_rate_is_higher(lower):
    words = ["cifar10", "training.learning_rate=null", "strategy=full"]
    plain = default_learning_rate(load_recipe(*words, "strategy.layer_decay=null"))
    assert default_learning_rate(load_recipe(*words, lower)) == pytest.approx(3 * plain)
    staged = load_recipe(
        *words,
        "training.num_train_epochs=null",
        "strategy={kind: stages, stages: [{epochs: 1, strategy: {kind: full, layer_decay: 0.75}}]}",
    )
    assert default_learning_rate(staged) == pytest.approx(3 * plain)
