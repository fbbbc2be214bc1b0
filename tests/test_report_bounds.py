"""The page stays small and quick whatever the run: many rows, many classes, many images, long curves."""

import tracemalloc

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset

from hf_finetune.data import LabelSpace
from hf_finetune.publish import report_page, report_slices
from hf_finetune.publish.predictions import write_predictions
from hf_finetune.publish.report_answers import MULTI, REGRESSION, SINGLE, TaskAnswers, answers_of, read_answers
from hf_finetune.publish.report_compare import _classes as compared_classes
from hf_finetune.publish.report_curves import curves_of, thinned
from hf_finetune.publish.report_slices import properties_of, slices_of
from hf_finetune.publish.report_tasks import task_section


def peak(work):
    """What it returns, and the most memory in MB that Python and NumPy held for it."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def written(path, problem, names, targets, logits):
    test = Dataset.from_dict({"id": list(range(20, 20 + len(targets))), "label": targets})
    labels = LabelSpace(problem, names)
    write_predictions(path, test, logits, labels)
    return answers_of(test, logits, labels)[0]


@pytest.mark.parametrize("problem", [SINGLE, MULTI, REGRESSION])
def test_answers_are_read_as_they_were(tmp_path, problem):
    names = ("b", "a", "c") if problem != REGRESSION else ("size",)
    logits = np.random.default_rng(0).normal(size=(9, len(names))).astype(np.float32)
    targets = {SINGLE: [n % 3 for n in range(9)], MULTI: [[float(n & 1), 0.0, float(n >> 3)] for n in range(9)],
               REGRESSION: [n / 2 for n in range(9)]}[problem]  # fmt: skip
    ending = written(tmp_path / "p.parquet", problem, names, targets, logits)
    (found,) = read_answers(tmp_path / "p.parquet", [{"name": "", "problem": problem}])
    for mine, other in ((found.truth, ending.truth), (found.scores, ending.scores), (found.ids, ending.ids)):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_probabilities_are_never_a_python_number_each(tmp_path):
    names = tuple(f"class {n}" for n in range(1_000))
    logits = np.random.default_rng(0).normal(size=(300, 1_000)).astype(np.float32)
    written(tmp_path / "p.parquet", SINGLE, names, [n % 1_000 for n in range(300)], logits)
    read_answers(tmp_path / "p.parquet", [{"name": "", "problem": SINGLE}])  # imports
    (found,), most = peak(lambda: read_answers(tmp_path / "p.parquet", [{"name": "", "problem": SINGLE}]))
    assert found.scores.shape == (300, 1_000)
    assert most < 4  # the numbers themselves are 1.2 MB, as objects over 9


def many_classes(count):
    """Two rows a class; of every tenth class both are taken for the next one."""
    truth = np.arange(2 * count) % count
    scores = np.zeros((2 * count, count), dtype=np.float32)
    scores[np.arange(2 * count), np.where(truth % 10 == 0, truth + 1, truth) % count] = 1.0
    places = np.arange(2 * count)
    return TaskAnswers("", SINGLE, tuple(f"c{n}" for n in range(count)), places, places, truth, scores)


def test_many_classes_make_no_square_and_the_worst_are_shown():
    answers = many_classes(2_500)
    section, most = peak(lambda: task_section(answers, {}))
    assert most < 40  # a square of 2,500 classes is 50 MB, and was held four times
    assert section["matrix"] is None and section["confused"][0] == {
        "true": "c0",
        "said": "c1",
        "count": 2,
        "share": 1.0,
    }
    shown = section["classes"]
    assert len(shown["rows"]) == 200 and shown["note"] == "The 200 with the lowest F1 of 2,500."
    assert all(row[-1] == 0.0 for row in shown["rows"]) and len(shown["all"]) == 2_500
    views = [{"name": name, "tasks": [section]} for name in ("one", "two")]
    (table,) = compared_classes(views)
    assert len(table["rows"]) == 200 and "200" in table["note"]


def test_few_classes_are_counted_in_a_matrix_and_all_shown():
    section = task_section(many_classes(20), {})
    assert section["matrix"]["rows"][10]["cells"][11]["count"] == 2 and len(section["classes"]["rows"]) == 20
    assert section["classes"]["note"] == ""


def pictures(count, folder):
    made = []
    for place in range(count):
        level = 40 + 180 * (place % 20) // 19
        path = folder / f"{place}.jpg"
        PIL.Image.new("RGB", (300 + place % 30, 400), (level, level, level)).save(path)
        made.append({"bytes": path.read_bytes(), "path": None})
    return Dataset.from_dict({"id": list(range(count)), "image": made})


def test_of_many_images_a_sample_is_looked_at(tmp_path, monkeypatch):
    import hf_finetune.data as data

    decoded = []
    whole = data.decode_image

    def counted(value, *rest):
        image = whole(value, *rest)
        decoded.append(image.size)
        return image

    monkeypatch.setattr(data, "decode_image", counted)
    monkeypatch.setattr(report_slices, "_BRIGHTNESS_OF", 40)
    monkeypatch.setattr(report_slices, "_SIZES_OF", 60)
    found = properties_of(pictures(100, tmp_path))
    assert len(decoded) == 40 and max(max(size) for size in decoded) < 200  # JPEGs are not decoded whole
    assert set(found) == {"shorter side, pixels (of 60 of the images)", "brightness, % (of 40 of the images)"}
    light = found["brightness, % (of 40 of the images)"]
    assert len(light) == 100 and not np.isnan([light[0], light[99]]).any()
    assert light[0] == pytest.approx(100 * 40 / 255, abs=1)
    answers = many_classes(50)
    for part in slices_of(answers, found, 0):  # those that nobody looked at are no part of their own
        assert sum(row["samples"] for row in part["parts"]) == (60 if "pixels" in part["name"] else 40)
        assert not any("no value" in row["label"] or "nan" in row["label"] for row in part["parts"])


def test_images_that_take_too_long_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(report_slices, "_SECONDS", -1.0)
    found = properties_of(pictures(5, tmp_path))
    assert np.isnan(list(found.values())).all() and slices_of(many_classes(2).part(np.arange(4)), found, 0) == []


def test_long_curves_are_thinned_and_keep_their_peaks():
    history = [{"epoch": n / 1e4, "step": n, "loss": 9.0 if n == 7_777 else 1 + (n % 7) / 9} for n in range(50_000)]
    points = [(entry["epoch"], entry["loss"]) for entry in history]
    kept = thinned(points)
    assert len(kept) <= 1_010 and (0.7777, 9.0) in kept and kept[0] == points[0] and kept[-1] == points[-1]
    assert thinned(points[:900]) == points[:900]
    rates = [entry | {"rates": {"head": [1e-3, 1e-3]}} for entry in history]
    assert sum(len(figure["chart"]) for figure in curves_of(rates, [], None)) < 100_000


def test_a_page_that_stays_too_large_says_so(monkeypatch, capsys):
    monkeypatch.setattr(report_page, "LIMIT", 100)
    monkeypatch.setattr(report_page, "_rendered", lambda runs, compared: "x" * 200)
    assert report_page.render([{"tasks": []}], None) == "x" * 200
    assert "the page is large" in capsys.readouterr().err
