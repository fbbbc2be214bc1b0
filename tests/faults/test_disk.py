"""Disks that are full, read-only or gone: told with the disk's name, the state of training kept, nothing half."""

from __future__ import annotations

import errno
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from cache_samples import data_for, recipe_of
from fault_samples import Drive, after_saves, fill, outcome, small_disk, weights_of
from safetensors import SafetensorError
from safetensors.torch import save_file
from trainer_samples import trainer

from hf_finetune import finetune
from hf_finetune.console import say, warn
from hf_finetune.data.files import read_files
from hf_finetune.disk import DiskError, Place, disk_errno, of_a_disk, writing
from hf_finetune.errors import UserError
from hf_finetune.model import load_finished
from hf_finetune.training.checkpoints import newest_whole, seal
from hf_finetune.training.folder import RunFolder
from hf_finetune.training.rescue import spare_room


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB, the checkpoints of these runs taking about 0.2 MB each."""
    with small_disk(tmp_path / "disk", "2m") as place:
        yield place


@pytest.fixture
def drive(tmp_path, power_cut):
    made = Drive(tmp_path)
    yield made
    if made.there:
        made.take_away()


@pytest.fixture
def nowhere_else(monkeypatch, disk):
    """No other disk: the cache and the temporary folder are on the same."""
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(disk / "cache"))
    (disk / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(disk / "tmp"))


def recipe_on(tmp_path, place, name="run", **sections):
    return recipe_of(tmp_path, "vit", "full", "unused", **{**sections, "output_dir": str(place / name)})


def go(recipe):
    return finetune(recipe, data=data_for("vit"), precision="no")


def expect_fault(recipe, words):
    with pytest.raises(DiskError, match=words) as found:
        go(recipe)
    return str(found.value)


def reference(tmp_path):
    go(recipe_on(tmp_path, tmp_path, "reference"))
    return outcome(tmp_path / "reference")


def move_back(told):
    """The command of the message, as a person would give it."""
    line = next(line for line in told.splitlines() if line.strip().startswith("mv "))
    subprocess.run(shlex.split(line), check=True)


# --- a disk that is full ---------------------------------------------------------------------------------------------


def test_a_checkpoint_that_finds_no_room_is_written_elsewhere_and_the_run_goes_on_from_it(tmp_path, disk, monkeypatch):
    expected = reference(tmp_path)
    recipe = recipe_on(tmp_path, disk)
    with monkeypatch.context() as patch:
        after_saves(patch, 1, lambda: fill(disk, leave=20_000))
        told = expect_fault(recipe, "checkpoint-6 could not be written")
    assert f"mounted at {disk} (tmpfs" in told and "is full" in told and "Free some room" in told
    folder = disk / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["checkpoint-3"]  # no torn one, nothing that takes room
    # Should the disk not come back: what was rescued is a run's folder. (A copy, so that it can also be moved back.)
    shutil.copytree(told.rpartition("output_dir=")[2], tmp_path / "rescued")
    go(recipe_on(tmp_path, tmp_path, "rescued"))
    assert outcome(tmp_path / "rescued") == expected
    (disk / "filler").unlink()
    move_back(told)
    assert newest_whole(folder) == folder / "checkpoint-6"
    go(recipe)
    assert outcome(disk / "run") == expected


@pytest.mark.slow
@pytest.mark.usefixtures("nowhere_else")
def test_without_another_disk_the_checkpoint_before_is_kept_and_named(tmp_path, disk, monkeypatch):
    expected = reference(tmp_path)
    recipe = recipe_on(tmp_path, disk)
    with monkeypatch.context() as patch:
        after_saves(patch, 1, lambda: fill(disk))
        told = expect_fault(recipe, "is full")
    assert f"Kept is {disk / 'run' / 'checkpoints' / 'checkpoint-3'}" in told
    assert newest_whole(disk / "run" / "checkpoints").name == "checkpoint-3"
    (disk / "filler").unlink()
    go(recipe)
    assert outcome(disk / "run") == expected


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 30_000, 60_000], ids=["nothing", "half of the model", "the model"])
def test_a_final_model_that_finds_no_room_does_not_look_like_one(tmp_path, disk, monkeypatch, leave, capsys):
    expected = reference(tmp_path)
    recipe = recipe_on(tmp_path, disk)
    with monkeypatch.context() as patch:
        after_saves(patch, 2, lambda: fill(disk, leave))
        told = expect_fault(recipe, "the finished run in .* could not be written: the disk of .* is full")
    assert "checkpoint-6: once the disk is well again, the same command goes on" in told
    left = {path.name for path in (disk / "run").iterdir()}
    assert not left & {"metrics.json", "predictions.parquet"}
    if leave < 60_000:
        assert left == {"recipe.yaml", "state.json", "checkpoints"}
        with pytest.raises(UserError):
            load_finished(disk / "run")
    else:  # whole, and the trained one; what is missing is the rest of the run
        assert weights_of(disk / "run") == expected[0]
        load_finished(disk / "run")
    (disk / "filler").unlink()
    capsys.readouterr()
    go(recipe)
    assert "checkpoint-6 (step 6)" in capsys.readouterr().out  # nothing is trained again
    assert outcome(disk / "run") == expected


def test_a_disk_that_is_full_before_the_run_is_told_before_it_trains(tmp_path, disk):
    fill(disk)
    told = expect_fault(recipe_on(tmp_path, disk), "is full")
    assert str(disk) in told


def test_little_room_is_told_before_training(tmp_path, disk, capsys):
    filler = fill(disk, leave=150_000)
    with pytest.raises(DiskError):
        go(recipe_on(tmp_path, disk))
    said = capsys.readouterr().err
    assert f"more than there is on the disk of {disk / 'run'}" in said and str(disk) in said
    filler.unlink()


def test_room_is_made_by_what_would_go_anyway(tmp_path):
    for step in (10, 20, 30):
        (tmp_path / "partial" / f"checkpoint-{step}").mkdir(parents=True)
        seal(tmp_path / "partial" / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    assert not spare_room(tmp_path, None, {10})
    assert not spare_room(tmp_path, 4, {10})  # a fourth may come and all stay
    assert spare_room(tmp_path, 3, {10})  # the best and the newest stay
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-30"]
    assert not spare_room(tmp_path, 2, {10})


def test_a_limit_of_file_sizes_is_told(tmp_path, disk, monkeypatch):
    """As by `ulimit -f` or a file system for small files; what is kept is on the same terms."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    after_saves(monkeypatch, 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1])))
    try:
        told = expect_fault(recipe_on(tmp_path, disk), "takes no file of that size")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "checkpoint-3" in told


