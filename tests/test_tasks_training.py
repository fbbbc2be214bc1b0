"""What several tasks mean in training: the sum of their losses, each over its labelled rows; how they are balanced."""

import shutil

import numpy as np
import pytest
import torch
from data_samples import private_cache  # noqa: F401
from model_samples import sweep
from safetensors.torch import load_file
from tasks_samples import KIND, SIZE, recipe_for, rows, run_of, splits

from hf_finetune import finetune
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.task_labels import ManyLabels
from hf_finetune.errors import UserError
from hf_finetune.training.balance import Balance, Equal, Uncertainty
from hf_finetune.training.losses import loss_function
from hf_finetune.training.multi_task import TaskLoss

BOTH = {"kind": KIND, "size": SIZE}
KINDS = LabelSpace("single_label_classification", ("a", "b", "c"))
LABELS = ManyLabels.of({"kind": ("kind", KINDS), "size": ("size", LabelSpace("regression", ("size",)))})


def weights_of(run):
    return load_file(run.path / "model.safetensors")


def backbone(run):
    return {name.removeprefix("model."): value for name, value in weights_of(run).items() if "classifier" not in name}


# --- the loss --------------------------------------------------------------------------------------------------------


def test_a_task_is_scored_on_its_labelled_rows_and_others_get_no_gradient():
    kind, size = LABELS.tasks
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    nan = float("nan")
    packed = torch.tensor([[0.0, 1.0], [nan, 2.0], [2.0, nan], [1.0, nan], [nan, 0.5], [0.0, nan]])
    losses = [TaskLoss(part, loss_function(part.space.problem_type))(logits, packed) for part in (kind, size)]
    labelled = torch.tensor([0, 2, 3, 5])
    assert losses[0].item() == torch.nn.functional.cross_entropy(
        logits[labelled, :3], torch.tensor([0, 2, 1, 0])
    ).item()  # fmt: skip
    assert losses[1].item() == ((logits[[0, 1, 4], 3] - torch.tensor([1.0, 2.0, 0.5])) ** 2).mean().item()
    sum(losses).backward()
    assert torch.equal(logits.grad[[1, 4], :3], torch.zeros(2, 3))
    assert torch.equal(logits.grad[[2, 3, 5], 3], torch.zeros(3))
    assert logits.grad[labelled, :3].abs().min() > 0


def test_batches_of_unlike_shares_add_up_to_the_large_batch():
    kind = LABELS.tasks[0]
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    packed = torch.tensor([[0.0, 1.0]] * 8)
    packed[1:4, 0] = float("nan")  # the first half has one label, the second four
    term = TaskLoss(kind, loss_function("single_label_classification"), share=5 / 8)
    whole = TaskLoss(kind, loss_function("single_label_classification"))(logits, packed)
    halves = (term(logits[:4], packed[:4]) + term(logits[4:], packed[4:])) / 2
    assert halves.item() == pytest.approx(whole.item(), rel=1e-6)
    assert term(logits, packed).item() == pytest.approx(whole.item(), rel=1e-6)


def test_a_batch_without_a_label_of_the_task_counts_nothing():
    logits = torch.randn(2, 4, requires_grad=True)
    term = TaskLoss(LABELS.tasks[0], loss_function("single_label_classification"), share=0.1)
    value = term(logits, torch.tensor([[float("nan"), 1.0]] * 2))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 4))


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sweep(["vit", "resnet", "timm_efficientnet"]))
def test_a_single_task_is_the_ordinary_run(tmp_path, family):
    ordinary = run_of(tmp_path, family, None, name="ordinary")
    single = run_of(tmp_path, family, {"kind": KIND}, "evaluation.best=kind_accuracy", name="single")
    renamed = {
        name.removeprefix("model.").replace(".heads.task_kind.stack.0", ""): value
        for name, value in weights_of(single).items()
    }
    expected = weights_of(ordinary)
    if family.startswith("timm"):
        renamed = {name.removeprefix("timm_model."): value for name, value in renamed.items()}
    assert renamed.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(renamed[name], value, rtol=1e-5, atol=1e-6)
    assert single.metrics["test"]["kind_log_loss"] == pytest.approx(ordinary.metrics["test"]["log_loss"], rel=1e-5)
    assert single.metrics["validation"]["loss"] == pytest.approx(ordinary.metrics["validation"]["loss"], rel=1e-5)


def test_a_task_of_weight_0_is_scored_and_moves_nothing_but_its_own_head(tmp_path):
    alone = run_of(tmp_path, "vit", {"kind": KIND}, "evaluation.best=loss", name="alone")
    watched = {"kind": KIND, "size": {**SIZE, "weight": 0}}
    beside = run_of(tmp_path, "vit", watched, "evaluation.best=loss", name="beside")
    assert "size_mae" in beside.metrics["test"]
    one, other = backbone(alone), backbone(beside)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


def test_a_weight_is_a_factor_of_the_gradient(tmp_path):
    """By SGD a task of weight 2 with rate r moves the model as weight 1 with rate 2 r."""
    sgd = ("training.optim=sgd", "training.optim_args=momentum=0", "training.weight_decay=0")
    one = run_of(
        tmp_path, "vit", {"kind": {**KIND, "weight": 2}}, *sgd, "training.learning_rate=0.01", name="one"
    )  # fmt: skip
    other = run_of(tmp_path, "vit", {"kind": KIND}, *sgd, "training.learning_rate=0.02", name="other")
    for name, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(other)[name], value, rtol=1e-5, atol=1e-6)


