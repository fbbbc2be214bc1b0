"""Runs that end early, to be gone on with; runs on one process and on two, to be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import REPOSITORY
from safetensors.numpy import load_file

from hf_finetune import finetune
from hf_finetune.training.sealed_trainer import SealedTrainer


class Interrupted(Exception):
    """What ends a run here."""


def break_off(recipe, monkeypatch, *, saves=1, **options):
    """Run a recipe until so many checkpoints are written."""
    save, steps = SealedTrainer._save_checkpoint, []

    def interrupt(self, *args):
        save(self, *args)
        steps.append(self.state.global_step)
        if len(steps) == saves:
            raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(SealedTrainer, "_save_checkpoint", interrupt)
        finetune(recipe, **options)


class Both(NamedTuple):
    """The folders of a job on one process and on two, and what the two said."""

    one: Path
    two: Path
    said: str


def on_one_and_on_two_processes(call, run_in, job: tuple[str, ...], batch: int, *alone: str) -> Both:
    """A job at the same batch of all processes together: on this one, with the pairs of `alone`, and on two."""
    script, size = str(REPOSITORY / "hf_finetune" / "run.py"), "training.per_device_train_batch_size="
    one = call("train", *job, f"{size}{batch}", "output_dir=run", *alone)
    assert one.returncode == 0, one.stderr
    (run_in.folder / "run").rename(run_in.folder / "one")
    torchrun = ("torchrun", "--standalone", "--nproc_per_node", "2", script)
    two = run_in(*torchrun, *job, f"{size}{batch // 2}", "output_dir=run")
    assert two.returncode == 0, two.stderr
    return Both(run_in.folder / "one", run_in.folder / "run", two.stdout)


def check_same(both: Both, *files: str) -> list[dict[str, Any]]:
    """The tensors of these files are the same up to rounding, and so are the losses; the metrics of both."""
    for file in files:
        first, second = (load_file(folder / file) for folder in both[:2])
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            np.testing.assert_allclose(second[name], tensor, rtol=1e-3, atol=2e-5, err_msg=name)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in both[:2]]
    assert metrics[1]["train"]["loss"] == pytest.approx(metrics[0]["train"]["loss"], rel=1e-3)
    assert metrics[1]["train"]["processes"] == 2 * metrics[0]["train"]["processes"] == 2
    return metrics
