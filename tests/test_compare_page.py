"""The page of a comparison: every part, names inert, nothing loaded; in a browser it draws on any width."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from report_samples import EVIL

from hf_finetune.advice.compare_choice import chosen
from hf_finetune.advice.compare_table import table_in_words
from hf_finetune.evaluation.paired import OVER_SEEDS
from hf_finetune.publish import report_trials
from hf_finetune.publish.report_time import Point, time_chart
from hf_finetune.publish.report_view import Material
from hf_finetune.recipes import load_recipe

WAYS = (("head", 12.0, 0.921), ("lora", 80.0, 0.94), ("full", 340.0, 0.948), (EVIL, 335.0, 0.947))


@pytest.fixture(scope="module")
def found():
    cells = []
    for name, seconds, mean in WAYS:
        ends = [mean - 0.03, mean + 0.02]
        told = {"values": [mean - 0.01, mean, mean + 0.01], "mean": mean, "std": 0.01, "ci95": ends}
        cells.append({
            "name": name, "folder": name, "seeds": [0, 1, 2], "score": told, "validation": mean, "seconds": seconds,
            "metrics": {"accuracy": told, "log_loss": {**told, "mean": 0.2, "ci95": None}}, "epochs": 3.0,
            "training_seconds": seconds / 2, "cut_short": name == "full", "failed": 0,
        })  # fmt: skip
    pairs = [
        {"first": one["name"], "second": other["name"], "difference": one["score"]["mean"] - other["score"]["mean"],
         "ci95": [-0.03, 0.02], "p": 0.2, "p_holm": 0.00001 if one["name"] == "head" else 0.4, "method": OVER_SEEDS}
        for one, other in combinations(cells, 2)
    ]  # fmt: skip
    return {
        "metric": "accuracy", "split": "test", "samples": 153, "seeds": [0, 1, 2], "recipe": "mine.yaml",
        "budget": "equal budgets: the same 3 epochs each", "cells": cells,
        "baseline": {"what": "always bees", "score": 0.542}, "pairs": pairs,
        "take": chosen(cells, pairs, metric="accuracy", greater=True, lone=False),
        "notes": ["A note."], "failed": [{"name": "freeze", "seed": 0, "reason": f"It has no blocks {EVIL}"}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    kinds = ("head", "lora", "full", "bitfit")
    runs = [
        Material(Path(name), name, load_recipe("digits", f"strategy={kind}"), {}, {"history": history(mean)}, [])
        for (name, _, mean), kind in zip(WAYS, kinds, strict=True)
    ]
    patch = pytest.MonkeyPatch()
    with patch.context() as during:  # the folders of runs are not what is looked at here
        during.setattr(report_trials, "read_material", lambda folder: runs[[run.folder for run in runs].index(folder)])
        out = tmp_path_factory.mktemp("page") / "compare.html"
        report_trials.write_page(found, [run.folder for run in runs], out)
    return out


def history(mean):
    return [{"epoch": n, "step": n, "eval_loss": 1 / n, "eval_accuracy": mean - 0.1 / n} for n in (1, 2, 3)]


def test_it_has_every_part(page):
    text = page.read_text()
    wanted = [
        "Take lora", "91.1%, 92.1%, 93.1%", "std of seeds", "always bees", "Time against score", "Is it chance?",
        "real", "may be chance", "&lt; 0.0001", "log loss", "Validation accuracy", "freeze", "strategy.kind", "bitfit",
        "cut short", "A note.",
        "Equal budgets: the same 3 epochs each.", "take this", "The same rows for both, t over seeds and rows.",
        'title="no interval"',
    ]  # fmt: skip
    assert [part for part in wanted if part not in text] == []
    assert "method" not in text and "object at" not in text  # as a template shows a name that it does not know


def test_names_are_inert_and_nothing_is_loaded(page):
    text = page.read_text()
    assert EVIL not in text and "window.evil" in text
    assert text.count("<script>") == 1 and 'src="' not in text and "http:" not in text and "https:" not in text


def test_the_words_of_the_console_say_the_same(found):
    words = table_in_words(found)
    wanted = ["test accuracy, 153 samples, over 3 seeds", "0.9210", "0.9180 and 0.9680", "cut short",
              "always bees: 0.5420", "head less lora: -0.0190, p = 1e-05", "failed: freeze, seed 0",
              "Take lora"]  # fmt: skip
    assert [part for part in wanted if part not in words] == []


def test_names_of_the_time_picture_do_not_lie_on_each_other():
    points = [Point(f"way {n}", 100.0, 0.9, [0.88, 0.92]) for n in range(5)]
    heights = re.findall(r'y="([\d.]+)" text-anchor="\w+">way', time_chart("t", points, "accuracy"))
    assert len({float(height) for height in heights}) == 5
    assert time_chart("t", [], "accuracy") == ""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_draws_it_without_a_complaint_or_a_request(browser, page, width, scheme):
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    assert said == [] and asked == [page.as_uri()] and tab.evaluate("window.evil") is None
    assert all(chart.bounding_box()["width"] > 100 for chart in tab.locator("svg.chart").all())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.close()
