"""Several stages in one run: what each leaves to the next, its schedule, its resume, and what it cannot go with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from run_samples import check_same, on_one_and_on_two_processes
from safetensors.torch import load_file as load_tensors
from test_training_trainer import train_and_interrupt
from trainer_samples import trainer, weights
from transformers import TrainerCallback, TrainingArguments, get_scheduler

from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.staging import USUAL_EPOCHS, last_kind, total_epochs
from hf_finetune.training.checkpoints import newest_whole

LP_FT = {"kind": "lp_ft", "head_learning_rate": 3e-2}
GRADUAL = {"kind": "gradual", "blocks_per_stage": 2}
LISTED = {
    "kind": "stages",
    "stages": [
        {"strategy": "full", "epochs": 1, "learning_rate": 1e-2},
        {"strategy": "head", "epochs": 1.5, "learning_rate": 1e-2},
        {"strategy": "norms", "epochs": 0.5, "learning_rate": 1e-2},
    ],
}
STEPS = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2}


class Watch(TrainerCallback):
    """Keeps the weights before each step, and the rates of the step."""

    def __init__(self):
        self.before, self.rates = [], []

    def on_step_begin(self, args, state, control, **kwargs):
        self.before.append(weights(kwargs["model"]))

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        groups = kwargs["optimizer"].param_groups
        learning = [group for group in groups if any(p.grad is not None for p in group["params"])]
        self.rates.append({group["name"]: group["lr"] for group in learning})


def watched(folder, family, strategy, **training):
    run, watch = trainer(folder, family, strategy, **{"num_train_epochs": 3, **training}), Watch()
    run.add_callback(watch)
    run.train()
    return run, watch


def differing(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("family", ["vit", "bert", "resnet"])
def test_the_second_stage_of_lp_ft_starts_from_the_first_ones_head(tmp_path, family):
    run, watch = watched(tmp_path / "lp_ft", family, LP_FT)
    start, switch, after = watch.before[0], watch.before[8], watch.before[10]
    head = set(run.applied.anatomy.head.parameters)
    assert differing(start, switch) == head  # the backbone is the checkpoint's, BatchNorm statistics too
    assert differing(switch, after) - head
    # The first stage is strategy=head for as many epochs, to the bit.
    alone = trainer(tmp_path / "head", family, "head", num_train_epochs=1, learning_rate=3e-2)
    alone.train()
    expected = weights(alone.model)
    assert all(torch.equal(switch[name], expected[name]) for name in switch)


def test_every_stage_has_its_own_schedule_and_warm_up(tmp_path):
    run, watch = watched(tmp_path, "vit", LP_FT, warmup_steps=0.25, lr_scheduler_type="cosine")
    both = {f"{part} then 0.01{end}" for part in ("head 0.03", "body 0") for end in ("", ", no decay")}
    assert [set(rates) for rates in watch.rates[7:9]] == [{name for name in both if "head" in name}, both]
    expected = []
    for rate, steps in ((3e-2, 8), (1e-2, 16)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        schedule = get_scheduler("cosine", optimizer, num_warmup_steps=steps // 4, num_training_steps=steps)
        for _ in range(steps):
            expected.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
    assert [rates["head 0.03 then 0.01"] for rates in watch.rates] == pytest.approx(expected)
    assert [rates["body 0 then 0.01"] for rates in watch.rates[8:]] == pytest.approx(expected[8:])
    logged = [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry]
    assert logged == pytest.approx(expected)


def test_the_floor_of_a_schedule_is_that_of_the_recipes_rate(tmp_path):
    """transformers reads the rate from the optimizer's defaults, where groups with rates of their own leave 1e-3."""
    floor = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-3}, "warmup_steps": 0}
    for strategy in ("head", LP_FT):
        run, _ = watched(tmp_path / str(strategy)[:5], "vit", strategy, learning_rate=1e-2, **floor)
        assert run.lr_scheduler.get_last_lr()[0] == pytest.approx(1e-3)


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_two_stages_of_full_are_one_twice_as_long(tmp_path, family):
    """With a constant rate; the switch itself changes nothing."""
    stage = {"strategy": "full", "learning_rate": 1e-2}
    two = {"kind": "stages", "stages": [stage | {"epochs": 1}, stage | {"epochs": 2}]}
    settings = {"lr_scheduler_type": "constant", "num_train_epochs": 3}
    results = []
    for name, strategy in (("plain", "full"), ("two", two)):
        run = trainer(tmp_path / name, family, strategy, **settings)
        run.train()
        results.append(weights(run.model))
    assert not differing(*results)


