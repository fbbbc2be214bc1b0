"""What a strategy learns does not depend on the number of processes: one, two and four, at the same global batch."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file

pytestmark = [pytest.mark.distributed, pytest.mark.long]
SCRIPT = str(REPOSITORY / "hf_finetune" / "run.py")
# SGD: Adam divides by the size of the gradient, and turns float noise where that is 0 into steps.
JOB = (
    *("recipe=digits", "model.checkpoint=package:digits-vit", "data.max_train_samples=101", "precision=no"),
    *("data.max_eval_samples=37", "training.num_train_epochs=2", "training.optim=sgd", "training.learning_rate=0.02"),
    *("evaluation.bootstrap=0", "output_dir=run"),
)
STRATEGIES = {
    "full": ("strategy.layer_decay=0.8",),
    "head": (),
    "freeze": (),
    "lora": ("strategy.r=4",),
    "bitfit": (),
    "norms": (),
    "lp_ft": (),
    "gradual": ("training.num_train_epochs=6",),
    "scratch": (),
    "peft": ("strategy.method=ia3",),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_two_and_four_processes_learn_the_same(run_in, strategy):
    found = {}
    for processes in (1, 2, 4):
        result = run_in(
            *("torchrun", "--standalone", "--nproc_per_node", str(processes), SCRIPT, *JOB, f"strategy={strategy}"),
            *STRATEGIES[strategy],
            f"training.per_device_train_batch_size={16 // processes}",
            OMP_NUM_THREADS="1",
        )
        assert result.returncode == 0, result.stderr
        folder = (run_in.folder / "run").rename(run_in.folder / f"run{processes}")
        files = sorted(folder.glob("*.safetensors"))
        weights = {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}
        found[processes] = weights, json.loads((folder / "metrics.json").read_text())
    for processes in (2, 4):
        assert found[processes][0].keys() == found[1][0].keys()
        for name, tensor in found[1][0].items():
            torch.testing.assert_close(found[processes][0][name], tensor, rtol=1e-3, atol=2e-5, msg=name)
        assert found[processes][1]["test"]["accuracy"] == found[1][1]["test"]["accuracy"]
        assert found[processes][1]["train"]["loss"] == pytest.approx(found[1][1]["train"]["loss"], rel=1e-3)
