"""A folder of kept features that other users write too, or that is none."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import datasets
import pytest
from cache_samples import run
from test_cache_disk import entry

from hf_finetune import prefix_store as store
from hf_finetune.remembered import FORMATS, forget, recall, remember
from hf_finetune.training.prefix_plan import _writable
from hf_finetune.training.prefix_split import take_lock

ANOTHER = 54321  # nobody's number

as_root = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can be another user")


@contextmanager
def another_user():
    os.seteuid(ANOTHER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(monkeypatch):
    """A folder that every user may write, the cache in it; pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp())
    store_folder = folder / "cache" / "prefix"
    store_folder.mkdir(parents=True)
    for each in (folder, store_folder.parent, store_folder):
        each.chmod(0o777)
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(folder / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
    yield folder
    shutil.rmtree(folder)


@as_root
def test_an_entry_of_another_user_is_read_and_stays(shared):
    mine = entry("k", age=1000)
    with another_user():
        assert store.find("k") == (mine, False)
        store.drop(mine.folder)
        assert store.stays("k")


@as_root
def test_a_lock_of_another_user_is_said(shared):
    Path(store.lock_of("k").lock_file).touch(0o644)
    with another_user():
        assert "k.lock cannot be written (another user's?)" in take_lock(store.lock_of("k"))


@pytest.mark.slow
def test_features_that_cannot_be_replaced_are_computed_with_every_batch(tmp_path, capsys):
    first = run(tmp_path, "vit", "head", "first")
    [kept, *_] = store.entries()
    shutil.rmtree(kept.folder)
    kept.folder.touch()  # no entry, and no folder that could be deleted: as another user's to anybody
    capsys.readouterr()
    again = run(tmp_path, "vit", "head", "again")
    assert f"runs with every batch: {kept.folder} cannot be replaced" in capsys.readouterr().out
    assert again.metrics["test"]["loss"] == pytest.approx(first.metrics["test"]["loss"], rel=1e-4)


@as_root
def test_what_another_user_measured_stays(shared):
    remember(FORMATS, "model", "bf16")
    store.home().parent.chmod(0o755)
    with another_user():
        forget()
    assert recall(FORMATS, "model") == "bf16"


def test_a_cache_that_is_no_folder_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "to" / "be" / "made"))
    assert _writable()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / name))
        assert not _writable()
