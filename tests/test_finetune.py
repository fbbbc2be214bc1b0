"""finetune(): continuing, refusing and remembering, on a few rows of the shipped digits."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from model_samples import save_checkpoint

from hf_finetune import finetune
from hf_finetune.data import MEMORY
from hf_finetune.errors import UserError
from hf_finetune.recipes import load_recipe

SMALL = ("data.max_train_samples=100", "data.max_eval_samples=60", "training.num_train_epochs=1")


def small(folder, *pairs):
    return load_recipe("digits", *SMALL, "evaluation.bootstrap=0", f"output_dir={folder}", *pairs)


def in_memory(targets):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (8, 8), dtype=np.uint8) for _ in targets]
    rows = Dataset.from_dict({"image": [{"bytes": png(image), "path": None} for image in images], "label": targets})
    return DatasetDict({"train": rows, "test": rows})


def png(array):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def texts(tmp_path):
    """Texts of very different lengths, in a csv, and a recipe for a tiny BERT on them."""
    save_checkpoint("bert", tmp_path / "bert")
    rows = [("good " * (1 + n % 17), "yes") if n % 3 else ("bad " * (1 + n % 13), "no") for n in range(60)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "rows.csv", index=False)

    def recipe(name, *pairs):
        return load_recipe(
            "sst2",
            f"model.checkpoint={tmp_path / 'bert'}",
            f"data.dataset={tmp_path / 'rows.csv'}",
            "data.text=text",
            "data.label=label",
            "data.train_split=train",
            "data.test_split=0.4",
            "data.validation=0.2",
            "data.max_length=null",
            "training.num_train_epochs=1",
            "training.per_device_eval_batch_size=4",
            f"output_dir={tmp_path / name}",
            *pairs,
        )

    return recipe


def test_predictions_keep_their_rows_when_training_groups_by_length(texts):
    run = finetune(texts("grouped", "training.train_sampling_strategy=group_by_length"))
    rows = pd.read_parquet(run.path / "predictions.parquet")
    assert run.metrics["test"]["accuracy"] == pytest.approx((rows["label"] == rows["prediction"]).mean())
    source = pd.read_csv(run.recipe.data.dataset)
    assert list(rows["label"]) == [source["label"][row] for row in rows["id"]]


def test_a_regression_run_can_be_continued_from(tmp_path):
    data = in_memory([float(200 + 30 * (row % 5)) for row in range(60)])
    first = finetune(small(tmp_path / "a", "evaluation.metrics=null"), data=data)
    onwards = small(tmp_path / "b", "evaluation.metrics=null", f"model.checkpoint={first.path}", "strategy=head")
    second = finetune(onwards.with_overrides("training.learning_rate=1e-9"), data=data)
    assert second.metrics["test"]["mse"] == pytest.approx(first.metrics["test"]["mse"], rel=1e-3)


def test_an_output_layer_without_bias_answers_as_it_was_scored(tmp_path):
    """GPT-2's `score` has none: what a run adds to it would be gone in the saved model."""
    save_checkpoint("gpt2", tmp_path / "gpt2")
    rows = [(" ".join(f"w{3 + (n * word) % 40}" for word in range(1, 5)), 200.0 + 10 * (n % 7)) for n in range(60)]
    table = pd.DataFrame(rows, columns=["text", "label"])
    table.to_csv(tmp_path / "rows.csv", index=False)

    def run(name, checkpoint, *pairs):
        return finetune(
            load_recipe(
                "stsb",
                f"model.checkpoint={checkpoint}",
                f"data={{dataset: {tmp_path / 'rows.csv'}, text: text, label: label, test_split: 0.3}}",
                "evaluation.metrics=[mse]",
                "training.num_train_epochs=3",
                f"output_dir={tmp_path / name}",
                *pairs,
            )
        )

    first = run("first", tmp_path / "gpt2")
    told = pd.read_parquet(first.path / "predictions.parquet")
    again = first.predict([table["text"][row] for row in told["id"]])
    assert again == pytest.approx(list(told["prediction"]), rel=1e-4)
    assert first.evaluate()["mse"] == pytest.approx(first.metrics["test"]["mse"], rel=1e-4)
    onwards = run("onwards", first.path, "training.learning_rate=1e-12", "training.warmup_steps=0")
    assert onwards.metrics["test"]["mse"] == pytest.approx(first.metrics["test"]["mse"], rel=1e-3)


