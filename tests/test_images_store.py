"""Pixels that are read more than twice are kept: the same to the last bit, within a budget, gone with the process."""

import gc
import importlib
import os
import pickle
import socket

import numpy as np
import pytest
import torch
from data_samples import PROCESSORS, private_cache  # noqa: F401
from test_data_image_samples import split

from hf_finetune.data import collate_images, image_samples, normalized
from hf_finetune.data.augment import BASIC
from hf_finetune.data.pixel_store import PixelStore


def array(seed, shape=(3, 5, 7)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def files(folder):
    return list(folder.glob("*.pixels"))


def test_what_is_read_a_second_time_is_kept(tmp_path):
    store = PixelStore(4, folder=tmp_path)
    store.put(2, array(2))
    assert store.get(2) is None and files(tmp_path) == []  # one pass over the rows writes nothing
    store.put(2, array(2))
    store.put(0, array(0, (4, 9, 3)))
    store.put(0, array(0, (4, 9, 3)))  # every row has a size of its own
    assert np.array_equal(store.get(2), array(2)) and np.array_equal(store.get(0), array(0, (4, 9, 3)))
    assert store.get(1) is None
    store.get(2)[:] = 0
    assert np.array_equal(store.get(2), array(2))  # an answer is the caller's own
    [file] = files(tmp_path)
    del store
    gc.collect()
    assert not file.exists()


def test_over_the_budget_nothing_more_is_kept(tmp_path):
    store = PixelStore(3, budget=2 * array(0).nbytes + 1, folder=tmp_path)
    for row in range(3):
        for _ in range(3):
            store.put(row, array(row))
    assert [store.get(row) is not None for row in range(3)] == [True, True, False]
    assert files(tmp_path)[0].stat().st_size == 2 * array(0).nbytes


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path):
    (tmp_path / "file").write_text("")
    store = PixelStore(1, folder=tmp_path / "file" / "pixels")
    for _ in range(3):
        store.put(0, array(0))
    assert store.get(0) is None


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / f"{socket.gethostname()}-{2**22 + 5}-abc.pixels"  # above the largest process number
    other = tmp_path / f"another-machine-{2**22 + 5}-abc.pixels"
    for path in (left, other):
        path.write_bytes(b"x")
    store = PixelStore(1, folder=tmp_path)
    for _ in range(2):
        store.put(0, array(0))
    assert not left.exists() and other.exists() and len(files(tmp_path)) == 2


def test_processes_share_a_store(tmp_path):
    store = PixelStore(20, folder=tmp_path)
    for row in range(20):
        store.put(row, array(row))
    children = []
    for child in range(2):
        if (number := os.fork()) == 0:
            for row in range(child, 20, 2):
                store.put(row, array(row, (3, 4 + row, 6)))
            os._exit(0)
        children.append(number)
    assert [os.waitpid(number, 0)[1] for number in children] == [0, 0]
    assert all(np.array_equal(store.get(row), array(row, (3, 4 + row, 6))) for row in range(20))


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("augment", [None, BASIC])
def test_every_epoch_has_the_pixels_of_the_first(name, augment, tmp_path, monkeypatch):
    rows = split(6)
    samples = image_samples(rows, PROCESSORS[name](), augment=augment)
    samples.store = PixelStore(6, folder=tmp_path)
    first = normalized(collate_images(samples.__getitems__([0, 1, 2, 3])))
    samples.__getitems__([0, 1, 2])
    decoded: list[int] = []
    module = importlib.import_module("hf_finetune.data.image_samples")  # the package's name of it is the function
    whole = module.decode_channels
    monkeypatch.setattr(module, "decode_channels", lambda *args: decoded.append(1) or whole(*args))
    third = normalized(collate_images(samples.__getitems__([0, 1, 2, 3])))  # three are kept, one was read once
    assert len(decoded) == 1
    for key in ("pixel_values", "labels"):
        assert torch.equal(first[key], third[key])


def test_a_store_travels_to_spawned_workers(tmp_path):
    store = PixelStore(2, folder=tmp_path)
    for _ in range(2):
        store.put(1, array(1))
    copy = PixelStore.__new__(PixelStore)
    state = store.__getstate__()
    assert state["_open"] is None
    pickle.dumps({name: value for name, value in state.items() if name != "_index"})
    copy.__dict__.update(state)
    assert np.array_equal(copy.get(1), array(1))
    del copy
    gc.collect()
    assert np.array_equal(store.get(1), array(1))  # the copy's end is not the store's
