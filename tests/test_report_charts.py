"""The charts of the page: round ticks, honest axes, inert names."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from hf_finetune.publish import charts
from hf_finetune.publish.charts import Frame, Series


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.44, 0.7), (-3, 12), (1e-5, 4e-5), (0, 123_456)])
def test_ticks_are_round_and_inside(low, high):
    found = charts.ticks(low, high, 5)
    assert 2 <= len(found) <= 8 and low <= found[0] and found[-1] <= high * 1.0001
    steps = {round((b - a) / (found[1] - found[0]), 6) for a, b in pairwise(found)}
    assert steps == {1.0}


def test_a_plane_without_extent_is_drawn():
    chart = charts.line_chart("one point", [Series("loss", [(0.0, 0.5)], dots=True)], "epoch")
    assert ET.fromstring(chart).findall("circle")


def test_larger_values_stand_higher_and_later_ones_further_right():
    frame = Frame((0, 10), (1, 100), log=True)
    (x1, y1), (x2, y2), (_, y3) = frame.at(1, 1), frame.at(9, 10), frame.at(9, 100)
    assert x1 < x2 and y1 > y2 > y3
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)  # a factor of ten is the same way everywhere


def test_names_are_inert_in_every_chart():
    name = '<script>alert("x")</script>'
    made = [
        charts.line_chart(name, [Series(name, [(0, 1), (1, 2)], dots=True)], name),
        charts.band_chart(name, [(name, "main", [(0, 0.1, 0.2), (1, 0.1, 0.3)])], name),
        charts.reliability(name, [(0.5, 0.2, 3), (1.0, 0.9, 5)], 8),
        charts.histogram(name, [1, 2], [-1, 0, 1], name),
        charts.scatter(name, [(1, 2), (2, 3)], name, name),
    ]
    for chart in made:
        ET.fromstring(chart)
        assert "<script" not in chart


def test_nothing_is_drawn_of_nothing():
    assert charts.line_chart("loss", [Series("loss", [])], "epoch") == ""
    assert charts.line_chart("rate", [Series("rate", [(0, 0.0)])], "epoch", log=True) == ""
    assert charts.band_chart("rates", [("body", "main", [(0, 0.0, 0.0)])], "epoch") == ""


def test_a_schedule_that_ends_at_nought_does_not_flatten_the_others():
    band = [(0.0, 1e-3, 1e-3), (1.0, 1e-4, 1e-4), (2.0, 0.0, 0.0)]
    chart = ET.fromstring(charts.band_chart("rates", [("body", "main", band)], "epoch"))
    heights = [float(pair.split()[1]) for pair in chart.find("path").get("d").lstrip("M").split("L")]
    assert heights[0] < heights[1] < heights[2]
    assert heights[1] - heights[0] > 30
