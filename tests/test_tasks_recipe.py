"""The `tasks:` section: its keys from file and command line, and what is refused beside it, in words."""

import pytest

from hf_finetune import load_recipe
from hf_finetune.errors import RecipeError, UserError

ONE = ("data.label=null", "evaluation.metrics=null")
TWO = (*ONE, "tasks.fine.label=fine_label", "tasks.coarse.label=coarse_label")
LBFGS = ("strategy=head", "strategy.solver=lbfgs")
OWN = "tasks.coarse.data={dataset: owner/other}"


def faults(*pairs):
    with pytest.raises(RecipeError) as caught:
        load_recipe("cifar10", *pairs)
    return str(caught.value)


def test_tasks_are_typed_and_written_again(tmp_path):
    recipe = load_recipe("cifar10", *TWO, "tasks.fine.weight=0.5", "tasks.fine.metrics=accuracy", "loss.balance=equal")
    assert list(recipe.tasks) == ["fine", "coarse"]
    assert (recipe.tasks["fine"].weight, recipe.tasks["fine"].metrics) == (0.5, ("accuracy",))
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "again.yaml")) == recipe


def test_a_mistyped_key_of_a_task_is_told_with_those_that_there_are():
    assert "tasks.fine.wieght (override): unknown key; there are label, type, weight" in faults(
        *TWO, "tasks.fine.wieght=2"
    )
    assert "tasks.fine.data.sed (override): unknown key; there are dataset" in faults(
        *TWO, "tasks.fine.data={dataset: x, sed: 1}"
    )
    assert "tasks.other.label" in faults(*TWO, "tasks.other.weight=2")
    assert "'-1' must be at least 0" in faults(*TWO, "tasks.fine.weight=-1")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["data.label=label"], "data.label (override): each task names its own"),
        (["data.problem_type=regression"], "data.problem_type (override): each task has its own"),
        (["evaluation.metrics=accuracy"], "evaluation.metrics (override): each task has its own"),
        (["evaluation.best=accuracy"], "'accuracy' is not measured with several tasks: use mean_score, loss, or fine_"),
        (["data.mixup=0.2"], "data.mixup (override): mixes one label a row"),
        (["data.cutmix=1"], "data.cutmix (override): mixes one label a row"),
        (["distill.teacher=runs/other"], "distill.teacher (override): teaches one task"),
        (["strategy=features"], "strategy (override): features is fitted by scikit-learn to one label"),
        (["loss.class_weights=balanced"], "weighs the classes of one task"),
        (["loss.sampling=balanced"], "looks at the classes of one task"),
        (["loss.logit_adjustment=1"], "shifts the logits of one task"),
        (["loss.r_drop=1"], "compares the answers of one task"),
        (["loss.kind=focal"], "say tasks.NAME.loss=focal"),
        (["data.clean={max_per_class: 10}"], "counts the rows of one class"),
        (["tasks.fine.type=regression", "tasks.fine.loss=focal"], "focal is not a loss of regression: use auto, mse"),
        (["tasks.fine.type=regression", "tasks.fine.metrics=accuracy"], "'accuracy' is not a metric here"),
        (["tasks.fine.metrics=acuracy"], "did you mean accuracy?"),
        (["tasks.fine.type=regression", "model.head=cosine"], "cosine is bounded, and the targets of the task fine"),
        (["tasks.fine.weight=0", "tasks.coarse.weight=0"], "every weight is 0"),
        (["tasks.fine.label=img"], "'img' is the image column"),
        (["tasks={a-b: {label: x}, c: {label: y}}"], "'a-b' names columns and metrics"),
        ([OWN, "data.weight=2"], "tasks.coarse.data.weight (override): is left out where other data sets have one"),
        ([OWN, "data.clean={duplicates: true}"], "cleans one data set, and the tasks bring several"),
        ([OWN, "tasks.coarse.data.text=x"], "is not what a task of image-classification reads"),
        ([OWN, "tasks.fine.data={dataset: owner/x}"], "no task takes its labels from data.dataset"),
        (["data.weight=2"], "is for data sets that are mixed"),
        (
            [OWN, "tasks.coarse.data.weight=2", "data.weight=1", *LBFGS],
            "lbfgs takes every row once, and data sets are mixed by weight",
        ),
        (["loss.balance=equal", *LBFGS], "equal changes by the step, and lbfgs seeks one minimum: use fixed"),
        (
            ["loss.balance=uncertainty", "strategy=head", "strategy.sweep.weight_decay=[0,0.1]"],
            "uncertainty is kept for one model, and strategy.sweep trains several: use fixed",
        ),
        (
            [
                "tasks.fine.type=regression",
                "tasks.coarse.type=regression",
                "training.label_smoothing_factor=0.1",
            ],
            "is for classes, and no task has such labels",
        ),
    ],
)
def test_what_is_about_one_label_is_refused(pairs, message):
    assert message in faults(*TWO, *pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        ["strategy=lora"],
        ["average.ema=0.9", "loss.l2_sp=0.1"],
        ["training.label_smoothing_factor=0.1", "evaluation.tta=flip"],
        ["evaluation.best=coarse_accuracy"],
        ["evaluation.best=loss", "tasks.fine.loss=focal", "loss.gamma=1"],
        ["tasks.coarse.data={dataset: owner/other, weight: 2}", "data.weight=1"],
    ],
)
def test_what_holds_for_all_tasks_is_taken(pairs):
    assert load_recipe("cifar10", *TWO, *pairs).tasks


def test_what_is_for_several_tasks_alone_is_refused_without_them():
    assert "name them in tasks" in faults("loss.balance=uncertainty")
    assert "no task brings one" in faults("data.weight=2")


def test_the_doctor_looks_at_one_column_and_says_how():
    from hf_finetune.advice.doctor_material import gather

    with pytest.raises(UserError, match=r"add tasks=\{\} data\.label=fine_label to look at fine"):
        gather(load_recipe("cifar10", *TWO))
    alone = ("tasks={}", "data.label=fine_label", "evaluation.best=null", "loss.balance=fixed")
    assert load_recipe("two_labels", *alone).tasks == {}
