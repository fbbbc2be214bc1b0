"""Many runs in one process: one that fails does not end the rest, a signal does; one line a run."""

import io
import re

import pytest
from rich.console import Console

from hf_finetune.advice.compare_choice import chosen
from hf_finetune.advice.compare_table import TrialTable
from hf_finetune.advice.trials import Trial, run_trials
from hf_finetune.advice.trials_together import told_by_all
from hf_finetune.console import say, warn
from hf_finetune.disk import DiskError
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.stopping import Stopped
from hf_finetune.training.told import LostProcess


class Finished:
    """What a run leaves, as far as trials look at it."""

    def __init__(self, score):
        self.metrics = {"validation": {"loss": 1.0, "accuracy": score}, "test": {"accuracy": score - 0.1}}


def plan_of(folder, *names):
    return {name: load_recipe("digits", f"output_dir={folder / name}") for name in names}


def test_a_failed_one_is_told_and_the_rest_goes_on(tmp_path, capsys):
    def finetune(recipe):
        say("chatter of a run")
        warn("the classes are not balanced")
        name = recipe.output_dir.rpartition("/")[2]
        if name == "two":
            raise UserError("The data has no labels.\nMore about it.")
        if name == "three":
            raise ValueError("a library stumbles")
        return Finished(0.75)

    trials = run_trials(plan_of(tmp_path, "one", "two", "three", "four"), finetune)
    said = capsys.readouterr()
    assert [trial.run is None for trial in trials.values()] == [False, True, True, False]
    assert trials["two"].reason == "The data has no labels.\nMore about it."
    assert trials["three"].reason == "ValueError: a library stumbles"
    assert re.sub(r", \d+ s$", "", said.out, flags=re.M).splitlines() == [
        "1 of 4  one: accuracy 0.7500 (validation)",
        "2 of 4  two: failed: The data has no labels.",
        "3 of 4  three: failed: ValueError: a library stumbles",
        "4 of 4  four: accuracy 0.7500 (validation)",
    ]
    assert said.err == "warning: the classes are not balanced\n"  # once, not four times


@pytest.mark.parametrize("fault", [Stopped("SIGTERM"), KeyboardInterrupt(), DiskError("The disk is full.")])
def test_a_signal_or_a_full_disk_ends_all(tmp_path, fault, capsys):
    began = []

    def finetune(recipe):
        began.append(recipe.output_dir)
        raise fault

    with pytest.raises(type(fault)):
        run_trials(plan_of(tmp_path, "one", "two"), finetune)
    assert len(began) == 1
    say("heard again")
    assert capsys.readouterr().out == "heard again\n"


def test_two_of_one_folder_are_refused(tmp_path):
    plan = {name: load_recipe("digits", f"output_dir={tmp_path}") for name in ("one", "two")}
    with pytest.raises(RecipeError, match="one and two both have"):
        run_trials(plan, lambda recipe: Finished(1.0))


def test_the_table_tells_what_is_left_by_runs_of_the_same_kind(tmp_path, capsys):
    recipe = load_recipe("digits")
    table = TrialTable(["a 0", "b 0", "a 1", "b 1"], {"a 0": "a", "b 0": "b", "a 1": "a", "b 1": "b"})
    with table:
        assert table.left() is None
        table.ended(Trial("a 0", recipe, Finished(0.5), seconds=2.0), 0)
        table.ended(Trial("b 0", recipe, Finished(0.6), seconds=30.0), 1)
        assert table.left() == 32.0
        table.ended(Trial("a 1", recipe, Finished(0.5), found=True), 2)
        assert table.left() == 30.0
    out = capsys.readouterr().out
    assert "finished before" in out and out.count("\n") == 3


def test_on_a_terminal_every_run_has_its_row(tmp_path):
    recipe = load_recipe("digits")
    names = ["a 0", "b 0", "c 0", "d [red]"]
    table = TrialTable(names, {name: name for name in names})
    table.ended(Trial("a 0", recipe, Finished(0.5), seconds=2.0), 0)
    table.ended(Trial("b 0", recipe, reason="no memory\nmore"), 1)
    table.began("c 0", 2)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table._drawn())
    rows = [line.split() for line in console.export_text().splitlines()]
    assert rows[1][:5] == ["a", "0", "0.5000", "2", "s"]
    assert rows[2] == ["b", "0", "failed:", "no", "memory"]
    assert rows[3][-1] == "runs" and rows[4] == ["d", "[red]", "waits"]  # a name is no markup
    assert rows[5][:3] == ["2", "of", "4,"]


def cell(name, score, seconds):
    return {"name": name, "score": {"mean": score}, "seconds": seconds}


def pair(first, second, gap, p):
    return {"first": first, "second": second, "difference": gap, "ci95": [gap - 0.02, gap + 0.02], "p": p, "p_holm": p}


def test_the_cheapest_that_is_not_significantly_worse_is_taken():
    cells = [cell("head", 0.90, 10.0), cell("lora", 0.94, 60.0), cell("full", 0.95, 600.0)]
    pairs = [pair("head", "lora", -0.04, 0.01), pair("head", "full", -0.05, 0.001), pair("lora", "full", -0.01, 0.4)]
    told = chosen(cells, pairs, metric="accuracy", greater=True, lone=False)
    assert (told["cell"], told["best"]) == ("lora", "full")
    assert "10 times less than full" in told["sentence"]
    assert "+1.0 points, 95% between -1.0 and +3.0" in told["sentence"] and "p = 0.4" in told["sentence"]
    assert "as much as 3 points: more seeds" in told["sentence"]


def test_the_best_is_taken_where_everything_cheaper_is_worse():
    cells = [cell("head", 0.80, 10.0), cell("full", 0.95, 600.0)]
    told = chosen(cells, [pair("head", "full", -0.15, 1e-5)], metric="accuracy", greater=True, lone=True)
    assert told["cell"] == "full" and "significantly worse" in told["sentence"] and "One seed" in told["sentence"]


def test_less_is_better_where_it_is_an_error():
    cells = [cell("head", 3.0, 10.0), cell("full", 1.0, 600.0)]
    assert chosen(cells, [pair("head", "full", 2.0, 1e-5)], metric="mse", greater=False, lone=False)["cell"] == "full"


def test_what_could_not_be_tested_is_said_to_be_so():
    cells = [cell("head", 0.94, 10.0), cell("full", 0.95, 600.0)]
    told = chosen(cells, [], metric="accuracy", greater=True, lone=False)
    assert told["cell"] == "full" and "could not be tested against head" in told["sentence"]


def test_processes_whose_launcher_has_gone_say_so(monkeypatch):
    """The store that they leave their words in goes with the launcher, between two trials as in one."""
    from torch import distributed
    from torch.distributed import TCPStore, distributed_c10d

    kept = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    seen = TCPStore("127.0.0.1", kept.port, is_master=False, wait_for_workers=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: seen)
    del kept
    with pytest.raises(LostProcess, match="the same command goes on"):
        told_by_all(None)