def test_one_stage_of_full_is_full(tmp_path):
    one = {"kind": "stages", "stages": [{"strategy": "full", "epochs": 2, "learning_rate": 1e-2}]}
    results = []
    for name, strategy in (("plain", "full"), ("one", one)):
        run = trainer(tmp_path / name, "vit", strategy)
        run.train()
        results.append(weights(run.model))
    assert not differing(*results)


def test_the_listed_stages_keep_still_what_they_freeze(tmp_path):
    """Also where the optimizer has momentum from a stage before, and the switch is in the middle of an epoch."""
    run, watch = watched(tmp_path, "resnet", LISTED, weight_decay=0.1)
    moved = [differing(watch.before[a], watch.before[b]) for a, b in ((0, 8), (8, 20))]
    moved.append(differing(watch.before[20], weights_at_the_end(run)))
    head = set(run.applied.anatomy.head.parameters)
    assert {"resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"} <= moved[0]
    assert moved[1] == head
    assert head < moved[2] <= run.applied.stages[2].multipliers.keys()


def weights_at_the_end(run):
    """Of the last step; the best checkpoint has been loaded over them since."""
    return load_tensors(newest_whole(Path(run.args.output_dir)) / "weights.safetensors")


@pytest.mark.parametrize(
    ("family", "strategy", "stops", "accumulated"),
    [
        ("vit", LP_FT, (3, 5, 9), 1),  # the first inside the head's stage, the second at the switch
        ("bert", LP_FT, (3, 7), 1),
        ("vit", GRADUAL, (3, 7, 11), 1),
        ("bert", GRADUAL, (11,), 1),
        ("resnet", LISTED, (7, 11), 1),
        ("vit", GRADUAL, (5,), 2),
    ],
    ids=["vit-lp_ft", "bert-lp_ft", "vit-gradual", "bert-gradual", "resnet-stages", "vit-gradual-accumulated"],
)
def test_resumed_in_any_stage_equals_uninterrupted_to_the_bit(tmp_path, family, strategy, stops, accumulated):
    settings = {"size": 16, "num_train_epochs": 3, "gradient_accumulation_steps": accumulated, **STEPS}
    whole = trainer(tmp_path / "whole", family, strategy, **settings)
    whole.train()
    for stop in stops:
        folder = tmp_path / f"stopped at {stop}"
        train_and_interrupt(trainer(folder, family, strategy, **settings), stop)
        second = trainer(folder, family, strategy, **settings)
        second.train(resume_from_checkpoint=str(newest_whole(folder / "checkpoints")))
        assert second.state.best_global_step == whole.state.best_global_step
        assert second.state.global_step == whole.state.global_step
        assert not differing(weights_at_the_end(whole), weights_at_the_end(second)), stop
        assert not differing(weights(whole.model), weights(second.model)), stop


def test_patience_counts_in_the_last_stage_alone_also_after_a_resume(tmp_path):
    def run():
        strategy = {"kind": "lp_ft", "head_epochs": 2.5}
        result = trainer(tmp_path, "vit", strategy, size=16, num_train_epochs=9, patience=2)
        result.compute_metrics = lambda prediction: {"accuracy": 0.5}  # never better than the first
        return result

    train_and_interrupt(run(), 4 * 3 + 1)
    resumed = run()
    resumed.train(resume_from_checkpoint=str(newest_whole(tmp_path / "checkpoints")))
    assert resumed.state.epoch == 4  # the second evaluation of the second stage, which began at 2.5


def test_the_log_says_when_a_stage_begins_and_who_learns(tmp_path, capsys):
    run = trainer(tmp_path, "vit", GRADUAL, num_train_epochs=3, **STEPS)
    train_and_interrupt(run, 11)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stage")]
    assert said == ["stage 1 of 3, steps 1 to 8: the head", "stage 2 of 3, steps 9 to 16: blocks 2-3 and the head"]
    trainer(tmp_path, "vit", GRADUAL, num_train_epochs=3, **STEPS).train(
        resume_from_checkpoint=str(newest_whole(tmp_path / "checkpoints"))
    )
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stage")]
    assert said == [
        "stage 2 of 3, steps 9 to 16, going on at step 11: blocks 2-3 and the head",
        "stage 3 of 3, steps 17 to 24: everything",
    ]


