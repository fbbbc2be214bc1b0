"""Kept features are used again where they fit, and computed again where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cache_samples import recipe_of, run, weights_of
from test_cache_disk import entry as put_entry
from test_cache_equal import DATA, assert_alike

from hf_finetune import prefix_store as store
from hf_finetune.cli import main
from hf_finetune.errors import UserError
from hf_finetune.remembered import FORMATS, recall, remember

FILLED = "samples in"


def test_a_second_run_with_another_rate_and_head_runs_no_block(tmp_path, capsys):
    run(tmp_path, "vit", "head", "first")
    assert FILLED in capsys.readouterr().out
    run(tmp_path, "vit", "head", "rate", training={"learning_rate": 1e-3})
    assert "kept from an earlier run" in capsys.readouterr().out
    checkpoint = {"checkpoint": str(tmp_path / "vit"), "head": {"kind": "mlp", "hidden": [8]}}
    run(tmp_path, "vit", "head", "mlp", model=checkpoint)
    said = capsys.readouterr().out
    assert "kept from an earlier run" in said
    assert FILLED not in said
    assert len(store.entries()) == 3


def test_features_and_head_share_what_is_kept(tmp_path, capsys):
    fitted = run(tmp_path, "vit", "features", "fit")
    assert "features of 43 x 16" in capsys.readouterr().out
    plain = run(tmp_path, "vit", "features", "plain", cache={"prefix": "off"})
    assert_alike(fitted, plain)
    capsys.readouterr()
    run(tmp_path, "vit", "head", "head")
    assert "kept from an earlier run" in capsys.readouterr().out


def test_another_checkpoint_row_or_size_is_another_entry(tmp_path, capsys):
    run(tmp_path, "vit", "head", "first")
    run(tmp_path, "vit", "head", "fewer", data={**DATA, "max_train_samples": 20})
    assert FILLED in capsys.readouterr().out.split("fewer")[0]
    again = recipe_of(tmp_path, "vit", "head", "other")
    from model_samples import save_checkpoint

    save_checkpoint("vit", tmp_path / "vit", hidden_size=24)
    from cache_samples import data_for

    from hf_finetune import finetune

    capsys.readouterr()
    finetune(again, data=data_for("vit"), precision="no")
    assert "features of 43 x 24" in capsys.readouterr().out


def turn_a_byte(folder):
    file = folder / "rows.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        turn_a_byte,
        pytest.param(lambda folder: (folder / "meta.json").write_text(""), id="a power cut"),
        pytest.param(lambda folder: (folder / "meta.json").unlink(), id="half deleted", marks=pytest.mark.slow),
    ],
)
def test_damaged_features_are_computed_again(tmp_path, capsys, damage):
    """One without a readable meta.json was taken for another user's, and nothing was kept from then on."""
    first = run(tmp_path, "vit", "head", "first")
    for entry in store.entries():
        damage(entry.folder)
    capsys.readouterr()
    again = run(tmp_path, "vit", "head", "again")
    captured = capsys.readouterr()
    assert ("are damaged: they are computed again" in captured.err) == (damage is turn_a_byte)
    assert FILLED in captured.out and "cannot be replaced" not in captured.out
    assert_alike(first, again)


def test_stale_features_are_computed_again(tmp_path, capsys):
    """Whole files that hold something else than the model gives now."""
    first = run(tmp_path, "vit", "head", "first")
    for entry in store.entries():
        rows = store.mapped(entry.folder / "rows.bin", entry.meta, shared=True)
        rows += 1
        del rows
        store.finish(entry.folder.name, entry.folder.rename(store.partial(entry.folder.name)), entry.meta)
    capsys.readouterr()
    again = run(tmp_path, "vit", "head", "again")
    assert "are not what the model gives now" in capsys.readouterr().err
    assert_alike(first, again)


def test_an_interrupted_fill_leaves_nothing_that_is_taken_for_whole(tmp_path):
    meta = store.Meta("x", 4, (2,), "float32")
    store.home().mkdir(parents=True)
    store.begin("k", meta)
    assert store.entries() == []
    assert store.find("k") == (None, False)
    torch.testing.assert_close(store.finish("k", store.begin("k", meta), meta).tensor(), torch.zeros(4, 2))


