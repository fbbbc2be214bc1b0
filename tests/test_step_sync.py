"""Between two log lines nothing of a step waits for the device: no number is read from a tensor."""

import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_samples import trainer

from hf_finetune.training.coral import CoralHead
from hf_finetune.training.ema import Ema
from hf_finetune.training.l2_sp import StartingPoint
from hf_finetune.training.objective import Objective
from hf_finetune.training.targets import output_module
from hf_finetune.training.time_budget import TimeBudget
from hf_finetune.training.trainer import FinetuneTrainer

# `.item()`, `bool(tensor)`, `tensor.tolist()`; shapes that depend on values: masks, nonzero, unique.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "_unique2")


class Readings(TorchDispatchMode):
    """Counts what would make a GPU's host wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        by_mask = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        # transformers asks each batch whether anything is padded, and leaves the mask out if not.
        theirs = any("masking_utils" in frame.filename for frame in traceback.extract_stack())
        if (name in WAITING or by_mask) and not theirs:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def readings(ours, monkeypatch):
    """What steps 2 to 4 read, callbacks and the optimizer included."""
    counter = Readings()
    step, handler = FinetuneTrainer.training_step, ours.callback_handler

    def watched(self, *args, **kwargs):
        if self.state.global_step == 1 and not counting:
            counting.append(counter.__enter__())
        return step(self, *args, **kwargs)

    counting = []
    monkeypatch.setattr(FinetuneTrainer, "training_step", watched)
    end = handler.on_step_end

    def ended(args, state, control):
        control = end(args, state, control)
        if state.global_step == 4 and counting:
            counter.__exit__(None, None, None)
            counting.clear()
            counting.append(None)
            control.should_training_stop = True
        return control

    monkeypatch.setattr(handler, "on_step_end", ended)
    ours.train()
    assert counting == [None]
    return counter.found


EXTRA = {
    "plain": {},
    "ema": {"callbacks": lambda applied: [Ema(0.9)]},
    "l2_sp": {"callbacks": lambda applied: [StartingPoint(applied, 0.01)]},
    "max_minutes": {"callbacks": lambda applied: [TimeBudget(60.0)]},
    "coral": {"callbacks": lambda applied: [CoralHead(output_module(applied))]},
    "r_drop": {"objective": Objective("single_label_classification", *[torch.nn.functional.cross_entropy] * 2, 0.5)},
}


@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize("family", ["vit", "bert"])
def test_a_step_reads_no_number(tmp_path, monkeypatch, family, extra):
    ours = trainer(tmp_path, family, logging_steps=1000, extra=EXTRA[extra])
    assert readings(ours, monkeypatch) == []


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon"])
def test_nor_do_optimizers(tmp_path, monkeypatch, optimizer):
    ours = trainer(tmp_path, "vit", logging_steps=1000, optim=optimizer)
    assert readings(ours, monkeypatch) == []


def test_the_counter_counts(tmp_path, monkeypatch):
    ours = trainer(tmp_path, "vit", logging_steps=1000)
    compute = FinetuneTrainer.compute_loss

    def reading(self, *args, **kwargs):
        loss = compute(self, *args, **kwargs)
        (loss[0] if isinstance(loss, tuple) else loss).item()
        return loss

    monkeypatch.setattr(FinetuneTrainer, "compute_loss", reading)
    assert readings(ours, monkeypatch) == ["_local_scalar_dense"] * 3
