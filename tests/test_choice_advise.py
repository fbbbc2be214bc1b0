"""Advice on small real data and models: what it measures, how long it takes; and `strategy=auto`, which follows it."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from datasets import Dataset
from model_samples import save_checkpoint
from run_samples import break_off

from hf_finetune import finetune, load_recipe
from hf_finetune import prefix_store as store
from hf_finetune.choice import settled, words
from hf_finetune.choice.advise import advise
from hf_finetune.choice.depths import AtDepths, blocks_of, read_depths
from hf_finetune.choice.kept import read_and_keep
from hf_finetune.choice.measures import TOP
from hf_finetune.choice.pace import as_in_a_run, measure_pace
from hf_finetune.data import load_data
from hf_finetune.errors import TransientError, UserError
from hf_finetune.model import load_pretrained
from hf_finetune.recipes.schema import Recipe
from hf_finetune.training.folder import RunFolder

DIGITS = ("digits", "model.checkpoint=package:digits-vit", "data.max_train_samples=200", "data.max_eval_samples=50")


def digits(*pairs):
    return load_recipe(*DIGITS, "training.num_train_epochs=2", *pairs)


def texts(tmp_path, labels, family="bert", **data):
    """A recipe over a tiny checkpoint, and sentences whose first word is the label."""
    rows = Dataset.from_dict(
        {"text": [f"w{3 + index % 3} w9 w{index % 7 + 10}" for index in range(60)], "label": labels}
    )
    checkpoint = save_checkpoint(family, tmp_path / family)
    recipe = Recipe(
        task="text-classification",
        model={"checkpoint": str(checkpoint)},
        data={"dataset": "memory:", "test_split": None, **data},
        training={"num_train_epochs": 3},
        output_dir=str(tmp_path / "run"),
    )
    return recipe, rows


def loaded_for(recipe, task):
    return load_pretrained(
        recipe.model,
        recipe.task,
        num_labels=task.labels.num_labels,
        label_names=task.labels.names,
        problem_type=task.labels.problem_type,
        seed=0,
    )


@pytest.fixture(scope="module")
def advice():
    return advise(digits("training.num_train_epochs=50"), share=0.9)  # time for every row, on any machine


def test_it_measures_what_it_says(advice):
    found = advice.measures
    assert found.looked_at == found.train_rows == 180
    assert sum(found.classes.values()) == 180
    assert [depth.name for depth in found.depths][-1] == TOP
    assert len(found.depths) >= 3
    assert found.top.linear > 0.7  # of ten classes: the checkpoint was made for digits
    assert {option.kind for option in advice.options} == {"head", "freeze", "lora", "lp_ft", "full", "scratch"}


def test_it_says_it_for_people_and_for_programs(advice):
    page = words.in_words(advice, "digits", ["model.checkpoint=package:digits-vit"])
    for part in (
        "learning curve:",
        "LogME",
        "<- this data",
        "1. ",
        "2. Take strategy=",
        "3. ",
        "full fine-tuning would",
    ):
        assert part in page
    assert page.splitlines()[-1].startswith(
        "hf-finetune train recipe=digits model.checkpoint=package:digits-vit strategy="
    )
    told = json.loads(json.dumps(words.as_dict(advice)))
    assert told["strategy"] == advice.kind
    assert len(told["sentences"]) == 3
    assert told["options"][0]["forecast"]["low"] < told["options"][0]["forecast"]["high"]


def test_a_weak_probe_does_not_accuse_the_labels(advice):
    """What it would change it has confused: clean digits, of which it knows little, would be one in twenty."""

    def told(probe):
        return " ".join(words.sentences(replace(advice, measures=replace(advice.measures, noise=0.1, probe=probe))))

    assert "hf-finetune doctor" in told(0.95)
    assert "hf-finetune doctor" not in told(0.7)


def test_data_may_be_unlike_though_its_labels_are_read_off_well(advice):
    """The middle reads them off so much better that the top has grown specific to something else."""
    depths = [replace(depth, linear=0.99) for depth in advice.measures.depths[:-1]]
    top = replace(advice.measures.top, linear=0.86)
    found = replace(advice.measures, depths=[*depths, top], probe=0.86)
    first = words.sentences(replace(advice, measures=found))[1]
    assert "looks dissimilar" in first and "sees reads the labels off well" in first
    assert "but a middle layer does it better" in first


def test_nothing_is_trained_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    advise(digits("output_dir=run"), share=0.9)
    assert not list(tmp_path.iterdir())
    assert torch.equal(before, torch.get_rng_state())


def test_where_there_is_no_time_it_says_so_and_follows_a_rule():
    found = advise(digits(), share=1e-6)
    assert found.measures is None
    assert found.kind == "lp_ft"
    assert "no time to look" in words.in_words(found, "digits")


def test_the_share_is_of_the_time_that_the_recipe_has():
    """Of a run that ends after its minutes, however many epochs it could take."""
    found = advise(digits("training.num_train_epochs=3000", "training.max_minutes=0.02"), share=0.01)
    assert found.full_seconds < 3
    assert found.measures is None
    assert all(option.seconds < 3 for option in found.options)


def test_measuring_the_pace_changes_nothing():
    """A step is taken in train mode; weights, statistics, gradients, modes and random numbers are as before."""
    recipe = load_recipe("digits", "model.checkpoint=package:digits-resnet", "data.max_train_samples=100")
    task = load_data(recipe)
    loaded = loaded_for(recipe, task)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    state = torch.get_rng_state()
    pace = measure_pace(recipe, loaded, task.train, 3, device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    assert loaded.model.training
    assert torch.equal(state, torch.get_rng_state())
    assert len(pace.frozen) == len(loaded.anatomy.blocks) + 1
    assert list(pace.frozen) == sorted(pace.frozen)
    assert 0 < pace.frozen[1] < pace.frozen[-1] == 1.0


def test_features_of_a_depth_are_the_means_of_the_block(tmp_path):
    recipe, rows = texts(tmp_path, [index % 3 for index in range(60)])
    task = load_data(recipe, rows)
    loaded = loaded_for(recipe, task)
    model = AtDepths(loaded, in_bf16=False)
    found = read_depths(model, recipe, loaded.processor, task.train)
    assert found.names == ("block 1 of 3", "block 2 of 3", "block 3 of 3", TOP)
    text = loaded.processor(task.train[5]["text"], return_tensors="pt")
    loaded.model.eval()
    with torch.no_grad():
        hidden = loaded.model(**text, output_hidden_states=True).hidden_states
    for depth in (1, 2):
        assert found.features[depth - 1][5] == pytest.approx(hidden[depth][0].mean(0).numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "metric"),
    [
        ([[index % 3 == 0, index % 2 == 0] for index in range(60)], "micro F1"),
        ([index % 3 + 0.25 for index in range(60)], "R2"),
    ],
    ids=["multi-label", "regression"],
)
def test_other_kinds_of_labels_follow_the_table(tmp_path, labels, metric):
    labels = [[float(each) for each in row] for row in labels] if metric == "micro F1" else labels
    given = {"problem_type": "multi_label_classification"} if metric == "micro F1" else {}
    recipe, rows = texts(tmp_path, labels, **given)
    found = advise(recipe, data=rows, share=0.95)
    assert found.measures is None or found.measures.metric == metric
    assert all(option.forecast is None for option in found.options)
    assert "only a rule followed" in words.in_words(found, "mine")


def test_several_tasks_are_refused():
    recipe = load_recipe("two_labels")
    with pytest.raises(UserError, match="one label column"):
        advise(recipe)


# --- strategy=auto ----------------------------------------------------------------------------------------------------


def auto(tmp_path, *pairs):
    return digits(
        "strategy=auto", "strategy.share=0.9", "evaluation.bootstrap=0", f"output_dir={tmp_path / 'run'}", *pairs
    )


@pytest.mark.slow
def test_auto_trains_what_the_advice_says(tmp_path, capsys):
    run = finetune(auto(tmp_path, "strategy.candidates=[head, full]"))
    told = json.loads((tmp_path / "run" / "advice.json").read_text())
    assert run.recipe.strategy.kind == told["chosen"]["strategy"]["kind"] in ("head", "full")
    assert run.recipe.training.values()["learning_rate"] == told["chosen"]["training"]["learning_rate"]
    assert run.recipe.training.values()["num_train_epochs"] == 2
    assert "2. Take strategy=" in capsys.readouterr().out
    finetune(auto(tmp_path, "strategy.candidates=[head, full]"))  # finished: as it is
    said = capsys.readouterr().out
    assert "nothing to do" in said
    assert "looking at the data" not in said


@pytest.mark.slow
def test_auto_goes_on_with_what_it_had_chosen(tmp_path, monkeypatch, capsys):
    recipe = auto(tmp_path, "strategy.candidates=[full]")
    break_off(recipe, monkeypatch)
    place = tmp_path / "run" / "advice.json"
    told = json.loads(place.read_text())
    assert told["chosen"]["strategy"]["kind"] == "full"
    capsys.readouterr()
    run = finetune(recipe)
    said = capsys.readouterr().out
    assert "Continuing from" in said
    assert "looking at the data" not in said
    assert json.loads(place.read_text()) == told
    assert run.recipe.strategy.kind == "full"


def chosen_for(recipe, kind):
    """advice.json of a recipe that was killed before its run began."""
    folder = Path(recipe.output_dir)
    folder.mkdir(exist_ok=True)
    chosen = {"strategy": {"kind": kind}, "training": {"learning_rate": 1e-3, "num_train_epochs": 2}}
    told = {"asked": recipe.written(), "chosen": chosen, "advice": {}}
    (folder / "advice.json").write_text(json.dumps(told))
    return folder


def test_auto_follows_only_what_was_chosen_for_the_same_question(tmp_path):
    """Among other candidates, or for other data, the choice is another one."""
    asked = auto(tmp_path, "strategy.candidates=[head, full]")
    folder = chosen_for(asked, "head")
    assert settled(asked).strategy.kind == "head"
    assert settled(auto(tmp_path, "strategy.candidates=[full]", "strategy.share=1e-6")).strategy.kind == "full"

    chosen_for(asked, "head")
    (folder / "recipe.yaml").write_text(settled(asked).to_yaml())
    (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    assert settled(asked).strategy.kind == "head"
    with pytest.raises(UserError, match=r"chosen otherwise.*\n.*strategy.candidates.*\[.*head.*\[.full"):
        settled(auto(tmp_path, "strategy.candidates=[full]"))


def test_of_two_that_begin_at_once_one_chooses(tmp_path):
    """Else the choice that stays would not be that of the run that stays."""
    recipe = auto(tmp_path)
    first = RunFolder(recipe)
    first.open()
    try:
        with pytest.raises(TransientError, match="Another process is running"):
            settled(recipe)
    finally:
        first.close()
    assert not (tmp_path / "run").exists()


def test_auto_refuses_the_folder_of_another_run_before_it_measures(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        finetune(auto(tmp_path))
    assert "looking at the data" not in capsys.readouterr().out


# --- the verb ---------------------------------------------------------------------------------------------------------


def test_the_verb_advises_and_writes_json(call):
    done = call("advise", "recipe=digits", *DIGITS[1:], "share=0.9", "--json", "advice.json")
    assert done.returncode == 0, done.stderr
    assert "2. Take strategy=" in done.stdout
    assert json.loads((call.folder / "advice.json").read_text())["strategy"] in done.stdout


@pytest.mark.slow
def test_the_verb_ranks_checkpoints(call):
    both = "model.checkpoint=[package:digits-vit, package:digits-resnet, package:nothing]"
    done = call("advise", "recipe=digits", both, *DIGITS[2:], "share=0.9", "--json", "advice.json")
    assert done.returncode == 0, done.stderr
    assert "package:nothing" in done.stderr
    ranked = json.loads((call.folder / "advice.json").read_text())
    assert {each["checkpoint"] for each in ranked} == {"package:digits-vit", "package:digits-resnet"}
    scores = [each["options"][0]["forecast"]["score"] for each in ranked]
    assert scores == sorted(scores, reverse=True)
    assert f"model.checkpoint={ranked[0]['checkpoint']}" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("words_given", "said"),
    [
        (("advise",), "recipe="),
        (("advise", "data.max_train_samples=10"), "recipe= is missing"),
        (("advise", "recipe=digits", "share=2"), "above 0 and below 1"),
        (("advise", "recipe=digits", "share=a"), "above 0 and below 1"),
        (("advise", "recipe=digits", "model.checkpoint=[a, a]"), "a list of different checkpoints"),
        (("advise", "recipe=digits", "model.checkpoint=a,"), "a list of different checkpoints"),
        (("advise", "recipe=digits", "model.checkpoint=package:a,package:b"), "None of these checkpoints can be used"),
        (("advise", "recipe=digits", "--json", "nowhere/advice.json"), "there is no folder nowhere"),
        (("doctor", "recipe=digits", "--json", "."), "is a folder"),
    ],
)
def test_the_verb_says_what_is_wrong(call, words_given, said):
    done = call(*words_given)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.real
@pytest.mark.slow
def test_on_real_images_it_keeps_to_its_share(tmp_path):
    recipe = load_recipe(
        "cifar10", "model.checkpoint=WinKawaks/vit-tiny-patch16-224", "model.image_size=64",
        "data.max_train_samples=1000", "data.max_eval_samples=200", "data.augment=none", "training.num_train_epochs=5",
    )  # fmt: skip
    began = time.perf_counter()
    found = advise(recipe)
    took = time.perf_counter() - began
    assert found.seconds <= took
    assert found.measures.looked_at >= 32
    assert 0.2 < found.measures.probe < 0.95
    assert found.options[-1].kind == "scratch"
    assert np.isfinite(found.full_seconds)


@pytest.mark.slow
def test_features_of_all_rows_stay_for_a_run_of_the_head(tmp_path, capsys):
    recipe = digits(
        "strategy=head", "training.learning_rate=1e-3", "evaluation.bootstrap=0", f"output_dir={tmp_path / 'run'}"
    )
    task = load_data(recipe)
    loaded = loaded_for(recipe, task)
    with as_in_a_run(loaded.model, 32):
        found = read_and_keep(recipe, task, loaded, blocks_of(loaded))
    again = read_depths(AtDepths(loaded_for(recipe, task), in_bf16=False), recipe, loaded.processor, task.train)
    assert found.names == again.names
    for one, other in zip(found.features, again.features, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    with as_in_a_run(loaded.model, 32):
        assert read_and_keep(recipe, task, loaded, blocks_of(loaded)) is None  # they are there already
        [kept] = store.entries()
        kept.folder.rename(tmp_path / "aside")
        kept.folder.touch()  # what can be neither read nor replaced
        assert read_and_keep(recipe, task, loaded, blocks_of(loaded)) is None
        kept.folder.unlink()
        (tmp_path / "aside").rename(kept.folder)
    capsys.readouterr()
    finetune(recipe)
    assert "1 of 3 splits kept from an earlier run" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.distributed
def test_on_two_processes_one_decides_for_both(run_in):
    script = str(REPOSITORY / "hf_finetune" / "run.py")
    words_given = (*(pair for pair in DIGITS[1:]), "strategy=auto", "strategy.share=0.9", "training.num_train_epochs=2")
    done = run_in("torchrun", "--standalone", "--nproc_per_node", "2", script, "recipe=digits", *words_given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2. Take strategy=") == 1
    told = json.loads((run_in.folder / "runs" / "digits" / "advice.json").read_text())
    assert f"strategy={told['chosen']['strategy']['kind']}" in done.stdout
