"""Checkpoints are whole or not there."""

import json

import pytest
import torch
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.training import checkpoints


def write(folder, step, payload=b"weights"):
    staging = folder / "partial" / f"checkpoint-{step}"
    staging.mkdir(parents=True)
    (staging / "weights.bin").write_bytes(payload)
    (staging / "trainer_state.json").write_text("{}")
    checkpoints.seal(staging, folder / f"checkpoint-{step}")


def test_newest_is_by_number_not_by_name(tmp_path):
    for step in (9, 10, 2):
        write(tmp_path, step)
    assert checkpoints.newest_whole(tmp_path).name == "checkpoint-10"


@pytest.mark.parametrize("harm", ["truncate", "flip", "delete", "unseal", "garbage seal"])
def test_a_damaged_newest_is_named_and_the_one_before_is_taken(tmp_path, capsys, harm):
    write(tmp_path, 5)
    write(tmp_path, 10)
    newest = tmp_path / "checkpoint-10"
    if harm == "truncate":
        (newest / "weights.bin").write_bytes(b"weig")
    elif harm == "flip":
        (newest / "weights.bin").write_bytes(b"weightz")
    elif harm == "delete":
        (newest / "weights.bin").unlink()
    elif harm == "unseal":
        (newest / checkpoints.SEAL).unlink()
    else:
        (newest / checkpoints.SEAL).write_text("{")
    assert checkpoints.newest_whole(tmp_path).name == "checkpoint-5"
    assert "checkpoint-10" in capsys.readouterr().err


def test_an_interrupted_write_leaves_no_checkpoint(tmp_path):
    write(tmp_path, 5)
    (tmp_path / "partial" / "checkpoint-10").mkdir(parents=True)
    assert checkpoints.newest_whole(tmp_path).name == "checkpoint-5"


def test_rotation_keeps_the_best_and_the_newest(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    checkpoints.rotate(tmp_path, keep=2, needed={1})
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-4"]
    checkpoints.rotate(tmp_path, keep=None, needed=set())
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


def test_weights_hold_what_learns_and_every_buffer(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    checkpoints.save_weights(model, tmp_path)
    twin = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    twin[0].requires_grad_(False)
    model[1].running_mean += 1
    checkpoints.save_weights(model, tmp_path)
    checkpoints.load_weights(twin, tmp_path)
    assert torch.equal(twin[2].weight, model[2].weight)
    assert torch.equal(twin[1].running_mean, model[1].running_mean)
    assert not torch.equal(twin[0].weight, model[0].weight)


def test_weights_of_another_model_are_refused(tmp_path):
    checkpoints.save_weights(nn.Linear(3, 3), tmp_path)
    with pytest.raises(UserError, match="does not fit this model"):
        checkpoints.load_weights(nn.Sequential(nn.Linear(3, 3)), tmp_path)


def test_the_seal_lists_every_file(tmp_path):
    write(tmp_path, 1)
    sums = json.loads((tmp_path / "checkpoint-1" / checkpoints.SEAL).read_text())
    assert set(sums) == {"weights.bin", "trainer_state.json"}


def test_frozen_weights_that_lie_with_their_channels_last_have_the_same_checksum():
    """Of a kernel of one pixel the last stride is not 1 there, though torch calls it contiguous."""
    layer = nn.Conv2d(8, 4, 1)
    layer.requires_grad_(False)
    before = checkpoints.digest_of_frozen(layer)
    assert before and checkpoints.digest_of_frozen(layer.to(memory_format=torch.channels_last)) == before
