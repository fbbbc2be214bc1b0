"""Exported models are the models: ONNX under onnxruntime, torch's programs, merged adapters; the docs' scripts run."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_samples import run_of

from hf_finetune.data import LabelSpace
from hf_finetune.publish import export, export_graph
from hf_finetune.publish.export import export_run
from hf_finetune.publish.export_check import LARGEST, compare

DOCS = Path(__file__).resolve().parent.parent / "docs" / "export.md"


@pytest.fixture(autouse=True)
def _packages():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'hf_finetune[onnx]'")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def vit(home):
    (home / "image").mkdir()
    return run_of(home / "image", "vit", save_data=True)


@pytest.fixture(scope="module")
def bert(home):
    (home / "text").mkdir()
    return run_of(home / "text", "bert", save_data=True)


def script(place: int) -> str:
    """The docs' code of images (0) or texts (1)."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if "InferenceSession" in block][place]


def run_script(folder: Path, place: int, *arguments: str) -> list[list[str]]:
    code = script(place)
    imported = {name.split(".")[0] for node in ast.walk(ast.parse(code)) for name in _imports(node)}
    assert imported == {"json", "sys", "numpy", "onnxruntime", "PIL" if place == 0 else "tokenizers"}
    assert len(code.strip().splitlines()) <= 24
    done = subprocess.run([sys.executable, "-c", code, str(folder), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.rsplit(" ", 1) for line in done.stdout.splitlines()]


def _imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.slow
def test_a_vit_under_onnxruntime_is_the_run_and_the_docs_script_repeats_its_predictions(vit, tmp_path, capsys):
    exported = export_run(vit.path, "onnx", quantize="int8", out=tmp_path)
    assert exported.comparison.good and exported.comparison.samples == 30
    assert exported.comparison.agreement == 1 and exported.comparison.difference < LARGEST
    said = capsys.readouterr().out
    assert "30 real samples: agreement 100.00%, largest difference" in said
    assert re.search(r"int8 \(dynamic\): accuracy 0\.\d+ before, [01]\.\d+ after, on 30 samples", said)
    check = json.loads((tmp_path / "check.json").read_text())
    assert check["good"] and check["int8"]["way"] == "dynamic"
    assert check["int8"]["before"] == pytest.approx(vit.metrics["test"]["accuracy"], abs=1e-6)
    assert {"model.onnx", "model_int8.onnx", "labels.json", "preprocessing.json"} <= {
        p.name for p in tmp_path.iterdir()
    }
    rng = np.random.default_rng(5)
    for place in range(2):
        photo = tmp_path / f"{place}.png"
        Image.fromarray(rng.integers(0, 256, (40 + place, 57, 3), dtype=np.uint8)).save(photo)
        [[label, score]] = run_script(tmp_path, 0, str(photo))
        answer = vit.predict(str(photo))
        assert label == answer["label"] and float(score) == pytest.approx(answer["score"], abs=0.01)


@pytest.mark.slow
def test_a_bert_takes_texts_of_any_length_and_the_docs_script_repeats_its_predictions(bert, tmp_path):
    exported = export_run(bert.path, "onnx", out=tmp_path)
    assert exported.comparison.good
    texts = ["w5 w9", "w30", " ".join(f"w{3 + n % 40}" for n in range(60))]  # the last is cut, as in the run
    for (label, score), answer in zip(run_script(tmp_path, 1, *texts), bert.predict(texts), strict=True):
        assert label == answer["label"] and float(score) == pytest.approx(answer["score"], abs=1e-4)
    model = export_graph.OnnxModel(tmp_path / "model.onnx")
    assert [each.shape for each in model.session.get_inputs()] == [["batch", "length"]] * 2


@pytest.mark.slow
def test_a_program_of_torch_is_the_run_too(vit, tmp_path):
    exported = export_run(vit.path, "exported-program", out=tmp_path)
    assert exported.comparison.good and (tmp_path / "model.pt2").is_file()


@pytest.mark.slow
def test_another_models_answers_are_not_called_good(vit, tmp_path, monkeypatch, capsys):
    """A graph of a model with one weight off: files are there to look at, words and exit code say no."""
    write = export.write_onnx

    def off(model, example, file):
        import copy

        other = copy.deepcopy(model)
        other.classifier.bias.data += 0.3 * other.classifier.bias.new_tensor([1.0, -1.0, 0.5])
        write(other, example, file)

    monkeypatch.setattr(export, "write_onnx", off)
    assert export.export_command(str(vit.path), "onnx", quantize="int8", out=tmp_path) == 1
    said = capsys.readouterr()
    assert "NOT good" in said.err and "good, the same model" not in said.out and "int8" not in said.out
    assert json.loads((tmp_path / "check.json").read_text())["good"] is False


@pytest.mark.parametrize(
    ("problem", "off", "good"),
    [
        ("single_label_classification", 0.0, True),
        ("single_label_classification", 0.02, False),
        ("multi_label_classification", 0.02, False),
        ("regression", 0.0005, True),
        ("regression", 0.5, False),
    ],
)
def test_what_is_called_good(problem, off, good):
    expected = np.array([[2.0, -1.0], [0.5, 3.0]], np.float32)
    found = expected + np.array([[0, 0], [off, 0]], np.float32)
    assert compare(expected, found, LabelSpace(problem, ("a", "b"))).good is good
    assert not compare(expected, np.full_like(found, np.nan), LabelSpace(problem, ("a", "b"))).good


def test_merged_adapters_give_equal_predictions_in_a_plain_folder(home, tmp_path):
    from transformers import pipeline

    (home / "lora").mkdir()
    run = run_of(home / "lora", "bert", "kind", "strategy=lora", "strategy.merge=false", save_data=True)
    assert (run.path / "adapter_config.json").is_file()
    exported = export_run(run.path, "merged", out=tmp_path)
    assert exported.comparison.good
    assert not list(tmp_path.glob("adapter*"))
    texts = ["w5 w9", "w30 w31 w32"]
    for own, theirs in zip(
        run.predict(texts), pipeline("text-classification", model=str(tmp_path))(texts), strict=True
    ):
        assert own["label"] == theirs["label"] and own["score"] == pytest.approx(theirs["score"], abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "label", "pairs"),
    [
        ("resnet", "kind", ()),
        ("mobilenet_v2", "kind", ()),
        ("timm_efficientnet", "kind", ()),
        ("timm_vit", "tags", ()),
        ("vit", "size", ("model.head.kind=mlp",)),
        ("bert", "tags", ("model.head.kind=cosine", "model.pooling=mean")),
        ("bert", "size", ()),
        ("bert", "kind", ("strategy=lora", "strategy.merge=false")),
    ],
)
def test_families_heads_and_problems(tmp_path, family, label, pairs):
    run = run_of(tmp_path, family, label, *pairs, save_data=True)
    exported = export_run(run.path, "onnx", quantize="int8", out=tmp_path / "out")
    assert exported.comparison.good, exported.comparison
    convolutions = family in ("resnet", "mobilenet_v2", "timm_efficientnet")
    assert exported.figures["int8"]["way"] == ("static" if convolutions else "dynamic")
