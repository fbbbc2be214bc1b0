"""Memory that does not suffice: told with the settings that help; a batch that is found by itself becomes smaller."""

from __future__ import annotations

import json
import textwrap

import pytest
import torch
from cache_samples import recipe_of
from run_samples import break_off
from transformers import ViTForImageClassification

from hf_finetune import finetune
from hf_finetune.recipes import load_recipe
from hf_finetune.training.arguments import defaults
from hf_finetune.training.out_of_memory import OutOfMemory, _for_evaluation, is_out_of_memory, out_of_memory
from hf_finetune.training.trainer import FinetuneTrainer

AUTO = "training.auto_find_batch_size=true"
SMALL = (
    *("model.checkpoint=package:digits-vit", "data.max_train_samples=100", "data.max_eval_samples=40"),
    *("training.num_train_epochs=2", "evaluation.bootstrap=0", "training.per_device_train_batch_size=24"),
    *("training.optim=sgd", "training.learning_rate=0.01"),
)


def small(folder, *pairs):
    return load_recipe("digits", *SMALL, f"output_dir={folder}", *pairs)


def all_memory():
    """More than any machine has: torch's own error."""
    return torch.empty(10**16)


@pytest.fixture
def limited(monkeypatch):
    """limited(rows, since): from that training step on no more than so many rows fit."""
    forward, train_step = ViTForImageClassification.forward, FinetuneTrainer.training_step
    now = [False]

    def set_to(rows, since=1):
        def step(self, *args, **kwargs):
            now[0] = self.state.global_step >= since
            try:
                return train_step(self, *args, **kwargs)
            finally:
                now[0] = False

        def of_few(self, pixel_values, *args, **kwargs):
            if now[0] and len(pixel_values) > rows:
                all_memory()
            return forward(self, pixel_values, *args, **kwargs)

        monkeypatch.setattr(FinetuneTrainer, "training_step", step)
        monkeypatch.setattr(ViTForImageClassification, "forward", of_few)

    return set_to


def test_a_step_that_does_not_fit_names_the_settings_that_help(tmp_path, limited):
    limited(8, since=4)
    with pytest.raises(OutOfMemory) as found:
        finetune(small(tmp_path / "run"))
    told = str(found.value)
    assert "not enough memory, in a training step: " in told and "can't allocate memory" in told
    assert f"{AUTO} " in told
    assert "training.per_device_train_batch_size=12 training.gradient_accumulation_steps=2" in told
    assert "training.gradient_checkpointing=true" in told and "strategy=lora" in told and "model.image_size" in told
    assert f"The same command goes on from {tmp_path / 'run' / 'checkpoints' / 'checkpoint-3'}" in told


@pytest.mark.slow
def test_the_run_goes_on_from_its_checkpoint_with_the_setting_that_helps(tmp_path, limited, monkeypatch):
    reference = finetune(small(tmp_path / "reference"))
    break_off(small(tmp_path / "run"), monkeypatch)
    limited(8, since=0)
    run = finetune(small(tmp_path / "run", AUTO))
    assert run.metrics["train"]["steps"] == reference.metrics["train"]["steps"]
    same(run, reference)


def same(run, reference):
    for name, tensor in run.model.state_dict().items():
        assert torch.allclose(tensor, reference.model.state_dict()[name], atol=2e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("since", [1, 4])
def test_a_found_batch_that_turns_out_too_large_becomes_smaller(tmp_path, limited, since, capsys):
    """Tried were a few steps before training; in the run there is less room: before its first checkpoint, or after."""
    reference = finetune(small(tmp_path / "reference"))
    limited(10, since)
    run = finetune(small(tmp_path / "run", AUTO))
    said = capsys.readouterr().out
    assert "24 rows at once did not fit after all; going on from the last checkpoint with fewer" in said
    assert ("Continuing from" in said) is (since == 4)
    assert json.loads((tmp_path / "run" / "state.json").read_text())["micro_batch"] <= 10
    assert run.metrics["train"]["steps"] == reference.metrics["train"]["steps"]
    same(run, reference)


def test_where_not_one_row_fits_it_ends(tmp_path, limited):
    limited(0)
    with pytest.raises(OutOfMemory, match="not enough memory"):
        finetune(small(tmp_path / "run", AUTO))


def test_evaluation_that_does_not_fit_names_its_own_settings(tmp_path, monkeypatch):
    def too_much(self, *args, **kwargs):
        all_memory()

    monkeypatch.setattr(FinetuneTrainer, "prediction_step", too_much)
    with pytest.raises(OutOfMemory, match=r"in evaluation: [\s\S]*training.per_device_eval_batch_size=128"):
        finetune(small(tmp_path / "run"))


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_what_is_not_said_is_told_as_it_is_on_this_machine(tmp_path, family):
    recipe = recipe_of(tmp_path, family, "lora", "run")
    recipe = recipe.model_copy(update={"training": type(recipe.training)()})
    rows = defaults(recipe.task)["per_device_eval_batch_size"]
    (first, effect), *_ = _for_evaluation(recipe)
    assert (first, effect) == (f"training.per_device_eval_batch_size={rows // 2}", f"now {rows} rows at once")


def test_a_text_run_is_told_to_take_shorter_texts(tmp_path):
    recipe = recipe_of(tmp_path, "bert", "lora", "run")
    told = told_of(recipe, lambda: {}[all_memory()])
    assert "data.max_length=N" not in told and "data.max_train_samples" in told  # not in a step
    assert "strategy=lora" not in told


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_every_form_of_it_is_known(tmp_path, fault):
    assert is_out_of_memory(fault)
    told = str(out_of_memory(fault, recipe_of(tmp_path, "bert", "full", "run"), "kept"))
    assert told.startswith("There is not enough memory") and told.endswith("\nkept")


def test_other_faults_are_none_of_memory():
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("out of memory"))


def told_of(recipe, step):
    try:
        step()
    except (RuntimeError, MemoryError) as fault:
        return str(out_of_memory(fault, recipe, ""))
    raise AssertionError


@pytest.mark.slow
def test_a_process_that_may_take_no_more_memory_says_so_and_ends_with_2(run_in, tmp_path):
    """A real limit (RLIMIT_AS), set when everything is loaded; each step takes a little more than there is."""
    script = textwrap.dedent(
        """
        import resource, sys, psutil, torch
        from transformers import ViTForImageClassification
        from hf_finetune.cli import main
        forward = ViTForImageClassification.forward
        def greedy(self, *args, **kwargs):
            if self.training:
                used = psutil.Process().memory_info().vms
                resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
                torch.zeros(256 << 20)
            return forward(self, *args, **kwargs)
        ViTForImageClassification.forward = greedy
        sys.exit(main(sys.argv[1:]))
        """
    )
    result = run_in(
        "python", "-c", script, "train", "recipe=digits", *SMALL, "output_dir=run", "precision=no",
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 2, result.stdout + result.stderr
    assert "There is not enough memory, in a training step" in result.stderr and AUTO in result.stderr
    assert "Traceback" not in result.stderr
