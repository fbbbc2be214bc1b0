"""What a search is made of: its space, its study, its folder, and how much was gained."""

from itertools import pairwise

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from hf_finetune.advice.search import search
from hf_finetune.advice.search_folder import SearchFolder
from hf_finetune.advice.search_gain import gain_of
from hf_finetune.advice.search_reading import read_space
from hf_finetune.advice.search_space import are_own, with_values
from hf_finetune.data import load_data
from hf_finetune.errors import DataError, UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.training.onlooker import Validated

optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'hf_finetune[search]'")
STRATEGIES = ("full", "head", "freeze", "lora", "bitfit", "norms", "scratch", "lp_ft", "gradual", "features")


def recipe(name="sst2", *pairs):
    return with_values(load_recipe(name), dict(pair.split("=", 1) for pair in pairs))


# --- the space -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sst2", "digits"])
@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_default_space_is_around_the_recipe_as_it_is(name, kind):
    """What is tried is allowed, and the recipe's own values are among it."""
    given = recipe(name, f"strategy={kind}")
    space = read_space(None, given)
    values = space.shipped(given)
    assert values.keys() == {parameter.key for parameter in space.parameters}
    for parameter in space.parameters:
        if parameter.kind == "float":
            assert parameter.low < values[parameter.key] < parameter.high


@pytest.mark.parametrize(
    "own",
    [
        ("strategy=full", "training.weight_decay=0.3", "strategy.layer_decay=0.6"),
        ("strategy=freeze", "strategy.train_blocks=5"),
        ("strategy=lora", "strategy.r=6", "strategy.alpha=12"),
        ("strategy=features", "strategy.layer=3", "strategy.classifier=ridge"),
    ],
)
def test_a_default_space_has_unusual_values_of_the_recipe_too(own):
    """Else nothing could be learnt from the first trial, and no other one come near it."""
    given = recipe("digits", *own)
    space = read_space(None, given)
    assert space.shipped(given).keys() == {parameter.key for parameter in space.parameters}


def test_a_search_does_not_leave_the_strategy_open():
    with pytest.raises(UserError, match="strategy=auto chooses by measurements"):
        search(recipe("digits", "strategy=auto"), None)


def test_a_key_is_given_once_and_steps_come_to_the_end():
    with pytest.raises(UserError) as told:
        read_space(
            "{training.weight_decay: [0, 0.1], training: {weight_decay: [0, 0.2], warmup_steps: {low: 0, high: 0.1, "
            "step: 0.03}}, strategy: [full, auto], strategy.kind: [head, full]}",
            recipe(),
        )
    words = str(told.value)
    assert "4 faults in the search space" in words
    assert "training.weight_decay (space): is given twice" in words
    assert "strategy (space): is given twice" in words
    assert "high 0.1 is not low and whole steps of 0.03: the last one is 0.09" in words
    assert "auto chooses by measurements" in words
    read_space("{training.weight_decay: {low: 0.1, high: 0.7, step: 0.2}}", recipe())


def test_all_faults_of_a_space_are_told_at_once_with_the_nearest_name():
    with pytest.raises(UserError) as told:
        read_space(
            "{training.learning_rat: [1, 2], training.weight_decay: [0, -1], strategy.r: [4, 8], "
            "training.num_train_epochs: {low: 3, high: 1}, training.optim: [adamw, muo], "
            "training.warmup_steps: {low: 0, high: 0.2, log: true}, training.lr_scheduler_type: linear}",
            recipe(),
        )
    words = str(told.value)
    assert "7 faults in the search space" in words
    assert "did you mean training.learning_rate?" in words
    assert "training.weight_decay (space): -1.0 must be at least 0" in words
    assert "strategy=lora would choose it" in words
    assert "low 3 must be less than high 1" in words
    assert "did you mean muon?" in words
    assert "with log it must be more than 0" in words
    assert "'linear' is one value" in words


@pytest.mark.parametrize(
    "key", ["data.validation", "data.test_split", "evaluation.best", "seed", "output_dir", "data.clean.empty"]
)
def test_what_decides_the_score_is_not_searched(key):
    with pytest.raises(UserError, match=f"{key}.*is not for a search"):
        read_space(f"{{{key}: [1, 2]}}", recipe())


