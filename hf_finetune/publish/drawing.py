"""A sheet to draw on with Pillow: twice the size, so that lines come out smooth when it is made small."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = (40, 44, 52), (208, 212, 219), (255, 255, 255)
_SCALE = 2

Color = tuple[int, int, int]


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size * _SCALE)


class Sheet:
    """A white sheet; all lengths are in pixels of the finished picture, from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(self, x: float, y: float, text: str, *, size: int = 13, color: Color = INK, anchor: str = "la") -> None:
        """A line of text; `anchor` as Pillow's: which point of it is at x, y."""
        self._draw.text((x * _SCALE, y * _SCALE), text, font=_font(size), fill=color, anchor=anchor)

    def width_of(self, text: str, size: int = 13) -> float:
        """How long a line of text is."""
        return float(self._draw.textlength(text, font=_font(size))) / _SCALE

    def line(self, points: list[tuple[float, float]], *, color: Color = INK, width: float = 1) -> None:
        """A line through points."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, fill=color, width=max(1, round(width * _SCALE)), joint="curve")

    def dot(self, x: float, y: float, color: Color, radius: float = 2.5) -> None:
        """A filled circle."""
        box = [(x - radius) * _SCALE, (y - radius) * _SCALE, (x + radius) * _SCALE, (y + radius) * _SCALE]
        self._draw.ellipse(box, fill=color)

    def box(self, x: float, y: float, width: float, height: float, color: Color) -> None:
        """A filled rectangle."""
        self._draw.rectangle([x * _SCALE, y * _SCALE, (x + width) * _SCALE, (y + height) * _SCALE], fill=color)

    def turned_text(self, x: float, y: float, text: str, size: int = 13) -> None:
        """A line of text that is read from below; its upper end is at x (its middle), y."""
        length, height = round(self.width_of(text, size) * _SCALE) + 4, (size + 6) * _SCALE
        strip = Image.new("RGB", (length, height), PAPER)
        ImageDraw.Draw(strip).text((0, height / 2), text, font=_font(size), fill=INK, anchor="lm")
        turned = strip.rotate(90, expand=True)
        self._image.paste(turned, (round(x * _SCALE - turned.width / 2), round(y * _SCALE)))

    def png(self) -> bytes:
        """The picture."""
        buffer = io.BytesIO()
        # The mean of each square of dots, and no search for a smaller file: a fifth of the time, and of the same size.
        self._image.reduce(_SCALE).save(buffer, "PNG")
        return buffer.getvalue()
