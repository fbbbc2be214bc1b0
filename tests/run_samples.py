"""Runs that end early, to be gone on with; runs on one process and on two, to be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def on_one_and_on_two_processes(run_in, job: tuple[str, ...], batch: int) -> tuple[Path, Path]:
    """The folders of a job that writes to `run`, at the same batch of all processes together."""
    script, size = str(REPOSITORY / "hf_finetune" / "run.py"), "training.per_device_train_batch_size="
    one = run_in("python", script, *job, f"{size}{batch}")
    assert one.returncode == 0, one.stderr
    (run_in.folder / "run").rename(run_in.folder / "one")
    two = run_in("torchrun", "--standalone", "--nproc_per_node", "2", script, *job, f"{size}{batch // 2}")
    assert two.returncode == 0, two.stderr
    return run_in.folder / "one", run_in.folder / "run"


def check_same(one: Path, two: Path, *files: str) -> list[dict[str, Any]]:
    """The tensors of these files are the same up to rounding, and so is the training loss; both runs' facts of it."""
    for file in files:
        first, second = (load_file(folder / file) for folder in (one, two))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            np.testing.assert_allclose(second[name], tensor, rtol=1e-3, atol=2e-5, err_msg=name)
    facts = [json.loads((folder / "metrics.json").read_text())["train"] for folder in (one, two)]
    assert facts[1]["loss"] == pytest.approx(facts[0]["loss"], rel=1e-3)
    return facts