def test_a_kept_head_answers_in_the_targets_unit_though_other_parts_are_new(tmp_path):
    data = in_memory([float(200 + 30 * (row % 5)) for row in range(60)])
    first = finetune(small(tmp_path / "a", "evaluation.metrics=null"), data=data)
    onwards = small(
        tmp_path / "b",
        "evaluation.metrics=null",
        f"model.checkpoint={first.path}",
        "model.reinit_blocks=1",
        "training.learning_rate=1e-12",
    )
    second = finetune(onwards, data=data)
    assert second.metrics["test"]["mse"] < 200.0**2  # an answer of 200 taken for 200 spreads is off by thousands


def test_other_data_is_never_answered_with_an_old_score(tmp_path):
    recipe = small(tmp_path / "run")
    numbers = [row % 4 for row in range(60)]
    finetune(recipe, data=in_memory(numbers))
    assert finetune(recipe, data=in_memory(numbers)).recipe.data.dataset == MEMORY
    with pytest.raises(UserError, match="other data"):
        finetune(recipe, data=in_memory(numbers[::-1]))


def test_a_run_remembers_that_its_data_was_in_memory(tmp_path):
    run = finetune(small(tmp_path / "run"), data=in_memory([row % 4 for row in range(60)]))
    card = (run.path / "README.md").read_text()
    assert "data given in memory" in card and "`package:digits`" not in card
    with pytest.raises(UserError, match="given in memory"):
        run.evaluate()


@pytest.mark.parametrize(
    ("pair", "words"),
    [("data.label=lable", "lable"), ("strategy={kind: freeze, train_blocks: 99}", "train_blocks")],  # data, then model
)
def test_a_command_that_was_wrong_leaves_nothing_and_can_be_corrected(tmp_path, pair, words):
    recipe = small(tmp_path / "runs" / "new", pair)
    with pytest.raises(UserError, match=words):
        finetune(recipe)
    assert list(tmp_path.iterdir()) == []
    assert finetune(small(tmp_path / "runs" / "new")).metrics["test"]["samples"] == 60


@pytest.mark.parametrize(("where", "left"), [("folder.RunFolder.checkpoint", 0), ("trainer.FinetuneTrainer.train", 1)])
def test_an_attempt_without_a_checkpoint_does_not_keep_the_folder(tmp_path, monkeypatch, where, left):
    """Whether it ended before it wrote down whose the folder is, or after."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"hf_finetune.training.{where}", stop)
        finetune(small(tmp_path / "run"))
    assert len(list(tmp_path.iterdir())) == left
    run = finetune(small(tmp_path / "run", "training.learning_rate=1e-4"))
    assert run.recipe.training.values()["learning_rate"] == 1e-4


@pytest.mark.parametrize("beside", [[], ["state.json", "notes.txt"]])
def test_a_recipe_of_ones_own_in_the_folder_is_never_overwritten(tmp_path, beside):
    """Nothing but what a run writes may lie there, and a run writes state.json before its first checkpoint."""
    own = small(tmp_path / "run", "training.learning_rate=1e-4").to_yaml() + "# mine\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(own)
    for name in beside:
        (tmp_path / "run" / name).write_text("{}")
    with pytest.raises(UserError, match="never overwritten"):
        finetune(small(tmp_path / "run"))
    assert (tmp_path / "run" / "recipe.yaml").read_text() == own
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(["recipe.yaml", *beside])


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A run of three epochs that was stopped after the second."""
    from hf_finetune.training.trainer import FinetuneTrainer

    recipe = small(tmp_path / "run", "training.num_train_epochs=3", "training.save_total_limit=3", "strategy=head")
    save = FinetuneTrainer._save_checkpoint

    def save_and_stop(self, *args):
        save(self, *args)
        if self.state.epoch >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FinetuneTrainer, "_save_checkpoint", save_and_stop)
        finetune(recipe)
    return recipe


