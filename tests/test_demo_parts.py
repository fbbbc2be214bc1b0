"""What the page shows is the run's own answer, for every kind of task; and the folder of a Space."""

import ast
import json
import sys

import pytest
from report_samples import run_of

pytest.importorskip("gradio", reason='needs the extra: pip install "hf_finetune[demo]"')


def page_and_answers(run, folder):
    from hf_finetune.evaluation.commands import predictor_of
    from hf_finetune.model import load_finished
    from hf_finetune.publish.demo_answers import DemoAnswers, examples_of, page_of

    predictor = predictor_of(load_finished(run.path), str(run.path))
    page = page_of(predictor, run.recipe, "a run", examples_of(predictor, run.recipe, folder, 4))
    return page, DemoAnswers(predictor, page), predictor


@pytest.mark.parametrize(("family", "label"), [("vit", "kind"), ("resnet", "tags"), ("vit", "size"), ("bert", "kind")])
def test_scores_are_the_runs_and_something_mattered(tmp_path, family, label):
    from hf_finetune.publish.demo_page import build

    run = run_of(tmp_path, family, label, save_data=True)
    page, answers, predictor = page_and_answers(run, tmp_path / "examples")
    assert len(page.examples) == 4 and build(page, answers) is not None
    given = page.examples[0] if family == "bert" else page.examples[0].read_bytes()
    found = answers(given, 0)
    wanted = predictor.answer([given]).probabilities[0]
    assert found.scores[0] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert found.said
    if family == "bert":
        assert "".join(piece for piece, _ in found.pieces[0]).startswith(given[0][:20])
        assert any(weight for _, weight in found.pieces[0])
    else:
        assert max(found.picture.size) == 448


def test_thresholds_and_sets_are_said(tmp_path):
    from hf_finetune.outputs import Rule

    run = run_of(tmp_path, "vit", "tags", save_data=True)
    page, answers, predictor = page_and_answers(run, tmp_path / "examples")
    given = page.examples[0].read_bytes()
    likely = predictor.answer([given]).probabilities[0]
    Rule(thresholds=tuple(float(p) - 0.01 * (-1) ** place for place, p in enumerate(likely))).keep(
        predictor.loaded.model.config
    )
    above = {page.tasks[0].labels[place] for place in range(0, len(likely), 2)}
    said = answers(given, 0).said
    assert set(said.split(". ")[0].removeprefix("Given, each above its own threshold: ").split(", ")) == above
    Rule(coverage=0.9, quantile=float(1 - likely.max()) + 1e-4).keep(predictor.loaded.model.config)
    best = page.tasks[0].labels[int(likely.argmax())]
    assert answers(given, 0).said.startswith(f"With 90% chance one of: {best}. ")


def imported(text):
    """The packages and modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return found


def test_a_space_says_what_the_hub_needs_and_brings_the_model(tmp_path, call):
    from huggingface_hub import SpaceCard

    run = run_of(tmp_path, "vit", "tags", save_data=True)
    space = tmp_path / "space"
    assert call("demo", str(run.path), "--space", str(space), "--examples", "2").returncode == 0
    card = SpaceCard.load(space / "README.md")
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py") and card.data.sdk_version[0] == "6"
    needs = (space / "requirements.txt").read_text().split()
    assert {need.partition(">=")[0] for need in needs} >= {"torch", "transformers", "gradio", "pillow"}
    assert all(">=" in need and ",<" in need for need in needs)
    assert (space / "model" / "model.safetensors").is_file() and len(list((space / "examples").iterdir())) == 2
    # What a Space imports lies beside it, or is what requirements.txt installs.
    installed = {need.partition(">=")[0].replace("pillow", "PIL") for need in needs}
    beside = {file.stem for file in space.glob("*.py")}
    for file in space.glob("*.py"):
        text = file.read_text()
        assert "import hf_finetune" not in text and "from hf_finetune" not in text
        assert imported(text) <= beside | installed | set(sys.stdlib_module_names), file.name
    everything = b"".join(file.read_bytes() for file in space.rglob("*") if file.is_file())
    assert str(tmp_path).encode() not in everything
    settings = json.loads((space / "settings.json").read_text())
    assert settings["model"] is None and settings["own_code"] is False
    again = call("demo", str(run.path), "--space", str(space))
    assert again.returncode == 2 and "not empty" in again.stderr
    other = call("demo", str(run.path), "--space", str(tmp_path / "hub"), "--repo", "you/name@abc", "--examples", "0")
    assert other.returncode == 0
    settings = json.loads((tmp_path / "hub" / "settings.json").read_text())
    assert (settings["model"], settings["revision"], settings["examples"]) == ("you/name", "abc", [])
    assert not (tmp_path / "hub" / "model").exists()
    wrong = call("demo", str(run.path), "--space", str(tmp_path / "no"), "--repo", "../name")
    assert wrong.returncode == 2 and "OWNER/NAME" in wrong.stderr