def test_fixed_views_take_turns(tmp_path, capsys):
    flips = {**DATA, "augment": {"flip": 0.5, "rotation": 20}}
    run(tmp_path, "vit", "head", "plain", data=flips)
    assert "augmentation is on (cache.views=k" in capsys.readouterr().out
    sections = {"data": flips, "training": {"num_train_epochs": 4}}
    views = run(tmp_path, "vit", "head", "views", cache={"views": 2}, **sections)
    assert "blocks run 2 times, once a view" in capsys.readouterr().out
    train = next(entry for entry in store.entries() if entry.meta.what.endswith("train"))
    rows = train.tensor()
    assert rows.shape[0] == 48
    assert not torch.allclose(rows[:24], rows[24:])
    # The same views without keeping anything: two epochs see them as an ordinary run does.
    two = {"data": flips, "training": {"num_train_epochs": 2}}
    kept = run(tmp_path, "vit", "head", "two", cache={"views": 2, "prefix": "on"}, **two)
    assert_alike(kept, run(tmp_path, "vit", "head", "real", cache={"prefix": "off"}, **two))
    assert views.metrics["train"]["epochs"] == 4


def test_what_is_refused_and_what_stays_off_says_why(tmp_path, capsys):
    run(tmp_path, "vit", "head", "once", training={"num_train_epochs": 1})
    assert "the training rows are read once" in capsys.readouterr().out
    run(tmp_path, "vit", "head", "small", cache={"max_gb": 1e-7})
    assert "of disk" in capsys.readouterr().out
    run(tmp_path, "vit", {"kind": "freeze", "train_blocks": 3}, "stem")
    assert "frozen prefix" not in capsys.readouterr().out  # the stem alone is not worth a word
    with pytest.raises(UserError, match=r"cache\.prefix=on"):
        run(tmp_path, "xlnet", "head", "insisting", cache={"prefix": "on"})


def test_the_dtype_halves_what_is_kept(tmp_path):
    run(tmp_path, "vit", "head", "wide")
    wide = sum(entry.meta.bytes for entry in store.entries())
    store.clear()
    narrow = run(tmp_path, "vit", "head", "narrow", cache={"dtype": "bf16"})
    assert sum(entry.meta.bytes for entry in store.entries()) == wide // 2
    assert all(np.isfinite(tensor).all() for tensor in weights_of(narrow).values())


def test_the_command_lists_and_clears(tmp_path, capsys):
    run(tmp_path, "vit", "head", "first")
    capsys.readouterr()
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert said.count("3 of 3 blocks") == 3
    key = store.entries()[0].folder.name
    assert main(["cache", "clear", key[:12]]) == 0
    assert "1 entry" in capsys.readouterr().out
    assert len(store.entries()) == 2
    assert main(["cache", "clear", "--older-than", "1"]) == 0
    assert len(store.entries()) == 2
    assert main(["cache", "clear"]) == 0
    assert store.entries() == []
    assert main(["cache"]) == 0
    assert "no features are kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([""], "begins no key"),
        (["nosuch"], "begins no key"),
        (["ab"], "begins 2 keys (ab"),
        (["--older-than=-5"], "0 or more"),
        (["--older-than=nan"], "0 or more"),
    ],
    ids=str,
)
def test_nothing_is_cleared_by_mistake(words, fault, capsys):
    for key in ("abc", "abd"):
        put_entry(key)
    assert main(["cache", "clear", *words]) == 2
    assert fault in capsys.readouterr().err
    assert len(store.entries()) == 2


def test_clearing_all_forgets_what_was_measured():
    remember(FORMATS, "model", ["bf16", "", False])
    assert main(["cache", "clear", "--older-than", "9"]) == 0
    assert recall(FORMATS, "model")
    assert main(["cache", "clear"]) == 0
    assert recall(FORMATS, "model") is None
