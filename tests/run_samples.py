"""Runs that end early, to be gone on with."""

import pytest

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
