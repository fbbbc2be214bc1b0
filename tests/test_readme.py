"""The command lines of the README: every one resolves, and those on data of one's own run, here on a few toy rows."""

import re
import shlex

import pandas as pd
import pytest
from conftest import REPOSITORY
from data_samples import photo
from model_samples import save_checkpoint

from hf_finetune import finetune, load_recipe
from hf_finetune.advice.compare_plan import plan_of
from hf_finetune.evaluation.commands import evaluate_command, predict_command
from hf_finetune.publish.report_again import report_command

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("  #")[0] for block in re.findall(r"```\n(.*?)```", README, re.S) for line in block.splitlines()
]
OF_THE_SEARCH = "trials="  # what is not a recipe's
RECIPES = [
    tuple(word for word in shlex.split(line.partition("recipe=")[2]) if not word.startswith(OF_THE_SEARCH))
    for line in COMMANDS
    if " recipe=" in line and " compare " not in line
]
OWN_DATA = [pairs for pairs in RECIPES if any(pair.startswith("data.dataset=") for pair in pairs)]
VERBS = [shlex.split(line)[1:] for line in COMMANDS if line.startswith("hf-finetune ")]


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    """A folder with what the README's commands call photos/, new_digits/ and reviews.csv."""
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("0", "1")):
        for folder in ("photos", "new_digits"):
            (tmp_path / folder / name).mkdir(parents=True)
            for seed in range(12):
                photo(100 * place + seed).save(tmp_path / folder / name / f"{seed}.png")
    rows = [(n, f"w{3 + n % 40} w{4 + n % 30}", 1 + n % 5) for n in range(60)]
    pd.DataFrame(rows, columns=["id", "review", "stars"]).to_csv("reviews.csv", index=False)


def toy(pairs):
    """The recipe of a command line, with a tiny checkpoint and one step."""
    text = any("text" in pair for pair in pairs)
    checkpoint = save_checkpoint("bert" if text else "vit", "tiny")
    sizes = ("training.max_steps=1", "training.per_device_train_batch_size=4", "evaluation.bootstrap=10")
    return load_recipe(*pairs, f"model.checkpoint={checkpoint}", *sizes, *(["data.max_length=16"] if text else []))


@pytest.mark.parametrize("pairs", RECIPES, ids=" ".join)
def test_every_command_resolves(pairs):
    load_recipe(*pairs)


@pytest.mark.parametrize("pairs", OWN_DATA, ids=" ".join)
def test_commands_on_data_of_ones_own_run(pairs, capsys):
    run = finetune(toy(pairs), precision="no")
    assert run.metrics["test"]["samples"] == (12 if "stars" in str(pairs) else 5)
    assert "belonged to" in (said := capsys.readouterr().out) and "no split called test" in said


def test_the_readme_shows_such_commands():
    assert len(OWN_DATA) >= 2 and {verb[0] for verb in VERBS} >= {"predict", "evaluate"}


def test_verbs_on_a_finished_run_work_on_other_data(capsys):
    finetune(load_recipe("digits", "data.max_train_samples=40", "training.num_train_epochs=1"), precision="no")
    for verb, *arguments in VERBS:
        if verb == "predict":
            inputs = [argument for argument in arguments[1:] if argument not in ("--out", "predictions.csv")]
            assert predict_command(arguments[0], inputs, out="predictions.csv") == 0
            assert len(pd.read_csv("predictions.csv")) == 24
        elif verb == "evaluate":
            assert evaluate_command(arguments[0], arguments[1:])["samples"] == 24
        elif verb == "report":
            assert report_command(arguments).stat().st_size > 10_000
        elif verb == "compare":
            assert len(plan_of(*[pair.removeprefix("recipe=") for pair in arguments[:1]], arguments[1:]).cells) == 3
        elif verb not in ("push", "reproduce", "demo", "serve", "export"):  # test_hub_*, test_demo_*, test_export_*
            load_recipe(
                *[pair.removeprefix("recipe=") for pair in arguments if not pair.startswith(("-", OF_THE_SEARCH))]
            )
