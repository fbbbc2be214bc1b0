"""What is advised for data of known kind: corners, forecasts, costs, epochs, recipes. No model, no training."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from hf_finetune.choice import measures
from hf_finetune.choice.advise import Advice
from hf_finetune.choice.candidates import bit_steps, candidates, epochs_of, pairs_of, usual_epochs
from hf_finetune.choice.cost import Pace, Rows, seconds_of
from hf_finetune.choice.forecast import FEATURES, Facts, Forecast, forecast, numbers
from hf_finetune.choice.measures import TOP, Depths, probe_depths, spread_evenly
from hf_finetune.choice.ranking import _promise
from hf_finetune.choice.verdict import Option, corner_of, in_order, options_of
from hf_finetune.errors import RecipeError
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.strategy_section import CANDIDATES

COSTS = {"head": 1.0, "freeze": 5.0, "lora": 8.0, "lp_ft": 9.0, "full": 10.0, "scratch": 10.0}
PACE = Pace(read=0.001, step=0.03, frozen=(0.1, 0.4, 0.7, 1.0), in_bf16=False)
ROWS = Rows(train=900, validation=100, test=200)


class Labels(dict):
    """The label column of a split."""

    def __len__(self):
        return len(self["label"])


def measured(top, middle=0.0, rows=200, whole=None, until=np.inf, problem="single_label_classification"):
    """Measures of synthetic features: how far apart the classes lie at the top and in the middle."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows) % 4
    centres = generator.normal(size=(4, 16))
    features = [
        (apart * centres[labels] + generator.normal(size=(rows, 16))).astype(np.float32) for apart in (middle, top)
    ]
    whole = rows if whole is None else whole
    task = SimpleNamespace(
        labels=SimpleNamespace(problem_type=problem, names=("a", "b", "c", "d")),
        train=Labels({"label": (np.arange(whole) % 4).tolist()}),
    )
    return probe_depths(Depths(("block 1 of 2", TOP), features), labels, task, 0, until)


# --- where the data stands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "middle", "whole", "corner"),
    [
        (3.0, 0.5, 200, ("little", "similar")),
        (0.1, 0.1, 200, ("little", "dissimilar")),
        (0.4, 3.0, 200, ("little", "dissimilar")),
        (3.0, 0.5, 20_000, ("much", "similar")),
        (0.1, 0.1, 20_000, ("much", "dissimilar")),
    ],
)
def test_the_four_corners(top, middle, whole, corner):
    assert corner_of(measured(top, middle, whole=whole)) == corner


def test_much_is_also_much_of_every_class():
    assert corner_of(measured(3.0, whole=4_000))[0] == "much"
    assert corner_of(measured(3.0, whole=3_000))[0] == "little"


def test_little_and_similar_data_takes_the_head():
    """Where the last layer tells the classes apart already, the others can only be as good, at more cost."""
    options = options_of(measured(4.0, 1.0), COSTS, text=False)
    assert options[0].kind == "head"
    assert options[0].forecast.score > 0.9


def test_where_the_probe_fails_more_than_the_head_learns():
    assert options_of(measured(0.3, 0.3, rows=400), COSTS, text=False)[0].kind != "head"


def test_what_is_not_calibrated_follows_the_corner():
    few = measured(3.0, 0.5)
    few.metric = "micro F1"
    options = options_of(few, COSTS, text=False)
    assert [option.kind for option in options[:3]] == ["head", "lp_ft", "lora"]
    assert all(option.forecast is None for option in options)


def test_only_the_first_probe_is_taken_when_the_time_is_up():
    found = measured(3.0, until=0.0)
    assert found.top.linear is not None
    assert found.probe == found.top.linear
    assert (found.spread, found.noise, found.top.evidence) == (None, None, None)
    assert "the learning curve" in found.left_out
    assert found.middle_gain == 0.0


