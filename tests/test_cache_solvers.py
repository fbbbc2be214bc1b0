"""Heads on kept features: L-BFGS goes to the minimum, a sweep is as many separate runs."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from cache_samples import TRAINING, data_for, recipe_of, run, weights_of
from conftest import REPOSITORY
from model_samples import save_checkpoint
from pydantic import ValidationError
from run_samples import break_off
from sklearn.linear_model import LogisticRegression
from strategy_samples import load, recipe_for
from test_cache_equal import DATA, assert_alike

from hf_finetune import finetune
from hf_finetune import prefix_store as store
from hf_finetune.errors import UserError
from hf_finetune.recipes.schema import Recipe
from hf_finetune.runs import Run
from hf_finetune.strategy import apply_strategy
from hf_finetune.training import check_head, head_lbfgs, head_sweep

NAN = float("nan")
SWEEP = {"kind": "head", "sweep": {"weight_decay": [0.0, 0.1]}}


def without(folder, family, strategy, name, leave_out, **sections) -> Run:
    """A run whose training section lacks some of the usual keys."""
    base = recipe_of(folder, family, "head", name).model_dump(mode="json", exclude_unset=True)
    training = {key: value for key, value in TRAINING.items() if key not in leave_out}
    values = {**base, **sections, "strategy": strategy, "training": {**training, **sections.get("training", {})}}
    return finetune(Recipe.model_validate(values), data=data_for(family), precision="no")


def lbfgs(folder, family, training, **strategy) -> Run:
    fitted = {"kind": "head", "solver": "lbfgs", **strategy}
    return without(folder, family, fitted, "fit", ("learning_rate", "num_train_epochs"), training=training)


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_lbfgs_finds_scikit_learns_minimum(tmp_path, family):
    finished = lbfgs(tmp_path, family, {"weight_decay": 0.1})
    entry = next(entry for entry in store.entries() if entry.meta.what.endswith("train"))
    rows = entry.tensor().numpy().astype(np.float64)
    labels = np.arange(len(rows)) % 3
    # C weighs the sum of the losses, weight decay stands beside their mean.
    expected = LogisticRegression(C=1 / (0.1 * len(rows)), tol=1e-8, max_iter=10_000).fit(rows, labels)
    weights = weights_of(finished)
    np.testing.assert_allclose(weights["classifier.weight"].numpy(), expected.coef_, atol=2e-3)
    bias = weights["classifier.bias"].numpy()  # a constant more changes no probability
    np.testing.assert_allclose(bias - bias.mean(), expected.intercept_ - expected.intercept_.mean(), atol=2e-3)
    assert finished.metrics["train"]["classifier"] == "lbfgs"


def test_lbfgs_chooses_its_weight_decay_on_validation(tmp_path, capsys):
    """Of equals the largest, as strategy=features does; it took the first of the list."""
    finished = lbfgs(tmp_path, "vit", {}, sweep={"weight_decay": [0.01, 0.01001, 1.0, 1.001, 100.0, 100.1]})
    facts = finished.metrics["train"]
    best = max(facts["tried"].values())
    assert best == pytest.approx(finished.metrics["validation"]["accuracy"])
    equals = [float(decay) for decay, score in facts["tried"].items() if score == best]
    assert len(equals) > 1 and facts["weight_decay"] == max(equals)
    assert "at once  weight decay 100.1, 100, 1.001, 1, 0.01001, 0.01\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scores", "greater", "chosen"),
    [
        ((0.7, 0.7, 0.6, 0.7), True, (1e-3, 0.1)),  # of equals the largest weight decay
        ((0.7, 0.2, 0.2, 0.2), False, (1e-3, 0.1)),  # then the first
        ((NAN, 0.2, NAN, 0.3), True, (1e-2, 0.1)),
        ((NAN, NAN, 0.9, float("inf")), False, (1e-2, 0.0)),
    ],
)
def test_a_sweep_takes_the_best_score_that_is_a_number(scores, greater, chosen):
    pairs = [(1e-3, 0.0), (1e-3, 0.1), (1e-2, 0.0), (1e-2, 0.1)]
    assert head_sweep.best_pair(pairs, scores, "accuracy", greater) == chosen


def test_a_sweep_in_which_no_score_is_a_number_ends_in_words():
    with pytest.raises(UserError, match=r"validation accuracy is no number for any .* of 0\.001 / 0, 0\.01 / 0\.1"):
        head_sweep.best_pair([(1e-3, 0.0), (1e-2, 0.1)], [NAN, NAN], "accuracy", True)


@pytest.mark.slow
def test_a_head_whose_loss_comes_to_be_no_number_is_out(tmp_path):
    """Its first epoch, of one step at rate 0, has a score; a run of its own would end in the second."""
    strategy = {"kind": "head", "sweep": {"learning_rate": [1e38, 1e-9]}}
    training = {"num_train_epochs": 3, "per_device_train_batch_size": 24, "warmup_steps": 1}
    run = without(tmp_path, "vit", strategy, "sweep", ("learning_rate",), training=training)
    swept = run.metrics["train"]["sweep"]
    assert [tried["score"] is None for tried in swept["tried"]] == [True, False]
    assert swept["learning_rate"] == 1e-9


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_a_sweep_is_as_many_separate_runs(tmp_path, capsys, family):
    """Each head's score is that of a run of its own, and the chosen one is what is trained."""
    changes = {"classifier_dropout": 0.0} if family == "bert" else {}  # what is random differs from run to run
    save_checkpoint(family, tmp_path / family, **changes)
    sections = {"evaluation": {"bootstrap": 0, "best": "loss"}}
    separate = {}
    for rate in (1e-3, 1e-1):
        for decay in (0.0, 1.0):
            training = {"learning_rate": rate, "weight_decay": decay, "num_train_epochs": 3}
            separate[(rate, decay)] = run(tmp_path, family, "head", f"{rate}-{decay}", training=training, **sections)
    losses = {pair: alone.metrics["validation"]["loss"] for pair, alone in separate.items()}
    capsys.readouterr()
    strategy = {"kind": "head", "sweep": {"learning_rate": [1e-3, 1e-1], "weight_decay": [0.0, 1.0]}}
    training = {"num_train_epochs": 3}
    swept = without(tmp_path, family, strategy, "sweep", ("learning_rate",), training=training, **sections)
    said = capsys.readouterr().out
    found = {(float(r), float(d)): float(s) for r, d, s in re.findall(r"([\d.e-]+) / ([\d.e-]+): ([\d.]+)", said)}
    assert found == pytest.approx(losses, abs=2e-4)
    assert_alike(swept, separate[min(losses, key=lambda pair: losses[pair])])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("cosine_with_min_lr", {"min_lr": 8e-4}, marks=pytest.mark.slow),
        pytest.param("polynomial", {"lr_end": 8e-4, "power": 2.0}, marks=pytest.mark.long),
    ],
)
def test_each_head_of_a_sweep_has_the_floor_of_its_own_rate(tmp_path, kind, options):
    """`min_lr` and `lr_end` are another share of each rate; of torch's 1e-3, all heads had one, 0.8."""
    sections = {"evaluation": {"bootstrap": 0, "best": "loss"}}
    training = {"num_train_epochs": 6, "warmup_steps": 0, "lr_scheduler_type": kind, "lr_scheduler_kwargs": options}
    rates = (1e-3, 2e-2)
    losses = []
    for rate in rates:
        alone = run(tmp_path, "vit", "head", f"{rate}", training={**training, "learning_rate": rate}, **sections)
        losses.append(alone.metrics["validation"]["loss"])
    strategy = {"kind": "head", "sweep": {"learning_rate": rates}}
    swept = without(tmp_path, "vit", strategy, "sweep", ("learning_rate",), training=training, **sections)
    found = [tried["score"] for tried in swept.metrics["train"]["sweep"]["tried"]]
    assert found == pytest.approx(losses, abs=2e-5)