# --- a disk that is read-only, broken or gone ------------------------------------------------------------------------


def test_a_read_only_output_is_told_before_anything_is_loaded(tmp_path):
    with small_disk(tmp_path / "disk", "1m", "ro") as place:
        told = expect_fault(recipe_on(tmp_path, place), "output_dir=.* cannot be written: the disk of .* is read-only")
    assert "mounted at" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("happens", "words"),
    [("make_read_only", "is read-only"), ("break_down", "does not answer"), ("take_away", "has gone")],
)
def test_a_drive_that_fails_in_the_middle(tmp_path, drive, monkeypatch, happens, words):
    expected = reference(tmp_path)
    recipe = recipe_on(tmp_path, drive.place)
    with monkeypatch.context() as patch:
        after_saves(patch, 1, getattr(drive, happens))
        told = expect_fault(recipe, words)
    assert str(drive.place) in told and "The state of training is safe in" in told
    if happens == "take_away":
        assert not list(drive.place.iterdir())  # nothing was written where the drive will hide it again
    drive.repair()
    move_back(told)
    go(recipe)
    assert outcome(drive.place / "run") == expected


@pytest.mark.slow
@pytest.mark.parametrize("happens", ["make_read_only", "break_down", "take_away"])
def test_a_drive_that_fails_before_the_final_save(tmp_path, drive, monkeypatch, happens):
    recipe = recipe_on(tmp_path, drive.place)
    with monkeypatch.context() as patch:
        after_saves(patch, 2, getattr(drive, happens))
        told = expect_fault(recipe, str(drive.place))
    assert "Traceback" not in told
    drive.repair()
    assert not (drive.place / "run" / "config.json").exists()
    go(recipe)
    assert (drive.place / "run" / "metrics.json").exists()