def test_a_space_from_a_file_names_the_line(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("training:\n  learning_rate: {low: 1e-5, high: 1e-3, log: true}\nstrategy.layer_deca: [0.5, 0.7]\n")
    with pytest.raises(UserError, match=r"strategy.layer_deca \(space.yaml line 3\): unknown key; did you mean"):
        read_space(str(file), recipe())


def test_a_written_space_reads_as_the_same(tmp_path):
    given = (
        "{strategy: [full, {kind: lora, targets: [query]}], strategy.r: {low: 4, high: 64, log: true}, training: "
        "{learning_rate: [1e-4, 0.0001, 2e-5], num_train_epochs: {low: 1, high: 3, step: 1}}, "
        "strategy.layer_decay: [null, 0.75], model.revision: [0123456, main]}"
    )
    space = read_space(given, recipe())
    rates = next(each for each in space.parameters if each.key == "training.learning_rate")
    assert rates.choices == ("0.0001", "2e-05")  # two spellings of one number
    folder = SearchFolder(tmp_path / "search")
    folder.open(recipe(), space)
    assert read_space(str(folder.space), recipe()) == space
    folder.close()


def test_a_key_that_only_some_strategies_have_is_tried_with_those():
    space = read_space("{strategy.r: [4, 8], strategy: [full, lora], strategy.layer_decay: [0.5, 0.9]}", recipe())
    drawn = {"strategy": "lora", "strategy.r": "8", "strategy.layer_decay": "0.9"}
    assert space.chosen(optuna.trial.FixedTrial(drawn), recipe()) == {"strategy": "lora", "strategy.r": "8"}
    drawn["strategy"] = "full"
    chosen = space.chosen(optuna.trial.FixedTrial(drawn), recipe())
    assert chosen == {"strategy": "full", "strategy.layer_decay": "0.9"}
    assert with_values(recipe(), chosen).strategy.layer_decay == 0.9


def test_numbers_are_legible_and_stay_within_their_bounds():
    space = read_space("{training.learning_rate: {low: 1.23444e-5, high: 1e-3, log: true}}", recipe())
    for drawn, text in ((1.23444e-5, "1.23444e-05"), (0.00031415926, "0.0003142"), (1e-3, "0.001")):
        chosen = space.chosen(optuna.trial.FixedTrial({"training.learning_rate": drawn}), recipe())
        assert chosen == {"training.learning_rate": text}


# --- the test split --------------------------------------------------------------------------------------------------


def in_memory(**labels):
    features = {name: ["yes", "no"] for name in labels}
    features["test"] = ["another", "vocabulary"]
    splits = {
        name: Dataset.from_dict({"text": [f"{name} {row}" for row in range(len(values))], "label": values})
        for name, values in labels.items()
    }
    return DatasetDict(
        {name: rows.cast_column("label", ClassLabel(names=features[name])) for name, rows in splits.items()}
    )


def test_a_test_split_that_is_not_to_be_read_is_not():
    """Its labels are none that the model could know, which reading it would tell."""
    data = in_memory(train=[0, 1] * 20, test=[0, 1] * 5)
    pairs = ("data.text=text", "data.label=label", "data.test_split=test", "data.validation=0.2")
    with pytest.raises(DataError, match="The split test has labels"):
        load_data(recipe("sst2", *pairs), data)
    task = load_data(recipe("sst2", *pairs, "evaluation.test=false"), data)
    assert task.test is None and task.whence["test"] is None
    assert len(task.train) == 32 and len(task.validation) == 8


@pytest.mark.parametrize("tasks", [False, True])
def test_a_share_of_train_that_is_the_test_is_not_trained_on(tasks):
    data = in_memory(train=[0, 1] * 40)
    pairs = ["data.text=text", "data.test_split=0.25", "data.validation=0.2"]
    if tasks:
        pairs += ["tasks={one: {label: label, type: classification}}", "data.label=null", "evaluation.metrics=null"]
    read = load_data(recipe("sst2", *pairs), data)
    unread = load_data(recipe("sst2", *pairs, "evaluation.test=false"), data)
    assert unread.test is None and len(read.test) == 20
    for role in ("train", "validation"):
        assert getattr(unread, role)["id"][:] == getattr(read, role)["id"][:]


# --- the study -------------------------------------------------------------------------------------------------------


def scored(values, epoch):
    rate = float(values.get("training.learning_rate", 2e-5))
    return 1 - abs(np.log10(rate) + 4) / 3 - 0.1 * (3 - epoch)


def searched(file, space, trials, killed_at=()):
    """A study of so many trials of three epochs, killed at these evaluations."""
    from hf_finetune.advice.search_study import Study, Tried

    evaluations = 0
    study = Study(file, space, recipe())
    while len(study.tried()) < trials:
        asked = study.ask()
        state = "complete"
        for epoch in (1, 2, 3):
            evaluations += 1
            if evaluations in killed_at:
                study = Study(file, space, recipe())  # as another process would find it
                break
            if study.report(asked.number, epoch / 3, scored(asked.values, epoch), True) and epoch < 3:
                state = "pruned"
                break
        if evaluations not in killed_at:
            study.tell(Tried(asked.number, state, asked.values, scored(asked.values, epoch)))
    return study.tried()


RATES = "{training.learning_rate: {low: 1e-6, high: 1e-2, log: true}, training.weight_decay: [0, 0.01, 0.1]}"


@pytest.mark.slow
def test_a_killed_search_tries_what_it_would_have_tried(tmp_path):
    space = read_space(RATES, recipe())
    whole = searched(tmp_path / "whole.db", space, 12)
    killed = searched(tmp_path / "killed.db", space, 12, killed_at=(1, 6, 11, 19))
    assert killed == whole
    assert [trial.number for trial in whole] == list(range(12))
    assert whole[0].values == {} and whole[0].state == "complete"  # as it was given, and never given up
    assert {"complete", "pruned"} == {trial.state for trial in whole}
    bests = np.maximum.accumulate([trial.score for trial in whole])
    assert all(later >= earlier for earlier, later in pairwise(bests)) and bests[-1] > bests[0]


def test_the_recipe_as_given_is_first_also_where_its_values_are_not_tried(tmp_path):
    from hf_finetune.advice.search_study import Study, Tried

    space = read_space("{training.learning_rate: {low: 1e-3, high: 1e-2}, training.weight_decay: [0, 0.01]}", recipe())
    study = Study(tmp_path / "study.db", space, recipe())
    first = study.ask()
    assert (first.number, first.values) == (0, {})
    study.report(0, 0.5, 0.3, greater_is_better=False)
    study.tell(Tried(0, "complete", {}, 0.25), greater_is_better=False)
    second = study.ask()
    assert second.number == 1 and second.values.keys() == {"training.learning_rate", "training.weight_decay"}
    assert study.report(1, 0.5, 0.9, greater_is_better=False)  # a loss three times as high is given up
    told = study.tell(Tried(1, "pruned", second.values, None))
    assert (told.state, told.score) == ("pruned", pytest.approx(0.9))
    assert study.best().number == 0 and study.best().score == pytest.approx(0.25)


def test_a_study_of_something_else_or_a_damaged_one_is_refused(tmp_path):
    from hf_finetune.advice.search_study import Study

    file, space = tmp_path / "study.db", read_space("{training.weight_decay: [0, 0.1]}", recipe())
    Study(file, space, recipe()).ask()
    Study(file, space, recipe("sst2", "output_dir=elsewhere"))  # the same search
    with pytest.raises(UserError, match="the study of another recipe or space"):
        Study(file, read_space("{training.weight_decay: [0, 0.2]}", recipe()), recipe())
    with pytest.raises(UserError, match="the study of another recipe or space"):
        Study(file, space, recipe("sst2", "training.num_train_epochs=9"))
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"study.db is damaged.*malformed. Put an intact copy"):
        Study(file, space, recipe())


