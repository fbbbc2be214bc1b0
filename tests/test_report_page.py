"""The page of a run: complete for every kind of problem, inert, self-contained, remade without model and data."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from report_samples import EVIL, run_of
from tasks_samples import KIND, SIZE
from tasks_samples import run_of as run_of_tasks

from hf_finetune.publish.report import write_report
from hf_finetune.publish.report_page import LIMIT
from hf_finetune.publish.report_view import read_material, view_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "images": run_of(folder, "vit", "kind", name="images", save_data=True),
        "texts": run_of(folder, "bert", "kind", name="texts"),
        "tags": run_of(folder, "mobilenet_v2", "tags", name="tags"),
        "numbers": run_of(folder, "vit", "size", name="numbers"),
        "tasks": run_of_tasks(folder, "bert", {"kind": KIND, "size": SIZE}, name="tasks"),
    }


class Reader(HTMLParser):
    """Headings, text, and everything that could load or run."""

    def __init__(self, page):
        super().__init__()
        self.text, self.scripts, self.addresses, self.handlers = "", 0, [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        given = dict(attributes)
        self.addresses += [given[name] for name in ("src", "href", "action", "data") if name in given]
        self.handlers += [name for name in given if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def page_of(run):
    return (run.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("images", ["Confusion matrix", "Reliability", "ECE", "brightness", "Most uncertain", "attention followed"]),
        ("texts", ["Confusion matrix", "words", "gradient x input", "Classes"]),
        ("tags", ["Labels", "average precision", "bright", "Grad-CAM"]),
        ("numbers", ["predicted against true", "residuals", "Largest misses"]),
        ("tasks", ["Task", "kind", "size", "predicted against true", "Confusion matrix"]),
    ],
)
def test_the_page_shows_all_that_belongs_to_its_problem(runs, name, wanted):
    text = Reader(page_of(runs[name])).text
    everywhere = [
        "Learning",
        "Learning rate",
        "What learned",
        "Where time went",
        "Data",
        "Recipe and versions",
        "torch",
    ]
    assert [part for part in [*wanted, *everywhere] if part not in text] == []


@pytest.mark.parametrize("name", ["images", "texts", "tags", "numbers", "tasks"])
def test_the_page_is_one_file_that_loads_and_runs_nothing_else(runs, name):
    page = page_of(runs[name])
    read = Reader(page)
    assert len(page.encode()) < LIMIT
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert read.scripts == 1 and not read.handlers and "<script>window.evil" not in page
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page


def test_names_and_texts_from_the_data_are_shown_as_they_are(runs):
    assert EVIL in Reader(page_of(runs["images"])).text  # a class
    assert "<script" in Reader(page_of(runs["texts"])).text.replace(" ", "")  # in the texts too, in pieces


def test_the_numbers_are_those_of_metrics_and_predictions(runs):
    view = view_of(read_material(runs["images"].path))
    test = runs["images"].metrics["test"]
    assert view["headline"][0]["value"] == test["accuracy"] and view["headline"][0]["interval"] == test["accuracy_ci95"]
    cells = [cell for row in view["tasks"][0]["matrix"]["rows"] for cell in row["cells"]]
    assert sum(cell["count"] for cell in cells) == test["samples"]
    assert sum(cell["count"] for cell in cells if cell["right"]) == round(test["accuracy"] * test["samples"])
    assert view["tasks"][0]["reliability"]["ece"] == pytest.approx(test["ece"], abs=1e-5)
    parts = view["tasks"][0]["slices"][0]["rows"]
    assert sum(part["samples"] for part in parts) == test["samples"]


def test_the_history_has_the_rates_that_the_steps_had(runs):
    data = json.loads((runs["images"].path / "about.json").read_text(encoding="utf-8"))
    logged = [entry for entry in data["history"] if "loss" in entry]
    assert logged and all(set(entry["rates"]) == {"body", "head"} for entry in logged)
    # The Trainer logs the rate of the first group, the body's.
    assert all(entry["rates"]["body"][0] == pytest.approx(entry["learning_rate"]) for entry in logged)
    assert all(entry["rates"]["head"][1] == pytest.approx(10 * entry["rates"]["body"][1]) for entry in logged)


def test_the_surest_errors_are_errors_and_come_surest_first(runs):
    groups = json.loads((runs["images"].path / "report.json").read_text(encoding="utf-8"))["gallery"][0]["groups"]
    errors = next(group["items"] for group in groups if "errors" in group["title"])
    assert all(item["label"] != item["answer"] and not item["right"] for item in errors)
    assert [item["score"] for item in errors] == sorted((item["score"] for item in errors), reverse=True)
    assert all(item["picture"].startswith("data:image/jpeg;base64,") for item in errors)


def test_the_command_makes_the_same_page_with_neither_model_nor_data(runs, tmp_path, call):
    moved = tmp_path / "images"
    moved.mkdir()
    for name in ("report.json", "about.json", "metrics.json", "recipe.yaml", "predictions.parquet"):
        shutil.copy(runs["images"].path / name, moved / name)
    done = call("report", str(moved), "--out", str(tmp_path / "page.html"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page_of(runs["images"])


def test_several_runs_stand_side_by_side(runs, call):
    done = call("report", str(runs["images"].path), str(runs["texts"].path), "--out", "both.html")
    assert done.returncode == 0, done.stderr
    text = Reader((call.folder / "both.html").read_text(encoding="utf-8")).text
    assert "2 runs side by side" in text and "F1 by class" in text and "model.checkpoint" in text
    # Both have the numbers and classes of their rows in common, so that this is not held against them.
    assert "All were tested on the same rows." in text and "not tested on the same rows" not in text


def test_a_column_of_the_data_can_be_scored(runs, call):
    done = call("report", str(runs["images"].path), "--by", "camera")
    assert done.returncode == 0, done.stderr
    view = view_of(read_material(runs["images"].path))
    camera = next(part for part in view["tasks"][0]["slices"] if part["name"] == "camera")
    assert {row["label"]: row["samples"] for row in camera["rows"]} == {"new": 15, "old": 15}
    bad = call("report", str(runs["images"].path), "--by", "lens")
    assert bad.returncode == 2 and "camera" in bad.stderr


def test_a_page_that_was_lost_comes_back_from_model_and_data(runs, tmp_path, call):
    copy = tmp_path / "again"
    shutil.copytree(runs["images"].path, copy)
    before = json.loads((copy / "report.json").read_text(encoding="utf-8"))
    (copy / "report.json").unlink()
    (copy / "report.html").unlink()
    bare = call("report", str(copy))
    assert bare.returncode == 0 and "report.json is missing" in (copy / "report.html").read_text(encoding="utf-8")
    done = call("report", str(copy), "--again")
    assert done.returncode == 0, done.stderr
    after = json.loads((copy / "report.json").read_text(encoding="utf-8"))

    def shown(data):
        return [[item["id"] for item in group["items"]] for group in data["gallery"][0]["groups"]]

    assert shown(after) == shown(before)


def test_what_is_no_run_is_refused(tmp_path, call):
    done = call("report", str(tmp_path))
    assert done.returncode == 2 and "holds no finished run" in done.stderr


def test_a_page_that_cannot_be_drawn_does_not_lose_the_run(tmp_path, monkeypatch, capsys):
    from hf_finetune.publish import report

    def fail(*given, **named):
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "gather", fail)
    run = run_of(tmp_path, "vit", "kind")
    assert run.metrics["test"]["samples"] == 30 and not (run.path / "report.html").exists()
    assert "report.html was not made: RuntimeError: no ink" in capsys.readouterr().err


def test_a_page_that_would_be_too_large_shows_fewer_samples(runs, monkeypatch, tmp_path):
    from hf_finetune.publish import report_page

    whole = len(page_of(runs["images"]).encode())
    monkeypatch.setattr(report_page, "LIMIT", whole - 1)
    write_report([runs["images"].path], tmp_path / "small.html")
    assert (tmp_path / "small.html").stat().st_size < whole


def test_a_run_without_steps_shows_what_it_tried(tmp_path):
    run = run_of(tmp_path, "vit", "kind", "strategy=features", "training.num_train_epochs=null")
    text = Reader(page_of(run)).text
    assert "Regularisation tried" in text and re.search(r"In order: \d", text)


def test_adapters_are_explained_too(tmp_path):
    run = run_of(tmp_path, "vit", "kind", "strategy=lora")
    data = json.loads((run.path / "report.json").read_text(encoding="utf-8"))
    assert data["gallery"][0]["method"] and not data["gallery"][0]["note"]
