"""Small charts as SVG: themed by the page's CSS variables, with a title for those who cannot see them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 360, 224
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 34


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: for the legend.
        points: (x, y).
        kind: CSS class: "main", "second", "third" ...
        dots: mark every point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "main"
    dots: bool = False


@dataclass(frozen=True)
class Frame:
    """The plane of a chart: values to pixels, ticks and grid."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = _WIDTH
    height: int = _HEIGHT
    log: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels."""
        low, high = self.x
        across = _LEFT + (x - low) / ((high - low) or 1) * (self.width - _LEFT - _RIGHT)
        (bottom, top), value = self.y, y
        if self.log:
            bottom, top, value = math.log10(bottom), math.log10(top), math.log10(max(y, 1e-300))
        down = self.height - _BOTTOM - (value - bottom) / ((top - bottom) or 1) * (self.height - _TOP - _BOTTOM)
        return round(across, 1), round(down, 1)

    def grid(self, x_label: str, y_label: str = "") -> Iterator[str]:
        """Lines and numbers of both axes, and their names."""
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        for tick in _log_ticks(*self.y) if self.log else ticks(*self.y, 5):
            _, down = self.at(self.x[0], tick)
            yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{down}" y2="{down}"/>'
            yield f'<text class="tick" x="{_LEFT - 7}" y="{down + 3.6}" text-anchor="end">{short(tick)}</text>'
        for tick in ticks(*self.x, 5):
            across, _ = self.at(tick, self.y[0])
            yield f'<text class="tick" x="{across}" y="{bottom + 15}" text-anchor="middle">{short(tick)}</text>'
        yield f'<text class="axis" x="{right}" y="{self.height - 4}" text-anchor="end">{escape(x_label)}</text>'
        if y_label:
            yield f'<text class="axis" x="{_LEFT - 7}" y="{self.height - 4}">{escape(y_label)}</text>'


def svg(title: str, parts: Sequence[str], width: int = _WIDTH, height: int = _HEIGHT) -> str:
    """An SVG element of these parts."""
    said = escape(title, quote=True)
    body = "".join(parts)
    opening = f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{said}">'
    return f"{opening}<title>{said}</title>{body}</svg>"


def line_chart(title: str, series: Sequence[Series], x_label: str, *, log: bool = False, zero: bool = False) -> str:
    """Lines over steps; nothing where no line has a point.

    Args:
        title: what it shows, in words.
        series: in drawing order.
        x_label: name of the x axis.
        log: logarithmic y axis; points at or below 0 are left out.
        zero: the y axis begins at 0.
    """
    drawn = [
        Series(s.name, [p for p in s.points if math.isfinite(p[1]) and (p[1] > 0 or not log)], s.kind, s.dots)
        for s in series
    ]
    points = [point for one in drawn for point in one.points]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (0.0 if zero else min(ys)), max(ys)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    bounds = (low / 1.15, high * 1.15) if log else (low if zero else low - pad, high + pad)
    frame = Frame((min(0.0, *xs), max(xs)), bounds, log=log)
    parts = list(frame.grid(x_label))
    for one in drawn:
        placed = [frame.at(x, y) for x, y in one.points]
        if len(placed) > 1:
            path = "M" + "L".join(f"{x} {y}" for x, y in placed)
            parts.append(f'<path class="line {one.kind}" d="{path}"/>')
        if one.dots or len(placed) == 1:
            parts += [
                f'<circle class="dot {one.kind}" cx="{x}" cy="{y}" r="3"><title>{escape(one.name)} '
                f"{short(value[1], 5)} ({escape(x_label)} {short(value[0], 6)})</title></circle>"
                for (x, y), value in zip(placed, one.points, strict=True)
            ]
    return svg(title, parts)


def band_chart(title: str, bands: Sequence[tuple[str, str, Sequence[tuple[float, float, float]]]], x_label: str) -> str:
    """Bands (x, least, greatest) on a logarithmic axis, each with name and CSS class; one of no width is a line."""
    points = [point for _, _, band in bands for point in band if point[2] > 0]
    if not points:
        return ""
    above = [value for point in points for value in point[1:] if value > 0]
    peaks = [max(low for _, low, _ in band) for _, _, band in bands]
    floor = max(min(above), min(peak for peak in peaks if peak > 0) / 30)  # a schedule that ends at 0 has no foot
    frame = Frame((0, max(p[0] for p in points)), (floor / 1.15, max(above) * 1.15), log=True)
    floor = frame.y[0]
    parts = list(frame.grid(x_label))
    for name, kind, band in bands:
        upper = [frame.at(x, max(top, floor)) for x, _, top in band]
        lower = [frame.at(x, max(low, floor)) for x, low, _ in band]
        if upper != lower:
            edge = "L".join(f"{x} {y}" for x, y in [*upper, *reversed(lower)])
            parts.append(f'<path class="band {kind}" d="M{edge}Z"><title>{escape(name)}</title></path>')
        for line in (upper, lower):
            path = "L".join(f"{x} {y}" for x, y in line)
            parts += [f'<path class="line {kind}" d="M{path}"/>']
    return svg(title, parts)


def reliability(title: str, bins: Sequence[tuple[float, float, int]], rows: int) -> str:
    """Share that is right over what the model claims, with the perfect diagonal; below, how often it claims it.

    Args:
        title: what it shows, in words.
        bins: of each the upper edge, the share that is right and the samples; bins of equal width from 0 to 1.
        rows: all samples.
    """
    frame, parts = Frame((0, 1), (0, 1), height=270), []
    step = 1 / len(bins)
    parts += list(frame.grid("confidence"))
    most = max((count for _, _, count in bins), default=1) or 1
    for upper, share, count in bins:
        if not count:
            continue
        (left, top), (right, floor) = frame.at(upper - step, share), frame.at(upper, 0)
        said = f"{upper - step:.2f} to {upper:.2f}: {share:.1%} right of {count:,} ({count / rows:.1%} of all)"
        weight = 0.35 + 0.65 * count / most
        parts.append(
            f'<rect class="pillar" x="{left + 1}" y="{top}" width="{max(right - left - 2, 1):.1f}" '
            f'height="{max(floor - top, 0.6):.1f}" opacity="{weight:.2f}"><title>{said}</title></rect>'
        )
    (x1, y1), (x2, y2) = frame.at(0, 0), frame.at(1, 1)
    parts.append(f'<line class="diagonal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    return svg(title, parts, height=270)


def histogram(title: str, counts: Sequence[int], edges: Sequence[float], x_label: str) -> str:
    """Bars of counts between edges."""
    frame = Frame((edges[0], edges[-1]), (0, max(counts) * 1.06 or 1))
    parts = list(frame.grid(x_label))
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        (left, top), (right, floor) = frame.at(low, count), frame.at(high, 0)
        parts.append(
            f'<rect class="pillar" x="{left + 0.7:.1f}" y="{top}" width="{max(right - left - 1.4, 0.8):.1f}" '
            f'height="{max(floor - top, 0):.1f}"><title>{short(low)} to {short(high)}: {count:,}</title></rect>'
        )
    if edges[0] < 0 < edges[-1]:
        (x, top), (_, floor) = frame.at(0, frame.y[1]), frame.at(0, 0)
        parts.append(f'<line class="diagonal" x1="{x}" y1="{top}" x2="{x}" y2="{floor}"/>')
    return svg(title, parts)


def scatter(title: str, points: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """Points about the diagonal on which both are equal."""
    values = [value for point in points for value in point]
    low, high = min(values), max(values)
    pad = (high - low) * 0.04 or 1.0
    frame = Frame((low - pad, high + pad), (low - pad, high + pad), height=300)
    (x1, y1), (x2, y2) = frame.at(low - pad, low - pad), frame.at(high + pad, high + pad)
    parts = [*frame.grid(x_label, y_label), f'<line class="diagonal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>']
    radius = 3 if len(points) <= 300 else 2
    for truth, answer in points:
        x, y = frame.at(truth, answer)
        parts.append(
            f'<circle class="point" cx="{x}" cy="{y}" r="{radius}"><title>{escape(x_label)} {short(truth, 5)}, '
            f"{escape(y_label)} {short(answer, 5)}</title></circle>"
        )
    return svg(title, parts, height=300)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from low to high."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = []
    while first * step <= high + 1e-9 * step:
        found.append(round(first * step, 12))
        first += 1
    return found


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 3) if len(powers) > 2 else (1, 2, 5)
    found = [factor * 10.0**power for power in powers for factor in factors]
    inside = [tick for tick in found if low <= tick <= high]
    return inside or [low, high]


def short(number: float, digits: int = 3) -> str:
    """A number for an axis: few digits, thousands as k."""
    size = abs(number)
    if size >= 10_000 and digits <= 3:
        return f"{number / 1000:g}k"
    if number == round(number) and size < 1e6:
        return f"{number:,.0f}"
    text = f"{number:.{digits}g}"
    return text.replace("e-0", "e-").replace("e+0", "e")