def test_accumulated_batches_are_one_large_batch_though_labels_are_missing(tmp_path):
    sgd = ("training.optim=sgd", "training.max_steps=2", "training.dataloader_drop_last=true")
    large = run_of(
        tmp_path, "vit", BOTH, *sgd, "training.per_device_train_batch_size=10", name="large", missing=True
    )  # fmt: skip
    small = run_of(
        tmp_path, "vit", BOTH, *sgd, "training.per_device_train_batch_size=5",
        "training.gradient_accumulation_steps=2", name="small", missing=True,
    )  # fmt: skip
    for name, value in weights_of(large).items():
        torch.testing.assert_close(weights_of(small)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("balance", ["uncertainty", "equal"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path, balance):
    options = (f"loss.balance={balance}", "training.save_total_limit=5")
    data = splits(False, missing=True)
    whole = run_of(tmp_path, "vit", BOTH, *options, name="whole", data=data)
    recipe = recipe_for(tmp_path, "vit", BOTH, *options, name="parts")
    run = finetune(recipe, data=data, precision="no")
    for name in ("metrics.json", "model.safetensors", "predictions.parquet"):
        (run.path / name).unlink()
    steps = sorted(int(path.name.rpartition("-")[2]) for path in (run.path / "checkpoints").glob("checkpoint-*"))
    shutil.rmtree(run.path / "checkpoints" / f"checkpoint-{steps[-1]}")
    again = finetune(recipe, data=data, precision="no")
    for name, value in weights_of(whole).items():
        assert torch.equal(weights_of(again)[name], value), name
    assert again.metrics["train"]["task_weights"] == whole.metrics["train"]["task_weights"]
    assert set(again.metrics["train"]["task_weights"].values()) != {1.0}


def test_several_data_sets_train_one_model(tmp_path):
    other = rows(True, size=24, seed=3).remove_columns("size")
    other.to_csv(tmp_path / "other.csv", index=False)
    own = (
        "tasks.kind.label=kind",
        f"tasks.kind.data={{dataset: {tmp_path / 'other.csv'}, weight: 3}}",
        "data.weight=1",
    )
    data = splits(True)
    data = type(data)({name: split.remove_columns("kind") for name, split in data.items()})
    run = run_of(tmp_path, "bert", {"size": SIZE}, *own, data=data)
    scores = run.metrics["test"]
    assert scores["kind_samples"] + scores["size_samples"] == scores["samples"]
    assert {"kind_accuracy_ci95", "size_mae_ci95"} <= set(scores)


def test_what_the_data_alone_can_tell_is_refused_in_words(tmp_path):
    with pytest.raises(UserError, match=r"evaluation\.best=kind_mae is not measured here: choose from mean_score"):
        run_of(tmp_path, "bert", BOTH, "evaluation.best=kind_mae")
    with pytest.raises(UserError, match=r"tasks\.size\.loss=focal: the data is regression"):
        run_of(tmp_path, "bert", {"kind": KIND, "size": {**SIZE, "loss": "focal"}})
    with pytest.raises(UserError, match=r"model\.head\.kind=cosine"):
        run_of(tmp_path, "bert", BOTH, "model.head=cosine")
    with pytest.raises(UserError, match=r"tasks\.kind\.metrics: there is no metric 'r2'"):
        run_of(tmp_path, "bert", {"kind": {**KIND, "metrics": ["r2"]}, "size": SIZE})


# --- balance ---------------------------------------------------------------------------------------------------------


def test_fixed_is_the_weighted_sum():
    assert Balance(["a", "b"], [1.0, 0.5])(torch.tensor([2.0, 4.0])).item() == 4.0


def test_uncertainty_learns_the_variance_that_the_paper_derives():
    balance = Uncertainty(["class", "number"], [1.0, 1.0], [1.0, 2.0])
    losses = torch.tensor([0.1, 3.0])
    assert balance(losses).item() == pytest.approx(0.1 + 1.5)  # sigma is 1 at the start
    optimizer = torch.optim.Adam([balance.log_variances], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        balance(losses).backward()
        optimizer.step()
    assert balance.log_variances.detach().exp().tolist() == pytest.approx([0.2, 3.0], rel=1e-2)
    assert balance.now() == pytest.approx({"class": 5.0, "number": 1 / 6}, rel=1e-2)


def test_equal_lets_every_task_pull_as_hard_whatever_its_size():
    parameters = torch.ones(2, requires_grad=True)
    balance = Equal(["small", "large"], [1.0, 1.0], [1.0, 1.0])

    class Args:
        world_size = 1

    for _ in range(400):
        parameters.grad = None
        balance(parameters**2 * torch.tensor([0.01, 100.0])).backward()
        balance.on_pre_optimizer_step(Args(), None, None)
    assert parameters.grad.tolist() == pytest.approx([2.0, 2.0], rel=0.05)


def test_what_is_learned_beside_the_model_has_its_rate_in_every_stage():
    balance = Uncertainty(["a"], [1.0], [1.0])
    groups = [{"lr": 1e-4, "rates": (0.0, 1e-4)}, {"lr": 5e-4, "rates": (5e-4, 1e-4)}]
    *_, own = balance.parameter_groups(groups, torch.device("cpu"))
    assert own["rates"] == pytest.approx((5e-3, 1e-3))
    assert own["lr"] == pytest.approx(5e-3)
    assert np.isclose(Uncertainty(["a"], [1.0], [1.0]).parameter_groups(
        [{"lr": 0.1, "rates": (0.1,)}], torch.device("cpu")
    )[-1]["lr"], 0.01)  # fmt: skip
