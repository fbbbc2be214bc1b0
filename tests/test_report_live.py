"""What is seen while a run goes on: a table on a terminal, lines in a file, and the recipe at every service."""

import io
import sys

import pytest
from report_samples import run_of
from rich.console import Console

from hf_finetune.errors import UserError
from hf_finetune.training.live_table import Evaluation, LiveTable
from hf_finetune.training.reporting import check_reporting


def test_the_table_keeps_every_evaluation_and_marks_the_best():
    out = io.StringIO()
    table = LiveTable("accuracy", 100, console=Console(file=out, force_terminal=True, width=90))
    table.open()
    for epoch in range(12):
        table.step(epoch * 8)
        table.loss(1 / (epoch + 1))
        score = f"0.{5 + min(epoch, 4)}{epoch:02}"
        table.evaluated(Evaluation(str(epoch), str(epoch * 8), "0.5", "0.4", score, epoch in (0, 3, 7)))
    table.close()
    last = out.getvalue().rsplit("epoch", 1)[1]
    assert all(f"0.{5 + min(epoch, 4)}{epoch:02}" in last for epoch in range(12))
    assert [line.split()[0] for line in last.splitlines() if "best" in line and line.split()] != []
    assert "best" in next(line for line in last.splitlines() if "0.907" in line) and last.count("best") == 1


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


def test_a_terminal_gets_the_table_and_a_file_plain_lines(tmp_path, monkeypatch, capsys):
    run_of(tmp_path, "vit", "kind", name="file")
    said = capsys.readouterr()
    assert "epoch 2 of 2" in said.out and "\x1b[" not in said.out + said.err
    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        patch.setattr(sys, "stdout", Terminal())
        patch.setenv("TERM", "xterm-256color")
        run_of(tmp_path, "vit", "kind", name="screen")
    shown = screen.getvalue()
    assert "validation loss" in shown and "best" in shown
    assert "epoch 2 of 2" not in capsys.readouterr().out


def test_a_service_that_is_not_there_is_named_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_trackio_available", lambda: False)
    with pytest.raises(UserError, match="pip install trackio"):
        check_reporting(["trackio"])
    with pytest.raises(UserError, match="no such service"):
        check_reporting(["trakio"])


def test_a_recipe_that_reports_to_nothing_known_stops_before_the_data(tmp_path):
    with pytest.raises(UserError, match="no such service"):
        run_of(tmp_path, "vit", "kind", "training.report_to=trakio")
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_scores_and_the_recipe(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_of(tmp_path, "vit", "kind", "training.report_to=tensorboard")
    events = next((run.path / "checkpoints" / "runs").rglob("events.*"))
    log = EventAccumulator(str(events.parent)).Reload()
    assert "eval/accuracy" in log.Tags()["scalars"]
    assert any("num_train_epochs: 2" in text for text in map(str, log.Tensors("recipe/text_summary")))


def test_trackio_gets_the_recipe_as_config(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    trackio = pytest.importorskip("trackio", reason="needs trackio: pip install trackio")
    run_of(tmp_path, "vit", "kind", "training.report_to=trackio", "training.project=tried")
    (found,) = trackio.Api().runs("tried")  # one: the scores after training do not open a second
    assert found.config["recipe"]["training"]["num_train_epochs"] == 2


def test_wandb_gets_the_recipe_as_config(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb: pip install wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run_of(tmp_path, "vit", "kind", "training.report_to=wandb")
    assert wandb.config["recipe"]["training"]["num_train_epochs"] == 2
    wandb.finish()