def sweeping(folder, name, **training) -> Recipe:
    strategy = {"kind": "head", "sweep": {"learning_rate": [1e-4, 3e-2, 1e-1], "weight_decay": [0.0, 0.5]}}
    scored = {"bootstrap": 0, "best": "loss"}
    base = recipe_of(folder, "vit", "head", name, evaluation=scored).model_dump(mode="json", exclude_unset=True)
    base["strategy"] = strategy
    base["training"].pop("learning_rate")
    base["training"] |= {"num_train_epochs": 4, **training}
    return Recipe.model_validate(base)


def test_what_a_sweep_chose_is_in_the_metrics(tmp_path):
    """Of one epoch: the sweep reads the rows too. It was refused where no earlier run had left features."""
    finished = finetune(sweeping(tmp_path, "run", num_train_epochs=1), data=data_for("vit"), precision="no")
    swept = finished.metrics["train"]["sweep"]
    assert len(swept["tried"]) == 6
    best = min(swept["tried"], key=lambda pair: pair["score"])
    assert swept["metric"] == "loss"
    assert {name: best[name] for name in ("learning_rate", "weight_decay")} == {
        name: swept[name] for name in ("learning_rate", "weight_decay")
    }
    assert json.loads((tmp_path / "run" / "state.json").read_text())["sweep"] == swept


