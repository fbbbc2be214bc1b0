"""A picture of what scores cost: seconds on a logarithmic axis, scores with their intervals, each point named."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from hf_finetune.publish.charts import Frame, short, svg, ticks
from hf_finetune.publish.report_words import duration

_WIDTH, _HEIGHT, _LINE = 440, 300, 13
_LETTER = 5.8  # pixels, of a font of 11
_TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 36000, 86400, 172800, 604800)


@dataclass(frozen=True)
class Point:
    """One run or strategy.

    Args:
        name: beside the point.
        seconds: that it cost.
        score: its score.
        ci95: interval of the score.
        kind: CSS class, see `charts.Series`.
    """

    name: str
    seconds: float
    score: float
    ci95: Sequence[float] | None
    kind: str = "main"


def time_chart(title: str, points: Sequence[Point], y_label: str) -> str:
    """The picture; empty where there is no point.

    Args:
        title: what it shows, in words.
        points: to draw.
        y_label: name of the score.
    """
    if not points:
        return ""
    across = [math.log10(max(point.seconds, 1e-3)) for point in points]
    heights = [height for point in points for height in (point.score, *(point.ci95 or ()))]
    wide, tall = (max(across) - min(across)) or 0.5, (max(heights) - min(heights)) or abs(max(heights)) * 0.1 or 1.0
    # Room on the right for names.
    frame = Frame((min(across) - 0.08 * wide, max(across) + 0.3 * wide), (min(heights) - 0.08 * tall,
                  max(heights) + 0.08 * tall), _WIDTH, _HEIGHT)  # fmt: skip
    parts = list(_axes(frame, y_label))
    taken: list[tuple[float, float, float]] = []
    for point, x in sorted(zip(points, across, strict=True), key=lambda pair: -pair[0].score):
        parts += _drawn(frame, point, x, taken)
    return svg(title, parts, _WIDTH, _HEIGHT)


def _axes(frame: Frame, y_label: str) -> Iterator[str]:
    left, bottom = frame.at(frame.x[0], frame.y[0])
    right = frame.at(frame.x[1], frame.y[0])[0]
    for tick in ticks(*frame.y, 5):
        down = frame.at(frame.x[0], tick)[1]
        yield f'<line class="grid" x1="{left}" x2="{right}" y1="{down}" y2="{down}"/>'
        yield f'<text class="tick" x="{left - 7}" y="{down + 3.6}" text-anchor="end">{short(tick)}</text>'
    last = -math.inf
    for seconds in _ticks(10 ** frame.x[0], 10 ** frame.x[1]):
        x = frame.at(math.log10(seconds), frame.y[0])[0]
        if x - last >= 44:  # as wide as a label
            last = x
            yield f'<text class="tick" x="{x}" y="{bottom + 15}" text-anchor="middle">{duration(seconds)}</text>'
    yield f'<text class="axis" x="{right}" y="{frame.height - 4}" text-anchor="end">time a run</text>'
    yield f'<text class="axis" x="{left - 7}" y="{frame.height - 4}">{escape(y_label)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    inside = [float(seconds) for seconds in _TICKS if low <= seconds <= high]
    return inside if len(inside) > 1 else [float(f"{value:.2g}") for value in (low * 1.02, math.sqrt(low * high))]


def _drawn(frame: Frame, point: Point, across: float, taken: list[tuple[float, float, float]]) -> Iterator[str]:
    """The point, its interval and its name, which gives way to names that stand there already."""
    x, y = frame.at(across, point.score)
    said = f"{point.name}: {short(point.score, 4)} in {duration(point.seconds)}"
    if point.ci95:
        ends = [frame.at(across, end)[1] for end in point.ci95]
        yield f'<path class="line {point.kind}" d="M{x} {ends[0]}L{x} {ends[1]}"/>'
        said += f", 95% between {short(point.ci95[0], 4)} and {short(point.ci95[1], 4)}"
    yield f'<circle class="dot {point.kind}" cx="{x}" cy="{y}" r="5"><title>{escape(said)}</title></circle>'
    width = _LETTER * len(point.name)
    from_right = x + 9 + width > frame.width
    start = x - 9 - width if from_right else x + 9
    height = y + 3.6
    while any(abs(height - other) < _LINE and start < end and begin < start + width for begin, end, other in taken):
        height += _LINE
    taken.append((start, start + width, height))
    anchor, at = ("end", x - 9) if from_right else ("start", x + 9)
    yield f'<text x="{at}" y="{height:.1f}" text-anchor="{anchor}">{escape(point.name)}</text>'
