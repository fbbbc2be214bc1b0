"""Features that were interrupted, damaged, or taken by another run: what is there is counted, and told as it is."""

from __future__ import annotations

import pytest
from cache_samples import run
from test_cache_disk import META, Owner, entry, keys
from test_cache_equal import assert_alike

from hf_finetune import prefix_store as store
from hf_finetune.errors import UserError
from hf_finetune.prefix_store.locks import hold
from hf_finetune.training import prefix_split


def test_what_a_killed_run_has_left_is_no_reason_against_its_restart():
    store.home().mkdir(parents=True)
    store.begin("k", META)
    assert store.total() == 1000
    assert store.room(1000, {"k"}) == 1000
    assert not store.partial("k").exists()


def test_what_another_run_fills_of_the_same_is_counted_once():
    entry("old", 100)
    lock = store.lock_of("k")
    lock.acquire()
    store.begin("k", META)
    assert store.room(1000, {"k"}) == 1000
    assert store.room(1000, {"another"}) == 0
    assert store.make_room(1000, 2000, {"k"}) == []
    assert [gone.key for gone in store.make_room(1000, 2000, {"another"})] == ["old"]
    assert store.partial("k").exists()
    store.release(lock)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_fill_leaves_nothing(tmp_path, monkeypatch, kind):
    def interrupted(*args):
        assert len(list(store.home().glob(".partial-*"))) == 1
        raise kind

    with monkeypatch.context() as patch, pytest.raises(kind):
        patch.setattr(prefix_split, "fill", interrupted)
        run(tmp_path, "vit", "head", "run")
    assert list(store.home().iterdir()) == []


@pytest.mark.parametrize("place", [5, (1 << 20) + 5, (129 << 20) - 1])
def test_damage_is_seen_wherever_it_is(place):
    made = entry("k", meta=store.Meta("x", 129, (1 << 18,), "float32"))  # 129 MiB
    assert store.find("k") == (made, False)
    with made.rows.open("r+b") as file:
        file.seek(place)
        file.write(b"\x01")
    assert store.find("k") == (None, True)
    assert store.find("k") == (None, False)
    assert keys() == set()


def evicted_by_another(monkeypatch, bytes_of_another, owner=None):
    """Each entry that a run wants goes just before the run locks it, and what took its room is there, and used."""
    lock_of = store.lock_of

    def just_before(key):
        size = bytes_of_another or sum(found.meta.bytes for found in store.entries() if found.key == key)
        store.clear(key)
        other = entry(f"other-{key}", meta=store.Meta("x", size // 4, (1,), "float32"))
        if owner is not None:
            hold(other.rows, owner)
        return lock_of(key)

    monkeypatch.setattr(store, "lock_of", just_before)


def test_what_was_evicted_is_not_called_damaged_and_finds_room_anew(tmp_path, monkeypatch, capsys):
    first = run(tmp_path, "vit", "head", "first")
    most = store.total()
    monkeypatch.setattr(store, "bound", lambda share: most)
    evicted_by_another(monkeypatch, None)
    capsys.readouterr()
    again = run(tmp_path, "vit", "head", "again")
    said = capsys.readouterr()
    assert "kept from an earlier run" in said.out
    assert "43 samples in" in said.out  # of all three splits
    assert "damaged" not in said.err
    assert_alike(first, again)
    assert store.total() <= most
    assert not any(key.startswith("other") for key in keys())


def test_what_was_evicted_and_finds_no_room_stops_the_run(tmp_path, monkeypatch):
    run(tmp_path, "vit", "head", "first")
    most = store.total()
    monkeypatch.setattr(store, "bound", lambda share: most)
    owner = Owner()
    evicted_by_another(monkeypatch, most, owner)
    with pytest.raises(UserError, match="gone just now, and there is no room to compute them again: it takes"):
        run(tmp_path, "vit", "head", "again")
    assert not list(store.home().glob(".*"))


def test_stale_features_make_room_for_what_takes_their_place(tmp_path, monkeypatch, capsys):
    run(tmp_path, "vit", "head", "first")
    most = store.total()
    monkeypatch.setattr(store, "bound", lambda share: most)
    for found in store.entries():
        rows = store.mapped(found.rows, found.meta, shared=True)
        rows += 1
        del rows
        store.finish(found.key, found.folder.rename(store.partial(found.key)), found.meta)
    begin, there = store.begin, []

    def measured(key, meta):
        made = begin(key, meta)
        there.append(store.total())
        return made

    monkeypatch.setattr(store, "begin", measured)
    run(tmp_path, "vit", "head", "again")
    assert "are not what the model gives now" in capsys.readouterr().err
    assert there == [most] * 3
