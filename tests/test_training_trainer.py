"""What the Trainer gets silently wrong, and is mended: each test fails when its mend is taken out."""

import json

import pytest
import torch
from trainer_samples import Fixed, collate, trainer, weights
from transformers import Trainer, TrainerCallback

from hf_finetune.errors import UserError

# transformers multiplies loss and gradients for these; ViT and timm are the controls.
SCALED = ["vit", "resnet", "mobilenet_v2", "bert", "timm_efficientnet"]


class Gradients(TrainerCallback):
    """Keeps the gradients of the first update."""

    def __init__(self):
        self.seen = {}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if not self.seen:
            model = kwargs["model"]
            self.seen = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def first_gradients(folder, family, **training):
    watch = Gradients()
    run = trainer(
        folder,
        family,
        still=True,
        size=16,
        max_steps=1,
        max_grad_norm=0,
        train_sampling_strategy="sequential",
        **training,
    )
    run.add_callback(watch)
    run.train()
    return watch.seen


@pytest.mark.parametrize("family", SCALED)
def test_four_accumulated_batches_equal_one_four_times_as_large(tmp_path, family):
    big = first_gradients(tmp_path, family, per_device_train_batch_size=16)
    small = first_gradients(tmp_path, family, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    assert big.keys() == small.keys() and big
    for name in big:
        assert (small[name] - big[name]).norm() <= 1e-4 * big[name].norm() + 1e-7, name


@pytest.mark.parametrize("family", ["vit", "swin", "bert", "resnet", "timm_vit"])
def test_the_best_checkpoint_is_what_remains(tmp_path, family):
    """transformers restores nothing here for ViT and Swin, with a warning only."""
    run = trainer(tmp_path, family, num_train_epochs=4, learning_rate=3e-2, save_total_limit=0)
    kept = {}

    class Watch(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            kept[state.global_step] = weights(kwargs["model"])

    run.add_callback(Watch())
    # A validation score that is best in the middle.
    scores = iter([0.2, 0.9, 0.3, 0.1])
    run.compute_metrics = lambda prediction: {"accuracy": next(scores)}
    run.train()
    assert run.state.best_global_step == 16
    for name, tensor in weights(run.model).items():
        assert torch.equal(tensor, kept[16][name]), name
    assert any(not torch.equal(kept[32][name], kept[16][name]) for name in kept[16])


class Stop(BaseException):
    """An interruption that no handler of ours catches."""


def train_and_interrupt(run, step):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise Stop

    run.add_callback(Interrupt())
    with pytest.raises(Stop):
        run.train()


@pytest.mark.parametrize(
    ("family", "strategy"),
    [
        ("vit", "full"),
        ("vit", "lora"),
        ("vit", "head"),
        ("swin", "full"),
        ("resnet", "full"),
        ("bert", "full"),
        ("timm_vit", "full"),
    ],
)
@pytest.mark.parametrize(
    "save",
    [
        {"save_strategy": "epoch"},
        {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 3, "eval_steps": 3},
    ],
)
def test_resumed_equals_uninterrupted_to_the_bit(tmp_path, family, strategy, save):
    whole = trainer(tmp_path / "whole", family, strategy, num_train_epochs=3, **save)
    whole.train()
    first = trainer(tmp_path / "parts", family, strategy, num_train_epochs=3, **save)
    train_and_interrupt(first, 14)
    from hf_finetune.training.checkpoints import newest_whole

    second = trainer(tmp_path / "parts", family, strategy, num_train_epochs=3, **save)
    second.train(resume_from_checkpoint=str(newest_whole(tmp_path / "parts" / "checkpoints")))
    assert second.state.best_global_step == whole.state.best_global_step
    expected = weights(whole.model)
    for name, tensor in weights(second.model).items():
        assert torch.equal(tensor, expected[name]), name


def test_patience_survives_a_resume(tmp_path):
    def run():
        result = trainer(tmp_path, "vit", num_train_epochs=9, patience=3)
        result.compute_metrics = lambda prediction: {"accuracy": 0.5}  # never better than the first
        return result

    train_and_interrupt(run(), 8 * 2 + 1)
    from hf_finetune.training.checkpoints import newest_whole

    resumed = run()
    resumed.train(resume_from_checkpoint=str(newest_whole(tmp_path / "checkpoints")))
    assert resumed.state.epoch == 4


def test_evaluation_sees_every_sample_though_training_drops_the_last_batch(tmp_path):
    """`dataloader_drop_last` of transformers drops evaluation samples too."""
    run = trainer(tmp_path, "vit", per_device_eval_batch_size=4)
    assert run.args.dataloader_drop_last
    assert len(run.predict(Fixed("vit", 10)).predictions) == 10


def test_training_drops_the_last_short_batch(tmp_path):
    run = trainer(tmp_path, "vit", size=10, num_train_epochs=1)
    run.train()
    assert run.state.global_step == 2


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    run = trainer(tmp_path, "vit", learning_rate=1e30, max_grad_norm=0, logging_steps=1)
    with pytest.raises(UserError, match="training loss is nan"):
        run.train()


def test_norms_and_biases_have_no_weight_decay(tmp_path):
    """transformers decays the BatchNorm weights of its own ResNet."""
    run = trainer(tmp_path, "resnet", weight_decay=0.1)
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    groups = run.create_optimizer().param_groups
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed and not [name for name in decayed if "normalization" in name or name.endswith("bias")]
    rates = {group["lr"] for group in groups}
    assert rates == {1e-2, 1e-1}  # the head learns ten times as fast


def test_evaluation_is_fp32_and_training_is_not(tmp_path):
    """So that the saved model scores what the log said it scored."""
    run = trainer(tmp_path, "vit", precision="bf16")
    dtypes = {}
    run.model.vit.register_forward_hook(
        lambda module, i, out: dtypes.setdefault(module.training, set()).add(out[0].dtype)
    )
    linear = run.model.classifier
    linear.register_forward_hook(
        lambda module, i, out: dtypes.setdefault(f"head {module.training}", set()).add(out.dtype)
    )
    run.train()
    assert dtypes["head True"] == {torch.bfloat16}
    assert dtypes["head False"] == {torch.float32}


def test_memory_of_evaluation_leaves_the_device(tmp_path):
    assert trainer(tmp_path, "vit").args.eval_accumulation_steps


def test_the_saved_score_is_the_logged_one(tmp_path):
    run = trainer(tmp_path, "vit", num_train_epochs=3, precision="bf16")
    run.compute_metrics = lambda prediction: {"accuracy": float(prediction.predictions[:, 0].mean())}
    run.train()
    logged = {entry["step"]: entry["eval_accuracy"] for entry in run.state.log_history if "eval_accuracy" in entry}
    assert run.predict(run.eval_dataset).metrics["test_accuracy"] == logged[run.state.best_global_step]


def test_transforms_hear_of_the_epoch_also_after_a_resume(tmp_path):
    heard = []

    class Listening(Fixed):
        def set_epoch(self, epoch):
            heard.append(epoch)

    def run():
        result = trainer(
            tmp_path,
            "vit",
            num_train_epochs=3,
            save_strategy="steps",
            eval_strategy="steps",
            save_steps=3,
            eval_steps=3,
        )
        result.train_dataset = Listening("vit", 32)
        return result

    train_and_interrupt(run(), 14)
    assert set(heard) == {0, 1}
    heard.clear()
    from hf_finetune.training.checkpoints import newest_whole

    run().train(resume_from_checkpoint=str(newest_whole(tmp_path / "checkpoints")))
    assert heard[0] == 1 and set(heard) == {1, 2}


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    run = trainer(tmp_path, "vit", num_train_epochs=3, save_total_limit=0)
    run.train()
    from hf_finetune.training.checkpoints import newest_whole

    newest = tmp_path / "checkpoints" / "checkpoint-24"
    (newest / "optimizer.pt").unlink()
    assert newest_whole(tmp_path / "checkpoints").name == "checkpoint-16"


class TestWhatTransformersStillGetsWrong:
    """When one of these fails, a release has mended it and our mend can go."""

    def plain(self, run, family):
        """The stock Trainer with the model and arguments of ours."""
        return Trainer(
            model=run.model,
            args=run.args,
            train_dataset=Fixed(family, 16),
            eval_dataset=Fixed(family, 10),
            data_collator=collate,
        )

    def test_loss_is_multiplied_by_accumulation(self, tmp_path):
        ours = trainer(tmp_path, "bert", still=True)
        stock = self.plain(ours, "bert")
        assert stock.model_accepts_loss_kwargs and not ours.model_accepts_loss_kwargs

    def test_best_vit_is_not_restored(self, tmp_path):
        ours = trainer(tmp_path, "vit")
        stock = self.plain(ours, "vit")
        stock.save_model(str(tmp_path / "saved"))
        before = weights(ours.model)
        with torch.no_grad():
            for parameter in ours.model.parameters():
                parameter.add_(1.0)
        stock._load_from_checkpoint(str(tmp_path / "saved"))
        assert any(not torch.equal(before[name], tensor) for name, tensor in weights(ours.model).items())

    def test_evaluation_drops_samples(self, tmp_path):
        ours = trainer(tmp_path, "vit", per_device_eval_batch_size=4)
        loader = self.plain(ours, "vit").get_eval_dataloader()
        assert sum(len(item["labels"]) for item in loader) == 8

    def test_checkpoints_are_not_sealed(self, tmp_path):
        state = trainer(tmp_path, "vit")
        state.train()
        seal = json.loads(next((tmp_path / "checkpoints").glob("checkpoint-*/sealed.json")).read_text())
        assert "weights.safetensors" in seal and "optimizer.pt" in seal