def test_a_stage_shorter_than_a_step_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Stage 1 of 4 is 0\.05 of 0\.2 epochs long"):
        trainer(tmp_path, "vit", "gradual", num_train_epochs=0.2).train()


def test_stages_are_refused_where_the_model_is_sharded(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_finetune.training.stages.launcher_shards_the_model", lambda: True)
    with pytest.raises(UserError, match="FSDP and DeepSpeed"):
        trainer(tmp_path, "vit", "lp_ft", num_train_epochs=3)


def test_several_processes_are_told_that_parameters_may_rest(tmp_path):
    assert trainer(tmp_path, "vit", "gradual").args.ddp_find_unused_parameters is True
    assert trainer(tmp_path, "vit", "full").args.ddp_find_unused_parameters is False


TWO = "strategy.stages=[{strategy: head, epochs: 1}, {strategy: {kind: full, layer_decay: 0.7}, epochs: 2}]"


@pytest.mark.parametrize(
    ("pairs", "path", "message"),
    [
        (("strategy=lp_ft", "training.num_train_epochs=1"), "strategy.head_epochs", "1 leaves nothing of the run's 1"),
        (("strategy=lp_ft", "training.max_steps=10"), "training.max_steps", "use training.num_train_epochs"),
        (("strategy=gradual", "strategy.stage_epochs=9"), "strategy.stage_epochs", "leave nothing of the run's 3"),
        (("strategy=gradual", "training.lr_scheduler_type=greedy"), "training.lr_scheduler_type", "knows no stages"),
        (("strategy=stages", TWO, "training.num_train_epochs=5"), "training.num_train_epochs", r"1 \+ 2 = 3"),
        (("strategy=stages", TWO, "training.learning_rate=1"), "training.learning_rate", "inside strategy.stages"),
        (("strategy=stages", "strategy.stages=[]"), "strategy.stages", "at least one stage"),
        (
            ("strategy=stages", "strategy.stages=[{strategy: hed, epochs: 1}]"),
            "strategy.stages.0.strategy",
            "mean head",
        ),
        (
            ("strategy=stages", "strategy.stages=[{strategy: head, epoch: 1}]"),
            "strategy.stages.0.epoch",
            "there are strategy, epochs, learning_rate|missing",
        ),
        (
            ("strategy=stages", "strategy.stages=[{strategy: {kind: head, r: 1}, epochs: 1}]"),
            "strategy.stages.0.strategy.r",
            "unknown key; there are kind, solver, sweep$",
        ),
        (("strategy=full", "strategy.zones=[0,0,0]"), "strategy.zones", "strategy=head says so"),
        (("strategy=full", "strategy.zones=[1,2]"), "strategy.zones", ""),
        (("strategy=full", "strategy.layer_decay=1.5"), "strategy.layer_decay", "1"),
    ],
)
def test_what_cannot_go_together_is_told_before_work_starts(pairs, path, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe("cifar10", "training.num_train_epochs=3", *pairs)
    faults = {fault.path: fault.message for fault in caught.value.faults}
    assert any(found.startswith(path) and re.search(message, text) for found, text in faults.items()), faults


def test_stages_are_one_line_of_a_recipe_and_come_back_from_yaml(tmp_path):
    recipe = load_recipe("cifar10", "strategy=stages", TWO, "training.num_train_epochs=null")
    assert total_epochs(recipe) == 3 and last_kind(recipe) == "full"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe
    assert TrainingArguments().num_train_epochs == USUAL_EPOCHS


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_equal_one(call, run_in):
    job = (
        "recipe=digits", "model.checkpoint=package:digits-vit", "strategy=gradual", "strategy.blocks_per_stage=2",
        "data.max_train_samples=101", "data.max_eval_samples=37", "training.num_train_epochs=2", "precision=no",
        "evaluation.bootstrap=0", "training.optim=sgd", "training.learning_rate=0.05",
    )  # fmt: skip
    one, two = check_same(on_one_and_on_two_processes(call, run_in, job, 16), "model.safetensors")
    assert one["test"]["accuracy"] == two["test"]["accuracy"]
