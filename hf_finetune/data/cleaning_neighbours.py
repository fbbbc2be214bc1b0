"""Pairs of 64-bit hashes that differ in few bits, found without comparing every pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BITS = 64
_PAIRS = 1 << 20  # pairs compared at once
# Bits that are set in each number of 16 bits.
_COUNTS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(
    axis=1, dtype=np.uint8
)


def near_pairs(hashes: np.ndarray, distance: int) -> np.ndarray:
    """All pairs of hashes that differ in at most `distance` bits.

    The bits are dealt into distance + 1 bands. Two hashes that differ in at most `distance` bits are equal in at least
    one of them (the pigeonhole principle; Manku et al. 2007, "Detecting near-duplicates for web crawling"), so only
    hashes that share a band are compared. For small distances that is a small part of all pairs; the answer is exact
    for every distance.

    Args:
        hashes: (N,) uint64.
        distance: from 0 to 63.

    Returns:
        (pairs, 3) int64: places i < j and the number of bits; sorted.
    """
    distance = min(distance, _BITS - 1)
    found = [np.empty((0, 3), dtype=np.int64)]
    for band in range(distance + 1):
        keys = hashes & _mask(band, distance + 1)
        for first, second in _pairs_of_equals(keys):
            bits = differing_bits(hashes[first], hashes[second])
            near = bits <= distance
            pair = np.sort(np.stack([first[near], second[near]], axis=1), axis=1)
            found.append(np.column_stack([pair, bits[near]]))
    return np.unique(np.concatenate(found), axis=0)


def differing_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """In how many bits the hashes (N,) uint64 differ, (N,) int64."""
    words = np.ascontiguousarray(first ^ second).view(np.uint16).reshape(-1, 4)
    return _COUNTS[words].sum(axis=1, dtype=np.int64)


def _mask(band: int, bands: int) -> np.uint64:
    """Every `bands`-th bit: neighbouring bits are alike, so that bands of neighbours would part fewer images."""
    return np.uint64(sum(1 << bit for bit in range(band, _BITS, bands)))


def _pairs_of_equals(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The places of all pairs of equal keys, about a million pairs at a time."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    # After each place in this order, how many of the same key follow it.
    ends = np.searchsorted(ordered, ordered, side="right")
    follow = ends - np.arange(len(keys)) - 1
    places = np.flatnonzero(follow)
    if not len(places):
        return
    totals = np.cumsum(follow[places])
    cuts = np.searchsorted(totals, np.arange(_PAIRS, totals[-1], _PAIRS))
    for part in np.split(places, np.unique(cuts)):
        if not len(part):
            continue
        counts = follow[part]
        first = np.repeat(part, counts)
        within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[first], order[first + 1 + within]