def test_scores_of_training_cover_every_leg(interrupted, tmp_path):
    resumed = finetune(interrupted)
    whole = finetune(interrupted.with_overrides(f"output_dir={tmp_path / 'whole'}"))
    ours, theirs = resumed.metrics["train"], whole.metrics["train"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert ours["seconds"] > 0 and ours["steps"] == theirs["steps"]
    assert torch.equal(*(run.model.get_parameter("classifier.1.weight") for run in (resumed, whole)))


def test_the_time_in_all_covers_every_leg_too(interrupted, monkeypatch):
    from hf_finetune.training.account import Account

    begin = Account.__init__
    monkeypatch.setattr(Account, "__init__", lambda self, seconds=0.0: begin(self, seconds and seconds + 1000))
    train = finetune(interrupted).metrics["train"]
    assert train["total_seconds"] > train["seconds"] > 1000


def test_resume_from_an_earlier_checkpoint_keeps_the_later_one_aside(interrupted, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    first, second = sorted(folder.iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    finetune(interrupted, resume=str(first))
    assert [path.name for path in folder.glob("left-*")] == [f"left-1-{second.name}"]


def test_resume_takes_only_a_whole_checkpoint_of_this_run(interrupted, tmp_path):
    folder = next(iter(sorted((tmp_path / "run" / "checkpoints").iterdir())))
    elsewhere = tmp_path / folder.name
    shutil.copytree(folder, elsewhere)
    with pytest.raises(UserError, match="as model"):
        finetune(interrupted, resume=str(elsewhere))
    (folder / "optimizer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged \(optimizer.pt"):
        finetune(interrupted, resume=str(folder))


def test_a_finished_run_is_not_resumed_from_a_path(interrupted, tmp_path):
    finetune(interrupted)
    metrics = (tmp_path / "run" / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="finished run"):
        finetune(interrupted, resume=str(next((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))))
    assert (tmp_path / "run" / "metrics.json").read_bytes() == metrics


def test_frozen_weights_that_changed_under_an_interrupted_run_are_noticed(tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    from hf_finetune.model.sources import resolve_checkpoint
    from hf_finetune.training.trainer import FinetuneTrainer

    shutil.copytree(resolve_checkpoint("package:digits-resnet"), tmp_path / "base")
    recipe = small(
        tmp_path / "run", f"model.checkpoint={tmp_path / 'base'}", "strategy=head", "training.num_train_epochs=2"
    )
    save = FinetuneTrainer._save_checkpoint

    def save_and_stop(self, *args):
        save(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FinetuneTrainer, "_save_checkpoint", save_and_stop)
        finetune(recipe)
    weights = load_file(tmp_path / "base" / "model.safetensors")
    name = next(name for name in weights if "embedder" in name and name.endswith("weight"))
    weights[name] += 1
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="frozen weights"):
        finetune(recipe)


def test_a_model_that_is_no_number_is_never_finished(tmp_path):
    with pytest.raises(UserError, match=r"(training|validation) loss is"):
        finetune(
            small(
                tmp_path / "run",
                "training.learning_rate=1e30",
                "training.max_grad_norm=0",
                "training.logging_strategy=no",
            )
        )
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_steps_are_told_in_steps_and_what_is_new_is_named(tmp_path, capsys):
    finetune(small(tmp_path / "run", "training.max_steps=3", "training.eval_strategy=steps", "training.eval_steps=3"))
    told = capsys.readouterr().out
    assert "steps 3" in told and "step 3 of 3" in told and "epochs" not in told
    assert "initialised anew" in told or "head is kept" in told


def test_the_launchers_number_format_outlives_a_run(tmp_path, monkeypatch):
    import os

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    finetune(small(tmp_path / "run"))
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
