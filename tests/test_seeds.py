"""`seeds: N`: the same recipe with several seeds on the same rows, told together; each an ordinary run."""

import json

import pandas as pd
import pytest
from cache_samples import data_for, recipe_of

from hf_finetune import finetune
from hf_finetune.publish.seed_scores import seeds_in_words, seeds_section
from hf_finetune.recipes import load_recipe
from hf_finetune.runs import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three seeds of a head on a tiny ViT; the validation rows are a share of train, drawn by the seed."""
    folder = tmp_path_factory.mktemp("seeds")
    sections = {"data": {"dataset": "none", "validation": 0.25}, "evaluation": {"bootstrap": 100}}
    recipe = recipe_of(folder, "vit", "full", "run", **sections).with_overrides("seeds=3", "seed=4")
    return finetune(recipe, data=data_for("vit"), precision="no")


def test_each_seed_is_an_ordinary_run_on_the_same_rows(run):
    others = [Run.load(run.path / "seeds" / str(seed)) for seed in (5, 6)]
    assert sorted(path.name for path in (run.path / "seeds").iterdir()) == ["5", "6"]
    assert [one.recipe.seed for one in (run, *others)] == [4, 5, 6]
    assert {one.recipe.data_seed for one in (run, *others)} == {4} and {one.recipe.seeds for one in others} == {1}
    told = [json.loads((one.path / "report.json").read_text())["data"]["fingerprint"] for one in (run, *others)]
    assert len(set(told)) == 1
    assert len({one.metrics["train"]["loss"] for one in (run, *others)}) == 3  # and they did learn differently


def test_metrics_tell_them_together_and_the_run_as_it_was(run):
    section = run.metrics["seeds"]
    folders = [run.path, run.path / "seeds" / "5", run.path / "seeds" / "6"]
    values = [Run.load(folder).metrics["test"]["accuracy"] for folder in folders]
    assert section["seeds"] == [4, 5, 6] and section["split"] == "test" and section["samples"] == 10
    told = section["metrics"]["accuracy"]
    assert told["values"] == values and told["mean"] == pytest.approx(sum(values) / 3)
    assert told["ci95"][0] <= told["mean"] <= told["ci95"][1]
    assert run.metrics["test"]["accuracy"] == values[0]
    right = pd.read_parquet(run.path / "predictions.parquet")
    assert (right["label"] == right["prediction"]).mean() == pytest.approx(values[0])


def test_card_and_page_tell_them(run):
    card = (run.path / "README.md").read_text()
    assert "### Over seeds" in card and "4, 5, 6" in card and "One run with one seed" not in card
    assert "Over 3 seeds" in (run.path / "report.html").read_text()


def test_the_words_name_mean_interval_and_spread(run):
    words = seeds_in_words(run.metrics["seeds"])
    assert words.startswith("test over 3 seeds (4, 5, 6; 10 samples)")
    assert "95% between" in words and "std" in words


def test_again_trains_nothing_and_more_seeds_go_on(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    recipe = load_recipe(str(run.path / "recipe.yaml"))
    finetune(recipe, data=data_for("vit"), precision="no")
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before
    assert capsys.readouterr().out.count("finished before") == 2
    more = finetune(recipe.with_overrides("seeds=4"), data=data_for("vit"), precision="no")
    assert capsys.readouterr().out.count("finished before") == 2
    assert more.metrics["seeds"]["seeds"] == [4, 5, 6, 7]


def test_a_seed_that_failed_is_named_and_not_counted(run):
    runs = {4: (run.path, run.metrics)}
    section = seeds_section(runs, {5: "the loss is no number\nmore"}, 50)
    assert section["seeds"] == [4] and section["failed"] == {"5": "the loss is no number\nmore"}
    assert section["metrics"]["accuracy"]["std"] is None
    assert "seed 5 failed: the loss is no number" in seeds_in_words(section)


@pytest.mark.long
@pytest.mark.distributed
def test_on_two_processes_the_same(run_in, call):
    job = ("recipe=digits", "model.checkpoint=package:digits-vit", "data.max_train_samples=96", "seeds=2",
           "data.max_eval_samples=40", "training.num_train_epochs=1", "training.optim=sgd", "precision=no",
           "training.learning_rate=0.05", "evaluation.bootstrap=50")  # fmt: skip
    size = "training.per_device_train_batch_size="
    one = call("train", *job, f"{size}16", "output_dir=one")
    assert one.returncode == 0, one.stderr
    two = run_in("torchrun", "--standalone", "--nproc_per_node", "2", "-m", "hf_finetune.run", *job, f"{size}8",
                 "output_dir=two")  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("over 2 seeds") == 1  # one rank speaks
    first, second = (
        json.loads((run_in.folder / name / "metrics.json").read_text())["seeds"] for name in ("one", "two")
    )
    assert second["metrics"]["accuracy"] == first["metrics"]["accuracy"]