def test_a_probe_that_would_end_too_late_is_not_begun(monkeypatch):
    """By a clock that goes on by one whenever it is looked at."""
    ticks = count()
    monkeypatch.setattr(measures, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    found = measured(3.0, until=4.5)
    assert len(found.curve) > 1
    assert found.left_out[0] == "a linear probe of block 1 of 2"


def test_sizes_of_classes_are_of_all_training_rows():
    assert measured(3.0, rows=40, whole=402).classes == {"a": 101, "b": 101, "c": 100, "d": 100}


# --- forecasts --------------------------------------------------------------------------------------------------------


def test_the_shipped_numbers_foretell_every_candidate():
    assert tuple(numbers()["features"]) == FEATURES
    for kind in CANDIDATES:
        guess = forecast(kind, Facts(0.8, 500, 0.0, 0.4, False))
        assert 0 < guess.low < guess.score < guess.high < 1
    assert forecast("bitfit", Facts(0.8, 500, 0.0, 0.4, False)) is None


def test_nothing_is_foretold_below_the_commonest_class():
    found = measured(0.0, 0.0)
    found.chance, found.probe = 0.6, 0.55
    options = options_of(found, COSTS, text=True)
    guesses = {option.kind: option.forecast for option in options}
    assert forecast("scratch", Facts(0.55, 200, 0.0, 0.4, True)).score < 0.6
    assert guesses["scratch"].low == guesses["scratch"].score == 0.6
    assert all(0.6 <= guess.low <= guess.score <= guess.high for guess in guesses.values())


def test_a_better_probe_promises_a_better_score():
    found = [forecast("full", Facts(probe, 500, 0.0, 0.4, False)).score for probe in (0.4, 0.6, 0.8, 0.95)]
    assert found == sorted(found)


def test_of_equals_the_cheaper_is_taken():
    def option(kind, seconds, score):
        return Option(kind, seconds, Forecast(score, 0.0, 1.0))

    near = [option("full", 10, 0.900), option("head", 1, 0.897), option("lora", 8, 0.880)]
    assert [each.kind for each in in_order(near, ())] == ["head", "full", "lora"]
    random = [option("scratch", 10, 0.900), option("full", 10, 0.870)]
    assert in_order(random, ("head",))[0].kind == "full"
    assert in_order(random, ("full", "scratch"))[0].kind == "scratch"
    far = [option("full", 10, 0.900), option("head", 1, 0.870)]
    assert in_order(far, ())[0].kind == "full"


# --- costs ------------------------------------------------------------------------------------------------------------


def test_what_runs_once_is_paid_once():
    def cost(kind, **more):
        return seconds_of(kind, PACE, ROWS, 10, **{"kept": True, **more})

    assert cost("head") < cost("freeze", blocks=1) < cost("freeze", blocks=2) < cost("full")
    assert cost("head") < cost("head", kept=False) < cost("full")
    assert cost("lora") < cost("full") == cost("scratch")
    assert cost("head") == pytest.approx(1200 * 0.011, rel=0.2)  # every row once through the model
    halved = Pace(**{**PACE.__dict__, "processes": 2})
    assert seconds_of("full", halved, ROWS, 10, kept=True) == pytest.approx(cost("full") / 2)


def test_a_run_that_ends_by_the_clock_costs_no_more():
    """`training.max_minutes` bounds the training: not what is computed before it, nor the scores behind it."""
    whole = seconds_of("full", PACE, ROWS, 10, kept=True)
    assert seconds_of("full", PACE, ROWS, 10, kept=True, most=60) == pytest.approx(60 + 300 * 0.011)
    assert seconds_of("full", PACE, ROWS, 10, kept=True, most=3600) == whole
    assert seconds_of("head", PACE, ROWS, 10, kept=True, most=0) == pytest.approx(1200 * 0.011, rel=0.01)


def test_a_step_is_that_of_all_processes():
    """A hundred steps of two processes are twice the epochs; so are the epochs of a number of steps."""
    free = load_recipe("digits", "strategy=auto", "training.num_train_epochs=null")
    assert epochs_of("full", free, 450, 2) == epochs_of("full", free, 225) == 15
    assert candidates(free, 450, 12, 2)[0]["full"].training.values()["num_train_epochs"] == 15
    steps = load_recipe("digits", "training.max_steps=90", "training.per_device_train_batch_size=10")
    assert [epochs_of("full", steps, 450, processes) for processes in (1, 2)] == [2, 4]


def test_few_rows_get_more_epochs():
    assert usual_epochs("full", 90) == 25
    assert usual_epochs("full", 450) == 8
    assert usual_epochs("full", 50_000) == 3
    assert usual_epochs("head", 450) == 22
    assert [bit_steps(rows) for rows in (500, 20_000, 600_000)] == [500, 10_000, 20_000]


def test_of_several_checkpoints_one_that_was_not_looked_at_comes_last():
    """Also behind one whose features explain numbers worse than their mean does."""

    def advice(probe):
        found = None if probe is None else measured(3.0)
        if found is not None:
            found.probe = probe
        return Advice(None, found, [Option("head", 1.0, None)], {}, PACE, 200, 10.0, 0.1)

    order = sorted([advice(0.4), advice(None), advice(-0.7)], key=_promise, reverse=True)
    assert [each.measures and each.measures.probe for each in order] == [0.4, -0.7, None]


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_every_candidate_is_a_whole_recipe():
    recipe = load_recipe("digits", "strategy=auto", "training.num_train_epochs=null")
    found, refused = candidates(recipe, 450, 12)
    assert tuple(found) == CANDIDATES
    assert not refused
    assert found["freeze"].strategy.train_blocks == 6
    assert pairs_of(found["full"]) == ["strategy=full", "training.learning_rate=0.0001", "training.num_train_epochs=8"]
    assert epochs_of("head", found["head"], 450) == 22


def test_a_new_linear_head_learns_fast_enough_for_its_few_steps():
    """At 1e-3 it scored 0.38 on 90 rows of AG News, where its probe had 0.72."""
    words = ("strategy=auto", "training.num_train_epochs=null")
    rates = [
        candidates(load_recipe("digits", *words, *more), 90, 12)[0]["head"].training.values()["learning_rate"]
        for more in ((), ("model.head=mlp",))
    ]
    assert rates == [1e-2, 1e-3]
    own, _ = candidates(load_recipe("digits", "strategy=head", "training.learning_rate=3e-4"), 90, 12)
    assert own["head"].training.values()["learning_rate"] == 3e-4


def test_what_the_recipe_says_stays():
    recipe = load_recipe(
        "digits", "strategy=lora", "strategy.r=4", "training.learning_rate=2e-3", "training.num_train_epochs=5"
    )
    found, _ = candidates(recipe, 450, 12)
    assert found["lora"].strategy.r == 4
    assert found["lora"].training.values()["learning_rate"] == 2e-3
    assert found["full"].training.values()["learning_rate"] == 1e-4
    assert {each.training.values()["num_train_epochs"] for each in found.values()} == {5}


def test_the_words_of_the_command_make_the_candidate_again():
    """Also of settings that were given beside the recipe."""
    given = ("strategy=lora", "strategy.r=4", "strategy.targets=[q_proj, v_proj]", "strategy.variant=dora")
    found, _ = candidates(load_recipe("digits", *given), 450, 12)
    for each in found.values():
        again = load_recipe("digits", *pairs_of(each))
        assert (again.strategy, again.training) == (each.strategy, each.training)
    assert found["lora"].strategy.targets is not None


def test_a_strategy_that_the_recipe_forbids_is_left_out_with_the_reason():
    recipe = load_recipe("digits", "strategy=auto", "model.reinit_blocks=1")
    found, refused = candidates(recipe, 450, 12)
    assert "scratch" in refused
    assert "scratch" not in found
    assert "every block is random" in refused["scratch"]


def test_more_blocks_than_the_model_has_are_left_out_with_the_reason():
    found, refused = candidates(load_recipe("digits", "strategy=freeze", "strategy.train_blocks=30"), 450, 12)
    assert "freeze" not in found
    assert refused == {"freeze": "strategy.train_blocks=30, and the model has 12"}


def test_candidates_can_be_named():
    recipe = load_recipe("digits", "strategy=auto", "strategy.candidates=[head, full]")
    assert tuple(candidates(recipe, 450, 12)[0]) == ("head", "full")


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("training.learning_rate=1e-3",), "auto chooses both"),
        (("strategy.candidates=[head, head]",), "names one of them twice"),
        (("strategy.candidates=[]",), "strategy.candidates"),
        (("strategy.candidates=[bitfit]",), "strategy.candidates"),
        (("strategy.share=1.5",), "strategy.share"),
    ],
)
def test_impossible_recipes_are_refused(pairs, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("digits", "strategy=auto", *pairs)


def test_every_beginning_of_the_rows_has_each_class():
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10)
    order = spread_evenly(labels, 0)
    assert sorted(order) == list(range(1000))
    for size in (100, 200, 500):
        counts = np.bincount(labels[order[:size]], minlength=3)
        assert counts == pytest.approx(size * np.array([0.9, 0.09, 0.01]), abs=1.01)
    assert (order != spread_evenly(labels, 1)).any()
