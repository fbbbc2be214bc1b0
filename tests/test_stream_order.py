"""The order of streamed rows: each once a pass, the same on any number of processes, each chunk read by one reader."""

from __future__ import annotations

import re
import tracemalloc
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import BatchSampler

from hf_finetune.training.stream_order import StreamOrder, fit_workers

SHAPES = [([1000], 8), ([7, 0, 12, 12], 32), ([10] * 100, 64), ([3, 250, 4], 24), ([1] * 100, 10), ([5], 32)]


def order(sizes, step, epoch=0, **options):
    found = StreamOrder(np.cumsum(sizes), step, 3, **options)
    found.set_epoch(epoch)
    return list(found)


@pytest.mark.parametrize(("sizes", "step"), SHAPES)
def test_a_pass_has_every_row_once(sizes, step):
    assert sorted(order(sizes, step)) == list(range(sum(sizes)))
    assert len(StreamOrder(np.cumsum(sizes), step, 3)) == sum(sizes)


@pytest.mark.parametrize(("sizes", "step"), SHAPES)
def test_it_is_the_same_for_every_number_of_processes_and_another_in_every_pass(sizes, step):
    assert order(sizes, step, processes=1) == order(sizes, step, processes=4) == order(sizes, step, processes=8)
    assert order(sizes, step, epoch=1) == order(sizes, step, epoch=1)
    assert order(sizes, step, epoch=1) != order(sizes, step)


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_each_reader_goes_through_chunks_of_its_own(processes, workers):
    """As accelerate deals batches to processes, and a loader to its workers: a chunk has one reader, few have two."""
    sizes, each = [20] * 200, 32 // processes
    batches = list(BatchSampler(order(sizes, 32, processes=processes), each, drop_last=False))
    readers = [set() for _ in sizes]
    for number, batch in enumerate(batches):
        process, at = number % processes, number // processes
        for row in batch:
            readers[row // 20].add((process, at % workers))
    several = sum(len(found) > 1 for found in readers)
    assert several <= 8 * 8  # a chunk at each border of two lanes


def test_a_batch_mixes_rows_of_eight_chunks():
    rows = np.asarray(order([50] * 400, 32))
    chunks = [len(set(batch // 50)) for batch in rows[: len(rows) // 32 * 32].reshape(-1, 32)]
    assert np.mean(chunks) > 7


def test_of_large_chunks_fewer_are_open():
    assert StreamOrder(np.cumsum([100] * 9), 32, 0, weight=1e6).turns == 8
    assert StreamOrder(np.cumsum([100] * 9), 32, 0, weight=5e7).turns == 2
    assert StreamOrder(np.cumsum([100] * 9), 32, 0, weight=1e9).turns == 1


def test_lanes_share_the_tables_of_a_pass():
    """Of ten million chunks each of the 64 lanes had 160 MB of its own, in every process."""
    ends = np.cumsum(np.full(100_000, 10))
    tracemalloc.start()
    try:
        assert len(list(islice(StreamOrder(ends, 32, 0), 32 * 8))) == 256  # all lanes have begun
        assert tracemalloc.get_traced_memory()[1] < 10 * ends.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("workers", "accumulated", "weight", "given", "left", "words"),
    [
        (8, 1, 0, False, 8, None),
        (3, 1, 0, False, 2, "2 loader workers"),
        (3, 1, 0, True, 3, r"each chunk of streamed rows is read by 3 of them; with 2 it would be read once"),
        (6, 3, 0, True, 6, None),
        (16, 1, 0, True, 16, "is read by 2 of them; with 8"),
        (8, 1, 1e9, False, 1, "1 loader workers"),
        (0, 1, 1e9, False, 0, None),
    ],
)
def test_workers_whose_number_does_not_go_into_the_turns(capsys, workers, accumulated, weight, given, left, words):
    """Each of three workers met every lane: chunks were read three times, and held until others drove them out."""
    arguments = SimpleNamespace(dataloader_num_workers=workers, gradient_accumulation_steps=accumulated)
    found = StreamOrder(np.cumsum([100] * 9), 32 * accumulated, 0, weight=weight)
    fit_workers(found, arguments, given)
    assert arguments.dataloader_num_workers == left
    said = capsys.readouterr()
    assert re.search(words, said.out + said.err) if words else not said.out + said.err
