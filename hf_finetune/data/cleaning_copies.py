"""Rows that show what an earlier row shows: exactly, or nearly by the perceptual hashes of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_finetune.data.cleaning_neighbours import near_pairs

if TYPE_CHECKING:
    from hf_finetune.data.checks import Inspection


@dataclass(frozen=True)
class Copy:
    """A row that shows what an earlier row shows.

    Args:
        place: of the copy.
        original: the place of the row that it is a copy of, which is itself no copy.
        bits: in how many of 64 bits their perceptual hashes differ; None for an exact copy.
    """

    place: int
    original: int
    bits: int | None = None


def exact_copies(digests: Sequence[str]) -> list[Copy]:
    """Every row but the first of each digest; rows without one ("") are copies of nothing."""
    first: dict[str, int] = {}
    copies = []
    for place, digest in enumerate(digests):
        if digest and (original := first.setdefault(digest, place)) != place:
            copies.append(Copy(place, original))
    return copies


def comparable(digests: Sequence[str], looked: Iterable[Inspection], exact: Iterable[Copy]) -> list[int]:
    """The places of images whose perceptual hashes can tell near copies, for `near_copies`.

    Not those of one colour, which all look alike, whatever the colour; nor those whose alpha channel the model is shown
    and is not opaque: the hash is of the other channels, and does not know what the alpha channel shows.

    Args:
        digests: of all images; "" where one is to be left out.
        looked: what was found in the splits that they are of, in order.
        exact: exact copies, which are told as such.
    """
    unfit = [plain or masked for split in looked for plain, masked in zip(split.plain, split.masked, strict=True)]
    gone = {copy.place for copy in exact}
    return [place for place, digest in enumerate(digests) if digest and place not in gone and not unfit[place]]


def near_copies(hashes: np.ndarray, places: Sequence[int] | np.ndarray, distance: int) -> list[Copy]:
    """Rows whose hash differs in at most `distance` bits from that of an earlier row which is no near copy itself.

    Nearness does not add up: of a chain a, b, c in which only neighbours are near, b alone is a copy.

    Args:
        hashes: (N,) uint64.
        places: the rows to compare, in order; the others are copies of nothing.
        distance: most bits.
    """
    places = np.asarray(places, dtype=np.int64)
    _, starts, group = np.unique(hashes[places], return_index=True, return_inverse=True)
    # The different hashes in the order of their first rows.
    order = np.argsort(starts)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    firsts = places[starts[order]]
    originals = _originals(near_pairs(hashes[firsts], distance), len(firsts))
    copies = []
    for place, number in zip(places.tolist(), rank[group].tolist(), strict=True):
        original, bits = originals[number]
        if place != firsts[original]:
            copies.append(Copy(place, int(firsts[original]), bits))
    return copies


def _originals(pairs: np.ndarray, count: int) -> list[tuple[int, int]]:
    """For each hash the earlier one that stands for it and the bits between them; itself where there is none."""
    originals = [(number, 0) for number in range(count)]
    # By the later of the two, nearest first: all that is earlier is decided by then.
    for first, second, bits in pairs[np.lexsort((pairs[:, 0], pairs[:, 2], pairs[:, 1]))].tolist():
        if originals[second][0] == second and originals[first][0] == first:
            originals[second] = (first, bits)
    return originals
