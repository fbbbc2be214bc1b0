"""Optimizers by plain name: torch's own steps, real arguments, rates, checkpoints; and the time budget."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import distributed
from trainer_samples import trainer, weights
from transformers import TrainerCallback, TrainerControl, TrainerState

from hf_finetune.errors import UserError
from hf_finetune.recipes.load import load_recipe, resolve
from hf_finetune.recipes.optimizer_names import PLAIN_OPTIMIZERS, RATE_OVER_ADAMW
from hf_finetune.recipes.rates import default_learning_rate
from hf_finetune.training.checkpoints import newest_whole
from hf_finetune.training.muon import MuonWithAdamW
from hf_finetune.training.optimizers import hidden_matrices, optimizer_class, parse_options, plain_optimizer
from hf_finetune.training.time_budget import TimeBudget


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((4, 3), (4,))]


def steps(optimizer, values, count=5):
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        for value in values:
            value.grad = torch.randn(value.shape, generator=generator)
        optimizer.step()
    return [value.detach().clone() for value in values]


def named(*pairs):
    return plain_optimizer(load_recipe("digits", *pairs))


class TestTorchsOwnSteps:
    @pytest.mark.parametrize("name", [name for name in PLAIN_OPTIMIZERS if name != "muon"])
    def test_of_groups_with_their_rates(self, name):
        """Two groups, each with its own rate and decay, move as two optimizers of the class itself would."""
        ours, theirs = parameters(), parameters()
        settings = [{"lr": 0.01, "weight_decay": 0.1}, {"lr": 0.1, "weight_decay": 0.0}]
        groups = [{"params": [value], **setting} for value, setting in zip(ours, settings, strict=True)]
        moved = steps(named(f"training.optim={name}").build(groups), ours)
        own = {"momentum": 0.9} if name == "sgd" else {}
        for value, setting, result in zip(theirs, settings, moved, strict=True):
            generators = optimizer_class(name)([value], **setting, **own)
            for number in range(5):
                generator = torch.Generator().manual_seed(number)
                drawn = [torch.randn(other.shape, generator=generator) for other in theirs]
                value.grad = drawn[next(i for i, other in enumerate(theirs) if other is value)]
                generators.step()
            torch.testing.assert_close(value.detach(), result)

    def test_muon_for_matrices_adamw_for_the_rest(self):
        ours, theirs = parameters(), parameters()
        groups = [
            {"params": [ours[0]], "lr": 0.01, "weight_decay": 0.1, "use_muon": True},
            {"params": [ours[1]], "lr": 0.02, "weight_decay": 0.0, "use_muon": False},
        ]
        moved = steps(MuonWithAdamW(groups, {"adjust_lr_fn": "match_rms_adamw"}, {}), ours)
        muon = torch.optim.Muon([theirs[0]], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW([theirs[1]], lr=0.02, weight_decay=0.0)
        for number in range(5):
            generator = torch.Generator().manual_seed(number)
            for value in theirs:
                value.grad = torch.randn(value.shape, generator=generator)
            muon.step()
            adamw.step()
        for value, result in zip(theirs, moved, strict=True):
            assert torch.equal(value.detach(), result)

    def test_muon_goes_on_from_its_state(self):
        def made(values):
            groups = [{"params": [v], "lr": 0.01, "weight_decay": 0.0, "use_muon": v.ndim == 2} for v in values]
            return MuonWithAdamW(groups, {}, {})

        whole, parts = parameters(), parameters()
        steps(optimizer := made(whole), whole, 3)
        first = made(parts)
        steps(first, parts, 3)
        second = made(parts)
        second.load_state_dict(first.state_dict())
        for one, other in zip(steps(optimizer, whole, 3), steps(second, parts, 3), strict=True):
            assert torch.equal(one, other)

    def test_muon_leaves_embeddings_and_head_to_adamw(self, tmp_path):
        run = trainer(tmp_path, "bert", optim="muon")
        names = {id(parameter): name for name, parameter in run.model.named_parameters()}
        chosen = {names[id(parameter)] for parameter in hidden_matrices(run.applied)}
        assert "bert.encoder.layer.0.attention.self.query.weight" in chosen
        assert not [name for name in chosen if "embeddings" in name or "classifier" in name or name.endswith("bias")]
        groups = run.create_optimizer().param_groups
        assert {names[id(p)] for group in groups if group["use_muon"] for p in group["params"]} == chosen
        assert sum(len(group["params"]) for group in groups) == len(list(run.model.parameters()))


class TestResume:
    @pytest.mark.parametrize("name", ["sgd", "lion", "muon", "adadelta"])
    def test_resumed_equals_uninterrupted(self, tmp_path, name):
        settings = {"optim": name, "max_steps": 6, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 3}
        settings |= {"learning_rate": 1e-3, "save_total_limit": 0}
        whole = trainer(tmp_path, "vit", **settings)
        before = weights(whole.model)
        whole.train()
        last = torch.load(tmp_path / "checkpoints" / "checkpoint-6" / "optimizer.pt", weights_only=True)
        part = trainer(tmp_path, "vit", **settings)
        part.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-3"))
        again = torch.load(tmp_path / "checkpoints" / "checkpoint-6" / "optimizer.pt", weights_only=True)
        assert any(not torch.equal(tensor, before[key]) for key, tensor in weights(whole.model).items())
        for key, state in last["state"].items():
            for entry, value in state.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(again["state"][key][entry])), (key, entry)
        for key, tensor in weights(whole.model).items():
            assert torch.equal(tensor, weights(part.model)[key]), key


class TestArguments:
    def test_they_reach_the_optimizer(self):
        options = named("training.optim=sgd", "training.optim_args=momentum=0.8, nesterov=true").options
        assert options == {"momentum": 0.8, "nesterov": True}
        assert named("training.optim=sgd").options == {"momentum": 0.9}
        assert parse_options("lion", "betas=(0.95, 0.98),caution=true") == {"betas": (0.95, 0.98), "caution": True}
        assert named("training.optim=adamax", "training.adam_beta1=0.8").options == {"betas": (0.8, 0.999)}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("momentun=0.9", r"'momentun=0.9' is not an argument of sgd: give name=value with momentum, dampening"),
            ("nesterov", "is not an argument of sgd"),
            ("lr=1", r"lr is said by training.learning_rate"),
            ("weight_decay=1", r"said by training.weight_decay"),
            ("momentum=a b", "neither a number"),
        ],
    )
    def test_faults_are_told(self, text, message):
        with pytest.raises(UserError, match=message):
            parse_options("sgd", text)

    def test_a_value_the_optimizer_refuses(self):
        with pytest.raises(UserError, match=r"optim_args: sgd refuses them: Nesterov"):
            named("training.optim=sgd", "training.optim_args=momentum=0,nesterov=true").build(
                [{"params": parameters(), "lr": 0.1, "weight_decay": 0.0}]
            )

    def test_names_of_transformers_stay_its_own(self):
        recipe = load_recipe("digits", "training.optim=adamw_torch", "training.optim_args=a=1")
        assert plain_optimizer(recipe) is None
        assert recipe.training.arguments()["optim_args"] == "a=1"
        assert "optim" not in load_recipe("digits", "training.optim=lion").training.arguments()


class TestRates:
    def test_the_default_follows_the_optimizer(self):
        base = default_learning_rate(load_recipe("digits", "training.learning_rate=null"))
        for name, factor in RATE_OVER_ADAMW.items():
            recipe = load_recipe("digits", "training.learning_rate=null", f"training.optim={name}")
            assert default_learning_rate(recipe) == base * factor

    def test_a_rate_tuned_for_another_optimizer_does_not_stay(self):
        resolved = resolve("digits", ("training.optim=sgd",), origin="override")
        assert resolved.recipe.training.values().get("learning_rate") is None
        assert "was for optimizer adamw" in resolved.notes[0]
        kept = resolve("digits", ("training.optim=sgd", "training.learning_rate=0.1"), origin="override")
        assert kept.recipe.training.values()["learning_rate"] == 0.1 and not kept.notes
        same = resolve("digits", ("training.optim=adam",), origin="override")
        assert same.recipe.training.values()["learning_rate"]


class Slow(TrainerCallback):
    """Makes the clock of the time budget run."""

    def __init__(self, budget, minutes):
        self.budget, self.minutes = budget, minutes

    def on_step_begin(self, args, state, control, **kwargs):
        self.budget.started -= 60.0 * self.minutes


class TestMaxMinutes:
    def run(self, folder, minutes, each, **training):
        budget = TimeBudget(minutes)
        run = trainer(folder, "vit", extra={"callbacks": lambda applied: [Slow(budget, each), budget]}, **training)
        return run, budget

    def test_it_stops_validates_and_keeps_the_best(self, tmp_path):
        run, _ = self.run(tmp_path, 3.0, 1.0, num_train_epochs=50)
        run.train()
        assert run.state.global_step == 3 and run.state.best_global_step == 3
        assert [entry["step"] for entry in run.state.log_history if "eval_accuracy" in entry] == [3]
        assert newest_whole(tmp_path / "checkpoints").name == "checkpoint-3"

    def test_between_evaluations_of_steps_too(self, tmp_path):
        run, _ = self.run(tmp_path, 3.0, 1.0, max_steps=50, eval_strategy="steps", eval_steps=2, save_steps=2)
        run.train()
        assert [entry["step"] for entry in run.state.log_history if "eval_accuracy" in entry] == [2, 3]
        assert newest_whole(tmp_path / "checkpoints").name == "checkpoint-3"

    def test_enough_time_changes_nothing(self, tmp_path):
        run, budget = self.run(tmp_path, 100.0, 0.0)
        run.train()
        assert run.state.global_step == 16 and 0 < budget.used < 60

    def test_time_before_an_interruption_counts(self, tmp_path):
        training = {"num_train_epochs": 50, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
        first, _ = self.run(tmp_path, 5.0, 1.0, **training, save_total_limit=0)
        first.train()
        assert first.state.global_step == 5
        second = trainer(tmp_path, "vit", extra={"callbacks": lambda applied: [TimeBudget(5.0)]}, **training)
        second.add_callback(Watch())
        second.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-4"))
        (budget,) = [each for each in second.callback_handler.callbacks if isinstance(each, TimeBudget)]
        assert 4 * 60 <= budget.used_before < 4 * 60 + 30

    def test_several_processes_ask_rank_0_every_tenth_step(self):
        budget = TimeBudget(0.0)
        args = SimpleNamespace(world_size=2, device="cpu", eval_strategy="epoch", save_strategy="epoch")
        distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
        try:
            for step in range(1, 11):
                control = TrainerControl()
                budget.on_step_end(args, TrainerState(global_step=step), control)
                assert control.should_training_stop == (step == 10)
        finally:
            distributed.destroy_process_group()

    def test_the_clock_is_monotonic(self):
        budget = TimeBudget(1.0)
        assert budget.used == 0.0
        budget.started = time.monotonic() - 30
        assert 30 <= budget.used < 35 and 30 <= budget.state()["attributes"]["used_before"] < 35


class Watch(TrainerCallback):
    """Ends training after a step."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = True


def test_max_minutes_is_no_argument_of_transformers():
    recipe = load_recipe("digits", "training.max_minutes=1.5")
    assert recipe.training.values()["max_minutes"] == 1.5
    assert "max_minutes" not in recipe.training.arguments()
    assert "max_minutes: 1.5" in recipe.to_yaml()
