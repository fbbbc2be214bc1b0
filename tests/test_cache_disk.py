"""What kept features take of the disk: bounded, oldest out first, and never what a process fills or uses."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from cache_samples import run

from hf_finetune import prefix_store as store
from hf_finetune.cli import main
from hf_finetune.errors import UserError
from hf_finetune.prefix_store import entry as entry_module
from hf_finetune.prefix_store.locks import hold, in_use

META = store.Meta("x", 25, (10,), "float32")  # 1,000 bytes


def entry(key, age=0.0, meta=META):
    """A whole entry, last used so many seconds ago."""
    store.home().mkdir(parents=True, exist_ok=True)
    made = store.finish(key, store.begin(key, meta), meta)
    os.utime(made.folder / "meta.json", (made.last_used - age,) * 2)
    return made


def keys():
    return {found.key for found in store.entries()}


class Owner:
    """What holds a file as long as it lives."""


def test_the_least_recently_used_make_room():
    for age, key in enumerate("abcde"):
        entry(key, 100.0 * age)
    assert store.total() == 5000
    assert store.make_room(1000, 6000, set()) == []
    assert [gone.key for gone in store.make_room(2000, 5500, set())] == ["e", "d"]
    assert keys() == {"a", "b", "c"}


def test_what_is_wanted_held_or_filled_stays():
    oldest, filled = entry("a", 300), store.lock_of("b")
    entry("b", 200), entry("c", 100), entry("d")
    owner = Owner()
    hold(oldest.rows, owner)
    filled.acquire()
    assert store.room(4000, {"c"}) == 1000  # of d alone
    assert [gone.key for gone in store.make_room(4000, 4000, {"c"})] == ["d"]
    del owner
    store.release(filled)
    assert store.room(4000, {"c"}) == 3000
    assert [gone.key for gone in store.make_room(3000, 4000, {"c"})] == ["a", "b"]


def test_what_half_a_disk_holds_counts_what_is_kept():
    """Deleting an entry frees its room: the bound stays where it is."""
    before = store.bound(0.5)
    big = store.Meta("x", 1 << 20, (16,), "float32")  # 64 MiB
    entry("a", meta=big)
    assert abs(store.bound(0.5) - before) < 32 << 20  # others write too
    assert store.bound(0.9) > store.bound(0.5)


def test_large_features_are_held_as_long_as_they_live(monkeypatch):
    small = entry("a")
    rows = small.tensor()
    assert not in_use(small.rows)  # in memory
    monkeypatch.setattr(entry_module, "_IN_MEMORY", 10)
    rows = small.tensor()
    assert in_use(small.rows)
    assert store.clear() == (0, 0, 1)
    assert rows.sum() == 0
    del rows
    assert store.clear() == (1, 1000, 0)


def test_clear_leaves_what_is_being_filled_and_says_so(capsys):
    entry("aa"), entry("bb")
    lock = store.lock_of("bb")
    lock.acquire()
    store.begin("bb", META)
    store.begin("cc", META)  # left by a run that was killed
    assert main(["cache", "clear"]) == 0
    assert "1 entry cleared, 1.0 kB; 1 in use by a run, and left" in capsys.readouterr().out
    assert keys() == {"bb"}
    assert store.partial("bb").exists() and not store.partial("cc").exists()
    store.release(lock)
    store.clear()
    assert list(store.home().iterdir()) == []


def test_no_lock_is_left_behind(tmp_path):
    run(tmp_path, "vit", "head", "first")
    assert [file.name for file in store.home().glob(".*")] == []
    assert len(store.entries()) == 3


def test_a_lock_that_was_waited_for_is_a_lock():
    """Its file is deleted by who had it; the one that waited and a third must not both have it."""
    store.home().mkdir(parents=True)
    first, second, third = (store.lock_of("k") for _ in range(3))
    first.acquire()
    opened = os.open(second.lock_file, os.O_RDWR)  # as one that is just about to take it
    store.release(first)
    second.acquire(timeout=1)
    with pytest.raises(TimeoutError):
        third.acquire(timeout=0)
    os.close(opened)
    store.release(second)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_disk_without_room_leaves_nothing_half_there():
    """A limit on the size of files stands for the full disk."""
    import resource

    store.home().mkdir(parents=True)
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        try:
            store.begin("k", META)
        except OSError:
            os._exit(3 if store.partial("k").exists() else 0)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.begin("k", META).exists()


def test_the_line_names_the_folder_and_what_is_in_it(tmp_path, capsys):
    entry("other", meta=store.Meta("x", 1000, (1000,), "float32"))
    run(tmp_path, "vit", "head", "first")
    assert f"; 4.0 MB in all in {store.home()}" in capsys.readouterr().out
    main(["cache"])
    assert f"4.0 MB in {store.home()}" in capsys.readouterr().out


def test_a_run_takes_the_room_of_what_was_not_used_for_longest(tmp_path, capsys, monkeypatch):
    megabyte = store.Meta("x", 1000, (250,), "float32")
    entry("old", 200, megabyte), entry("new", 100, megabyte)
    monkeypatch.setattr(store, "bound", lambda share: 2_000_000)  # bytes, as if half of the disk
    run(tmp_path, "vit", "head", "run")
    assert "1.0 MB of features not used for longest made room" in capsys.readouterr().out
    assert "old" not in keys() and "new" in keys() and len(keys()) == 4
    monkeypatch.setattr(store, "bound", lambda share: 0)
    run(tmp_path, "vit", {"kind": "freeze", "train_blocks": 1}, "none")
    assert "and 0 B may be used (cache.max_gb" in capsys.readouterr().out
    assert "new" in keys()  # nothing is deleted for what does not fit anyway


def test_views_without_room_stop_the_run(tmp_path):
    sections = {
        "data": {"dataset": "none", "validation": "validation", "augment": {"flip": 0.5}},
        "training": {"num_train_epochs": 4},
    }
    with pytest.raises(UserError, match=r"cache\.views=2: no views can be kept: it takes .* of disk"):
        run(tmp_path, "vit", "head", "views", cache={"views": 2, "max_gb": 1e-7}, **sections)
    assert store.entries() == []


def test_features_that_are_there_need_no_room(tmp_path, capsys):
    run(tmp_path, "vit", "head", "first")
    run(tmp_path, "vit", "head", "second", cache={"max_gb": 1e-7})
    assert "kept from an earlier run" in capsys.readouterr().out


def test_an_entry_gone_between_the_list_and_the_look():
    found = entry("a")
    store.clear()
    assert found.last_used == 0.0
    assert torch.equal(entry("a").tensor(), torch.zeros(25, 10))


def test_clearing_deletes_what_is_torn():
    torn, whole = entry("a"), entry("b")
    (torn.folder / "meta.json").write_text("")
    assert store.clear("x").entries == 0 and torn.folder.exists()
    assert store.clear().entries == 1
    assert not torn.folder.exists() and not whole.folder.exists()