# --- in words --------------------------------------------------------------------------------------------------------


def test_faults_of_disks_are_known_by_whatever_library_tells_them(disk):
    fill(disk)
    for write in (
        lambda: (disk / "a").write_bytes(bytes(100_000)),
        lambda: torch.save(torch.zeros(100_000), disk / "b"),
        lambda: save_file({"a": torch.zeros(100_000)}, disk / "c"),
    ):
        with pytest.raises((OSError, RuntimeError, SafetensorError)) as found:
            write()
        assert disk_errno(found.value, disk) == errno.ENOSPC
        with (
            pytest.raises(DiskError, match=f"it could not be written: the disk of {disk}.*is full"),
            writing("it", disk),
        ):
            write()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EDQUOT, "your quota is used up"), (errno.ESTALE, "does not answer"), (errno.EROFS, "is read-only")],
)
def test_a_fault_that_names_its_file_names_the_disk(tmp_path, number, words):
    told = str(of_a_disk(OSError(number, "x", str(tmp_path / "file")), []))
    assert words in told and str(tmp_path / "file") in told and "mounted at" in told


def test_other_faults_are_none_of_a_disk(tmp_path):
    assert of_a_disk(FileNotFoundError(errno.ENOENT, "x", str(tmp_path)), [tmp_path]) is None
    assert of_a_disk(ValueError("x"), [tmp_path]) is None
    with pytest.raises(KeyError), writing("it", tmp_path):
        raise KeyError("x")


def test_a_fault_without_a_name_is_of_the_disk_that_has_it_now(tmp_path, disk):
    fill(disk)
    fault = OSError(errno.ENOSPC, "x")
    assert str(disk) in str(of_a_disk(fault, [tmp_path, disk, tmp_path]))


def test_a_folder_of_another_drive_under_the_same_name_is_another(tmp_path, disk):
    (disk / "run").mkdir()
    place = Place(disk / "run")
    place.check()
    (disk / "run").rename(disk / "moved")
    with pytest.raises(DiskError, match="its drive has gone, or somebody has moved it"):
        place.check()
    (disk / "run").mkdir()
    with pytest.raises(DiskError, match="its drive has gone"):
        place.check()
    Place(tmp_path / "never there").check()


def test_a_log_on_a_full_disk_loses_no_run(monkeypatch):
    with Path("/dev/full").open("w") as full, Path("/dev/full").open("w") as also:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", also)
        say("a line")
        warn("a line")
        monkeypatch.undo()
        for stream in (full, also):
            with pytest.raises(OSError, match="No space left"):
                stream.close()
            assert stream.closed


def test_a_full_disk_of_the_data_sets_cache_is_no_fault_of_the_data(tmp_path, disk, monkeypatch):
    table = tmp_path / "table.jsonl"
    table.write_text("".join(f'{{"text": "{"word " * 200}{row}", "label": "ab"}}\n' for row in range(3000)))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(disk / "datasets"))
    fill(disk, leave=200_000)
    with pytest.raises(DiskError, match=f"mounted at {disk}.*is full"):
        read_files([table])


def test_an_output_folder_that_cannot_be_opened_leaves_nothing(tmp_path):
    with small_disk(tmp_path / "disk", "1m", "nr_inodes=2") as place:
        recipe = recipe_on(tmp_path, place)
        with pytest.raises(UserError, match="is full"):
            RunFolder(recipe).open()  # room for the folder, and none for the lock
        assert not list(place.iterdir())


def test_weights_are_written_by_one_process(tmp_path, monkeypatch):
    """The Trainer asks every process to save: two that write one file at once mix their BatchNorm statistics."""
    made = trainer(tmp_path, "resnet")
    with monkeypatch.context() as patch:
        patch.setattr(type(made.args), "should_save", property(lambda self: False))
        made._save(str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    made._save(str(tmp_path / "first"))
    assert (tmp_path / "first" / "weights.safetensors").is_file()