def test_values_that_are_the_recipes_own_are_known():
    """Trials of them have the first one's result: those that it names, and those that stand in where it names none."""
    assert are_own({"training.weight_decay": "0.01", "strategy.layer_decay": "null"}, recipe("digits"))
    assert are_own({"training.warmup_steps": "0.1", "strategy": "full"}, recipe("digits", "training.warmup_steps=null"))
    assert not are_own({"training.weight_decay": "0.1", "strategy.layer_decay": "null"}, recipe("digits"))
    assert not are_own({"strategy": "lora", "strategy.r": "8"}, recipe("digits"))


# --- the folder ------------------------------------------------------------------------------------------------------


def test_a_folder_is_of_one_search_and_of_one_process(tmp_path):
    space = read_space("{training.weight_decay: [0, 0.1]}", recipe())
    folder, other = SearchFolder(tmp_path / "s"), SearchFolder(tmp_path / "s")
    folder.open(recipe(), space)
    with pytest.raises(UserError, match="Another process is searching"):
        other.open(recipe(), space)
    folder.close()
    other.open(recipe("sst2", "output_dir=elsewhere"), space)  # the same search
    other.close()
    with pytest.raises(UserError, match=r"holds another search.*\n  training.num_train_epochs: there 3.0, here 9.0"):
        other.open(recipe("sst2", "training.num_train_epochs=9"), space)
    with pytest.raises(UserError, match=r"space training.weight_decay: there \[.*0.1.*\], here \[.*0.2.*\]"):
        SearchFolder(tmp_path / "s").open(recipe(), read_space("{training.weight_decay: [0, 0.2]}", recipe()))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds no search \(first: thesis.txt\)"):
        SearchFolder(tmp_path).open(recipe(), read_space("{training.weight_decay: [0, 0.1]}", recipe()))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_winners_run_goes_only_for_a_better_one_and_only_until_the_test_is_read(tmp_path):
    folder, other = SearchFolder(tmp_path), recipe("digits", "training.num_train_epochs=9", "seeds=2")
    folder.best.mkdir()
    (folder.best / "recipe.yaml").write_text(recipe("digits", "output_dir=before").to_yaml())
    folder.clear_another_winner(recipe("digits"))
    assert folder.best.is_dir() and not folder.test_is_read
    (folder.best / "predictions.parquet").touch()  # killed between them and metrics.json, which is last
    folder.clear_another_winner(other)
    assert folder.best.is_dir() and folder.test_is_read and not folder.has_all_of(recipe("digits"))
    (folder.best / "predictions.parquet").unlink()
    folder.clear_another_winner(other)
    assert not folder.best.exists()

    folder.best.mkdir()
    (folder.best / "metrics.json").write_text('{"test": {}}')
    assert folder.has_all_of(recipe("digits")) and not folder.has_all_of(other)
    (folder.best / "metrics.json").write_text('{"test": {}, "seeds": {}}')
    assert folder.has_all_of(other)