def test_a_resumed_sweep_trains_the_pair_that_was_chosen(tmp_path, monkeypatch, capsys):
    whole = finetune(sweeping(tmp_path, "whole"), data=data_for("vit"), precision="no")
    recipe = sweeping(tmp_path, "broken")
    break_off(recipe, monkeypatch, saves=2, data=data_for("vit"), precision="no")
    capsys.readouterr()
    monkeypatch.setattr(head_sweep, "_Heads", None)  # nothing is tried again
    resumed = finetune(recipe, data=data_for("vit"), precision="no")
    assert "(what the sweep of this run has chosen)" in capsys.readouterr().out
    assert_alike(whole, resumed)
    assert resumed.metrics["train"]["sweep"]["tried"] == whole.metrics["train"]["sweep"]["tried"]


@pytest.mark.parametrize("at_once", [5, 16])
def test_lbfgs_weighs_classes_alike_however_many_rows_it_takes_at_once(tmp_path, monkeypatch, at_once):
    """scikit-learn's C and class_weight beside it: the sum of the losses, weights with a mean of 1."""
    monkeypatch.setattr(head_lbfgs, "_AT_ONCE", at_once)
    fitted = {"kind": "head", "solver": "lbfgs"}
    given = {"a": 4.0, "b": 1.0, "c": 0.5}
    sections = {"training": {"weight_decay": 0.1}, "loss": {"class_weights": given}}
    finished = without(tmp_path, "vit", fitted, "fit", ("learning_rate", "num_train_epochs"), **sections)
    entry = next(entry for entry in store.entries() if entry.meta.what.endswith("train"))
    rows = entry.tensor().numpy().astype(np.float64)
    labels = np.arange(len(rows)) % 3
    weights = np.array(list(given.values())) / np.array(list(given.values()))[labels].mean()
    expected = LogisticRegression(
        C=1 / (0.1 * len(rows)), class_weight=dict(enumerate(weights)), tol=1e-8, max_iter=10_000
    ).fit(rows, labels)
    np.testing.assert_allclose(weights_of(finished)["classifier.weight"].numpy(), expected.coef_, atol=2e-3)


def test_solvers_need_kept_features(tmp_path):
    sweep = {"kind": "head", "sweep": {"weight_decay": [0.1]}}
    with pytest.raises(ValidationError, match=r"cache\.prefix is off"):
        recipe_of(tmp_path, "vit", sweep, "off", cache={"prefix": "off"})
    with pytest.raises(UserError, match="computed once"):
        run(tmp_path, "vit", sweep, "changed", data={**DATA, "augment": {"flip": 0.5}})


def test_a_sweep_that_begins_anew_because_no_checkpoint_is_whole_needs_one_process_too():
    """What was chosen before is on record until the folder is claimed: `check_head` could not know."""
    recipe = Recipe.model_validate(
        {"task": "image-classification", "model": {"checkpoint": "x"}, "data": DATA, "strategy": SWEEP}
    )
    with pytest.raises(UserError, match="sweep runs in one process"):
        head_sweep.sweep_head(recipe, SimpleNamespace(args=SimpleNamespace(world_size=2)))


