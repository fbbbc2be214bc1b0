"""Pixels that are read more than twice are kept: the same to the last bit, within a budget, gone with the process."""

import gc
import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from data_samples import PROCESSORS, private_cache  # noqa: F401
from test_data_image_samples import split
from transformers import ViTImageProcessor

from hf_finetune.data import collate_images, image_samples, normalized
from hf_finetune.data.augment import BASIC
from hf_finetune.data.pixel_store import PixelStore
from hf_finetune.errors import UserError


def array(seed, shape=(3, 5, 7)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def files(folder):
    return list(folder.glob("*.pixels"))


def kept_twice(store, row, value):
    """Read twice, which is when a row is kept."""
    for _ in range(2):
        store.put(row, value)
    return store.get(row) is not None


def as_a_spawned_worker_has_it(store):
    copy = PixelStore.__new__(PixelStore)
    copy.__dict__.update(store.__getstate__())
    return copy


def test_what_is_read_a_second_time_is_kept(tmp_path):
    store = PixelStore(4, folder=tmp_path)
    store.put(2, array(2))
    assert store.get(2) is None and all(
        file.stat().st_size == 0 for file in files(tmp_path)
    )  # one pass over the rows writes nothing
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


def test_what_nobody_holds_is_removed_whoever_made_it(tmp_path):
    left, young = tmp_path / "another-machine-7-abc.pixels", tmp_path / "young.pixels"
    for path in (left, young):
        path.write_bytes(b"x")
    held = PixelStore(1, folder=tmp_path)
    kept_twice(held, 0, array(0))
    [own] = set(files(tmp_path)) - {left, young}
    for path in (left, own):  # not written to for an hour
        os.utime(path, (time.time() - 3600,) * 2)
    PixelStore(1, folder=tmp_path)
    assert not left.exists() and young.exists() and own.exists()
    assert np.array_equal(held.get(0), array(0))


def test_a_worker_never_makes_the_file_anew(tmp_path):
    store = PixelStore(3, folder=tmp_path)
    assert kept_twice(store, 0, array(0))
    [file] = files(tmp_path)
    file.unlink()
    worker = as_a_spawned_worker_has_it(store)
    assert worker.get(0) is None and not kept_twice(worker, 1, array(1)) and files(tmp_path) == []
    assert worker.get(0) is None
    assert np.array_equal(store.get(0), array(0))  # what is open stays


def test_another_file_of_the_same_name_is_not_read(tmp_path):
    store = PixelStore(3, folder=tmp_path)
    assert kept_twice(store, 0, array(0))
    [file] = files(tmp_path)
    file.rename(tmp_path / "moved")
    file.write_bytes(array(5).tobytes())
    worker = as_a_spawned_worker_has_it(store)
    assert worker.get(0) is None and not kept_twice(worker, 1, array(1))
    assert file.read_bytes() == array(5).tobytes()


def test_processes_of_a_machine_share_the_disk(tmp_path, monkeypatch):
    free = 48 * 2**20
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": free})())
    sizes = []
    for processes in ("1", "4"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        store = PixelStore(40, folder=tmp_path / processes)
        sizes.append(sum(kept_twice(store, row, np.zeros((3, 2**9, 2**9), np.uint8)[:, :, ::3]) for row in range(40)))
    part = 3 * 2**9 * 171
    assert sizes == [free // 12 // part, free // 48 // part]


def test_a_disk_that_others_fill_is_left_alone(tmp_path):
    store = PixelStore(2, folder=tmp_path, kept_free=2**62)
    assert not kept_twice(store, 0, array(0)) and files(tmp_path)[0].stat().st_size == 0
    assert kept_twice(PixelStore(2, folder=tmp_path, kept_free=0), 0, array(0))


def test_threads_share_a_store(tmp_path):
    rows = 2000
    store = PixelStore(rows, folder=tmp_path)
    values = [np.full((1, 1 + row % 7, 50), row % 251, np.uint8) for row in range(rows)]
    for row in range(rows):
        store.put(row, values[row])

    def fill(first):
        for row in range(first, rows, 4):
            store.put(row, values[row])

    threads = [threading.Thread(target=fill, args=(first,)) for first in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert all(np.array_equal(store.get(row), values[row]) for row in range(rows))


@pytest.mark.parametrize("value", [np.zeros((4, 5), np.uint8), np.zeros((3, 4, 5), np.float32)])
def test_what_is_not_bytes_of_three_sizes_passes(value, tmp_path):
    assert not kept_twice(PixelStore(1, folder=tmp_path), 0, value)


def test_augmentation_of_other_than_three_channels_is_refused():
    grey = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5], image_std=[0.5])
    with pytest.raises(UserError, match=r"3 channels, .* takes 1: say data.augment=none"):
        image_samples(split(2), grey, augment=BASIC)


@pytest.mark.slow
def test_the_end_of_the_process_is_silent_and_leaves_nothing(tmp_path):
    lines = [
        "import sys, pathlib, numpy as np",
        "from hf_finetune.data.pixel_store import PixelStore",
        "store = PixelStore(1, folder=pathlib.Path(sys.argv[1]))",
        "for _ in range(2): store.put(0, np.zeros((3, 4, 5), np.uint8))",
        "assert store.get(0) is not None",
        "import builtins; builtins.kept = store; sys.kept = store",
    ]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines), tmp_path], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, files(tmp_path)) == (0, "", [])


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
    state = store.__getstate__()
    assert state["_open"] is None
    pickle.dumps({name: value for name, value in state.items() if name != "_index"})
    copy = as_a_spawned_worker_has_it(store)
    assert np.array_equal(copy.get(1), array(1))
    del copy
    gc.collect()
    assert np.array_equal(store.get(1), array(1))  # the copy's end is not the store's


def test_the_file_lies_where_other_kept_things_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "chosen"))
    store = PixelStore(2)
    assert kept_twice(store, 0, array(0))
    assert len(files(tmp_path / "chosen" / "pixels")) == 1


def test_a_system_without_locks_keeps_nothing_and_works(tmp_path, monkeypatch):
    """Windows has neither `fcntl` nor `os.preadv`."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "preadv")
    from hf_finetune.data import pixel_store

    spec = importlib.util.spec_from_file_location("elsewhere", pixel_store.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    store = module.PixelStore(2, folder=tmp_path / "pixels")
    assert not kept_twice(store, 0, array(0))
    assert not (tmp_path / "pixels").exists()
    monkeypatch.undo()
    assert pixel_store.POSSIBLE