# --- what was gained -------------------------------------------------------------------------------------------------


def answers(right, metric="accuracy"):
    """A model of two classes that is right on these rows."""
    labels = np.arange(len(right)) % 2
    shown = np.where(right, labels, 1 - labels)
    score = float(np.mean(right))
    return Validated(metric, score, True, "single_label_classification", np.eye(2)[shown] * 4, labels)


def test_a_better_model_is_told_from_an_equal_one():
    rng = np.random.default_rng(0)
    given, better = rng.random(600) < 0.7, rng.random(600) < 0.8
    gain = gain_of({0: answers(given), 1: answers(better)}, winner=1)
    assert gain.value == pytest.approx(better.mean() - given.mean()) and gain.rows == 600
    assert gain.interval[0] > 0 and gain.sure
    assert gain.interval[0] < gain.value < gain.interval[1]
    same = gain_of({0: answers(given), 1: answers(given)}, winner=1)
    assert same.interval == (0.0, 0.0) and not same.sure


def test_the_best_of_many_equal_models_is_not_called_better():
    """The paired interval is fooled by choosing; rows that did not choose are not."""
    rng = np.random.default_rng(7)
    fooled = 0
    for _ in range(3):
        models = {number: answers(rng.random(400) < 0.7) for number in range(20)}
        winner = max(models, key=lambda number: models[number].score)
        gain = gain_of(models, winner)
        fooled += gain.on_these_rows
        assert not gain.sure
        assert gain.unbiased < gain.value
    assert fooled


def test_a_loss_that_falls_is_a_gain():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    weak, strong = (np.eye(2)[labels] * size + rng.normal(size=(300, 2)) for size in (1, 3))

    def told(logits):
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(300), labels]
        return Validated("loss", float(losses.mean()), False, "single_label_classification", logits, labels)

    gain = gain_of({0: told(weak), 1: told(strong)}, winner=1)
    assert gain.value > 0 and gain.interval[0] > 0 and gain.sure