@pytest.mark.distributed
@pytest.mark.long
def test_several_processes_are_refused_before_anything_is_computed(tmp_path, run_in):
    sweep = "strategy.sweep.learning_rate=[1e-3,1e-2]"
    job = ("recipe=digits", "model.checkpoint=package:digits-vit", "strategy=head", sweep)
    script, kept = str(REPOSITORY / "hf_finetune" / "run.py"), tmp_path / "kept"
    torchrun = ("torchrun", "--standalone", "--nproc_per_node", "2", script)
    done = run_in(*torchrun, *job, "data.max_train_samples=40", HF_FINETUNE_CACHE=str(kept))
    assert done.returncode and done.stderr.count("runs in one process") == 1, done.stderr
    assert "frozen prefix" not in done.stdout and not list(kept.rglob("*.bin"))


@pytest.mark.parametrize(
    ("strategy", "head", "processes", "words"),
    [
        (SWEEP, "linear", 2, "strategy.sweep runs in one process"),
        ({"kind": "head", "solver": "lbfgs"}, "linear", 2, "strategy.solver=lbfgs runs in one process"),
        (SWEEP, {"kind": "mlp", "norm": "batch"}, 1, "keeps statistics of batches"),
    ],
)
def test_what_model_or_launcher_tell_is_refused_before_features_are_computed(
    tmp_path, strategy, head, processes, words
):
    save_checkpoint("vit", tmp_path / "vit")
    loaded = load(recipe_for("vit", tmp_path / "vit", "head", head), ["a", "b", "c"])
    applied = apply_strategy(loaded, recipe_for("vit", tmp_path / "vit", "head"))
    recipe = recipe_for("vit", tmp_path / "vit", strategy)
    with pytest.raises(UserError, match=words):
        check_head(recipe, applied, processes, {})
    plain = recipe_for("vit", tmp_path / "vit", "head", head)
    check_head(plain, applied, 2, {})
    if strategy == SWEEP:
        check_head(recipe, applied, processes, {"sweep": {"learning_rate": 0.1}})  # it has been swept


@pytest.mark.parametrize(
    ("strategy", "sections", "words"),
    [
        ({"kind": "head", "sweep": {}}, {}, "names nothing to try"),
        ({"kind": "head", "sweep": {"learning_rate": [0.1]}}, {}, "chooses it"),
        ({"kind": "head", "solver": "lbfgs"}, {}, "goes to the minimum by its own steps"),
        (SWEEP, {"loss": {"r_drop": 1.0}}, "tries plain losses"),
        (SWEEP, {"loss": {"kind": "coral"}}, "tries plain losses"),
        (SWEEP, {"loss": {"l2_sp": 0.1}}, "tries plain losses"),
        (SWEEP, {"average": {"ema": 0.9}}, "without averages"),
        (SWEEP, {"average": {"soup": "greedy"}}, "without averages"),
        (SWEEP, {"evaluation": {"patience": 2}}, "without averages"),
        (SWEEP, {"training": {"num_train_epochs": 1.5}}, "whole epochs"),
        (SWEEP, {"training": {"num_train_epochs": 0.5}}, "whole epochs"),
        (SWEEP, {"training": {"max_steps": 7}}, "epochs of whole batches"),
        (SWEEP, {"training": {"optim": "sgd"}}, "rates of AdamW"),
        (SWEEP, {"training": {"skip_nonfinite_steps": 3}}, "leaves out steps of one run"),
        (SWEEP, {"training": {"lr_scheduler_type": "reduce_lr_on_plateau"}}, "follows the validation score of one run"),
        (SWEEP, {"model": {"checkpoint": "x", "head": {"kind": "mlp", "norm": "batch"}}}, "would share"),
        ("head", {"cache": {"views": 2}, "data": DATA}, "nothing changes images"),
        ("head", {"cache": {"views": 2}, "data": {**DATA, "augment": "auto", "mixup": 0.2}}, "mixes the images anew"),
    ],
)
def test_what_cannot_go_together_is_told(tmp_path, strategy, sections, words):
    with pytest.raises(ValidationError, match=words):
        recipe_of(tmp_path, "vit", strategy, "x", **sections)
