"""Averages of weights: what they equal at their limits, when they are kept, and that a resume does not change them."""

import pytest
import torch
from model_samples import save_checkpoint
from torch import nn
from trainer_samples import Fixed, trainer, weights
from transformers import TrainerCallback

from hf_finetune.errors import UserError
from hf_finetune.recipes.load import load_recipe
from hf_finetune.training.averaging import keep_best_average, mean
from hf_finetune.training.checkpoints import newest_whole, step_of
from hf_finetune.training.ema import Ema


def recipe(**average):
    pairs = [f"average.{name}={value}" for name, value in average.items()]
    return load_recipe("digits", *pairs)


class Scores:
    """A metric that says what it is told, in order; afterwards always the last."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, prediction):
        return {"accuracy": self.values.pop(0) if len(self.values) > 1 else self.values[0]}


def ema_trainer(folder, decay, family="vit", **training):
    return trainer(folder, family, extra={"callbacks": lambda applied: [Ema(decay)]}, **training)


class TestEma:
    def test_decay_0_is_the_weights(self, tmp_path):
        for family in ("vit", "resnet"):
            run = ema_trainer(tmp_path / family, 0.0, family)
            last = {}

            class Last(TrainerCallback):
                def on_step_end(self, args, state, control, last=last, **kwargs):
                    last.update(weights(kwargs["model"]))

            run.add_callback(Last())
            run.train()
            assert set(run.ema.tensors) <= set(last)
            for name, tensor in run.ema.tensors.items():
                assert torch.equal(tensor, last[name]), name

    def test_decay_0_equals_no_average(self, tmp_path, capsys):
        plain = trainer(tmp_path / "a", "vit", num_train_epochs=3)
        plain.train()
        run = ema_trainer(tmp_path / "b", 0.0, num_train_epochs=3)
        run.train()
        keep_best_average(recipe(ema=0.0), run, run.eval_dataset)
        assert run.kept is None and "not kept" in capsys.readouterr().out
        for name, tensor in weights(plain.model).items():
            assert torch.equal(tensor, weights(run.model)[name]), name

    def test_it_is_the_moving_average_with_a_ramp(self):
        model = nn.Linear(1, 1, bias=False)
        ema, expected = Ema(0.5), None
        for step, value in enumerate((1.0, 3.0, 2.0, 7.0, 5.0, 1.0, 2.0, 8.0, 3.0, 4.0)):
            with torch.no_grad():
                model.weight.fill_(value)
            ema.update(model)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.parameters["weight"].item() == pytest.approx(expected)

    def test_statistics_of_batch_norm_are_the_latest(self, tmp_path):
        run = ema_trainer(tmp_path, 0.9, "resnet")
        run.train()
        latest = run.ema.buffers
        assert any(name.endswith("running_mean") for name in latest)
        assert not any(name in run.ema.parameters for name in latest)

    def test_frozen_parts_are_not_in_it(self, tmp_path):
        run = trainer(tmp_path, "vit", "head", extra={"callbacks": lambda applied: [Ema(0.9)]})
        run.train()
        assert set(run.ema.parameters) == {"classifier.weight", "classifier.bias"}

    def test_resumed_equals_uninterrupted_and_it_is_sealed(self, tmp_path):
        settings = {"max_steps": 9, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 3, "save_total_limit": 0}
        whole = ema_trainer(tmp_path, 0.9, **settings)
        whole.train()
        folder = tmp_path / "checkpoints"
        assert "ema.safetensors" in (folder / "checkpoint-6" / "sealed.json").read_text()
        part = ema_trainer(tmp_path, 0.9, **settings)
        part.train(resume_from_checkpoint=str(folder / "checkpoint-6"))
        assert part.ema.steps == whole.ema.steps == 9
        for name, tensor in whole.ema.tensors.items():
            assert torch.equal(tensor, part.ema.tensors[name]), name

    def test_a_checkpoint_without_it(self, tmp_path):
        with pytest.raises(UserError, match=r"written without average.ema"):
            Ema(0.9).load(tmp_path)

    @pytest.mark.parametrize(("score", "kept"), [(0.912, True), (0.905, False), (0.8, False)])
    def test_kept_only_if_better(self, tmp_path, capsys, score, kept):
        run = ema_trainer(tmp_path, 0.9, num_train_epochs=1)
        run.compute_metrics = Scores(0.905, score)
        run.train()
        before = weights(run.model)
        keep_best_average(recipe(ema=0.9), run, run.eval_dataset)
        said = f"EMA at step 8 accuracy {score:.4f} against 0.9050: {'kept' if kept else 'not kept'}"
        assert said in capsys.readouterr().out
        expected = before | (run.ema.tensors if kept else {})
        for name, tensor in weights(run.model).items():
            assert torch.equal(tensor, expected[name]), name
        assert run.kept == ("EMA at step 8" if kept else None)

    def test_the_one_beside_the_best_checkpoint_is_tried_too(self, tmp_path):
        run = ema_trainer(tmp_path, 0.9, num_train_epochs=3)
        run.compute_metrics = Scores(0.5, 0.7, 0.6, 0.1, 0.8)  # best at step 16; EMA at the end 0.1, there 0.8
        run.train()
        keep_best_average(recipe(ema=0.9), run, run.eval_dataset)
        assert run.kept == "EMA at step 16"
        there = Ema(0.9)
        there.load(tmp_path / "checkpoints" / "checkpoint-16")
        for name, tensor in there.tensors.items():
            assert torch.equal(weights(run.model)[name], tensor), name


def soup_trainer(folder, scores, keep=3, family="vit", **training):
    run = trainer(folder, family, num_train_epochs=5, extra={"keep_best": keep}, **training)
    run.compute_metrics = scores
    run.train()
    return run


def stored(run, step):
    from safetensors.torch import load_file

    return load_file(f"{run.args.output_dir}/checkpoint-{step}/weights.safetensors")


def steps_kept(run):
    from pathlib import Path

    return sorted(step_of(path) for path in Path(run.args.output_dir).glob("checkpoint-*"))


class TestSoup:
    def test_rotation_keeps_the_ingredients(self, tmp_path):
        run = soup_trainer(tmp_path, Scores(0.9, 0.2, 0.8, 0.7, 0.1), save_total_limit=1)
        assert run.best_steps(3) == [8, 24, 32]
        assert steps_kept(run) == [8, 24, 32, 40]

    def test_of_one_is_the_model(self, tmp_path, capsys):
        run = soup_trainer(tmp_path, Scores(0.9, 0.2, 0.8, 0.7, 0.1), keep=1)
        before = weights(run.model)
        for kind in ("uniform", "greedy"):
            keep_best_average(recipe(soup=kind, soup_size=1), run, run.eval_dataset)
        assert run.kept is None and "one checkpoint, which is the model" in capsys.readouterr().out
        for name, tensor in weights(run.model).items():
            assert torch.equal(tensor, before[name]), name

    def test_mean_of_one_and_of_equals_is_that(self):
        tensors = {"a": torch.randn(5), "counter": torch.tensor(3)}
        for count in (1, 2, 3):
            average = mean([tensors] * count)
            assert torch.equal(average["a"], tensors["a"]) and average["counter"] == 3

    @pytest.mark.parametrize("family", ["vit", "resnet"])
    def test_uniform_is_the_mean_of_the_best(self, tmp_path, family):
        run = soup_trainer(tmp_path, Scores(0.6, 0.2, 0.8, 0.7, 0.1, 0.85), family=family)
        keep_best_average(recipe(soup="uniform"), run, run.eval_dataset)
        assert run.kept == "uniform soup of steps 24, 32, 8"
        ingredients = [stored(run, step) for step in (24, 32, 8)]
        for name, tensor in weights(run.model).items():
            if tensor.is_floating_point():
                expected = torch.stack([each[name] for each in ingredients]).mean(0)
                torch.testing.assert_close(tensor, expected)
            else:
                assert torch.equal(tensor, ingredients[0][name])

    def test_greedy_takes_what_does_no_harm(self, tmp_path, capsys):
        # Checkpoints 0.8, 0.7, 0.6 in that order; with the second 0.75, with the third 0.82. The best is asked once.
        run = soup_trainer(tmp_path, Scores(0.6, 0.2, 0.8, 0.7, 0.1, 0.75, 0.82))
        keep_best_average(recipe(soup="greedy"), run, run.eval_dataset)
        assert run.kept == "greedy soup of steps 24, 8"
        assert "greedy soup of steps 24, 8 accuracy 0.8200 against 0.8000: kept" in capsys.readouterr().out
        for name, tensor in mean([stored(run, 24), stored(run, 8)]).items():
            assert torch.equal(weights(run.model)[name], tensor), name

    def test_greedy_may_find_nothing(self, tmp_path, capsys):
        run = soup_trainer(tmp_path, Scores(0.6, 0.2, 0.8, 0.7, 0.1, 0.1))
        before = weights(run.model)
        keep_best_average(recipe(soup="greedy"), run, run.eval_dataset)
        assert run.kept is None and "no checkpoint makes step 24 better" in capsys.readouterr().out
        assert all(torch.equal(tensor, before[name]) for name, tensor in weights(run.model).items())

    def test_lower_is_better_for_a_loss(self, tmp_path):
        run = trainer(tmp_path, "vit", num_train_epochs=3, extra={"keep_best": 2})
        run.args.metric_for_best_model, run.args.greater_is_better = "loss", False
        values = iter([0.5, 0.3, 0.4, 0.35])
        run.compute_metrics = lambda prediction: {"loss": next(values)}
        run.train()
        assert run.best_steps(2) == [16, 24]
        keep_best_average(recipe(soup="uniform", soup_size=2), run, run.eval_dataset)
        assert run.kept is None


def test_no_average_costs_nothing(tmp_path):
    run = trainer(tmp_path, "vit")
    run.predict = None
    keep_best_average(recipe(), run, Fixed("vit", 4))


def test_a_run_says_and_reports_what_it_kept(tmp_path, capsys):
    """Through the front door: EMA, a soup, weights, an optimizer, a budget and focal loss in one recipe."""
    import datasets
    import numpy as np
    from PIL import Image

    from hf_finetune import finetune

    save_checkpoint("vit", tmp_path / "pretrained")
    generator = np.random.default_rng(0)
    labels = [index % 2 for index in range(40)]
    pixels = [np.clip(generator.normal(90 + 70 * label, 30, (32, 32, 3)), 0, 255).astype("uint8") for label in labels]
    columns = {"image": [Image.fromarray(each) for each in pixels], "label": [("dark", "light")[i] for i in labels]}
    data = datasets.Dataset.from_dict(columns)
    run = finetune(
        load_recipe(
            "digits",
            f"model.checkpoint={tmp_path / 'pretrained'}", "data.dataset=none", "data.image=image", "data.label=label",
            "data.test_split=0.2", "data.train_split=train", "data.validation=0.25", "loss.kind=focal",
            "loss.class_weights={light: 2}", "loss.sampling=balanced", "training.optim=lion", "loss.l2_sp=0.01",
            "training.max_minutes=5", "training.num_train_epochs=4", "training.per_device_train_batch_size=8",
            "average.ema=0.9", "average.soup=greedy", "evaluation.bootstrap=0", f"output_dir={tmp_path / 'run'}",
        ),
        data=data,
        precision="no",
    )  # fmt: skip
    assert run.metrics["test"]["samples"] == 8
    out = capsys.readouterr().out
    assert "EMA at step" in out and "soup" in out
    assert newest_whole(tmp_path / "run" / "checkpoints") is not None
