"""A model of several tasks in other hands: page, Space, endpoint, graph. Each task answers as the run does."""

import base64
import json
import sys

import pytest
from model_samples import TEXT_FAMILIES
from PIL import Image
from serving_samples import Server
from tasks_samples import KIND, SIZE, recipe_for, splits

from hf_finetune import finetune
from hf_finetune.errors import UserError
from hf_finetune.publish.export import export_run
from hf_finetune.runs import Run


def run_on_files(folder, family, *pairs):
    """A run whose data a later command finds."""
    for name, split in splits(family in TEXT_FAMILIES).items():
        split.to_parquet(folder / f"{name}.parquet")
    files = f"data.dataset={{train: {folder / 'train.parquet'}, test: {folder / 'test.parquet'}}}"
    column = "data.text=text" if family in TEXT_FAMILIES else "data.image=image"
    return finetune(recipe_for(folder, family, {"kind": KIND, "size": SIZE}, files, column, *pairs), precision="no")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return run_on_files(tmp_path_factory.mktemp("images"), "vit")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("picture") / "a.png"
    splits(False)["test"][3]["image"].save(file)
    return file


def check(scores, answer):
    """Scores of the page, one list a task, against `Run.predict(..., top=2)`."""
    kinds = {one["label"]: one["score"] for one in answer["kind"]}
    assert dict(zip("ab", scores[0], strict=True)) == pytest.approx(kinds, abs=1e-5)
    assert scores[1] == pytest.approx([answer["size"]], rel=1e-4)


@pytest.mark.parametrize("family", ["vit", pytest.param("bert", marks=pytest.mark.slow)])
def test_the_page_answers_every_task_and_explains_the_one_that_is_chosen(family, images, tmp_path):
    from test_demo_parts import page_and_answers

    from hf_finetune.publish.demo_page import build

    run = images if family == "vit" else run_on_files(tmp_path, family)
    page, answers, _ = page_and_answers(run, tmp_path / "examples")
    told = [(task.name, task.problem, task.labels) for task in page.tasks]
    assert told == [("kind", "single_label_classification", ("a", "b")), ("size", "regression", ("size",))]
    assert len(page.examples) == 4 and build(page, answers) is not None
    given = page.examples[0].read_bytes() if page.image else page.examples[0]
    wanted = run.predict(given if page.image else given[0], top=2)
    one, other = (answers(given, about) for about in range(2))
    for found in (one, other):
        check(found.scores, wanted)
        assert found.said
    if page.image:
        assert one.picture.size == other.picture.size and one.picture.tobytes() != other.picture.tobytes()
    else:
        assert one.pieces[0] != other.pieces[0]


SPACE = """
import json, runpy, sys
from pathlib import Path
from PIL import Image

sys.modules["hf_finetune"] = None  # a Space has none
sys.path.insert(0, sys.argv[1])
app = runpy.run_path(sys.argv[1] + "/app.py")
settings = json.loads(Path(sys.argv[1], "settings.json").read_text())
tasks = tuple(app["Task"](one["name"], one["problem"], tuple(one["labels"])) for one in settings["tasks"])
model = app["Model"](app["Page"](title="", image=True, pair=False, tasks=tasks), settings)
found = [model(Image.open(sys.argv[2]), about) for about in range(2)]
print(json.dumps([[one.scores for one in found], [one.picture.size for one in found]]))
"""


@pytest.mark.slow
def test_a_space_of_several_tasks_brings_their_code_and_answers_as_the_run(images, picture, tmp_path, call, run_in):
    pytest.importorskip("gradio", reason='needs the extra: pip install "hf_finetune[demo]"')
    space = tmp_path / "space"
    assert call("demo", str(images.path), "--space", str(space), "--examples", "2").returncode == 0
    settings = json.loads((space / "settings.json").read_text())
    assert settings["own_code"] is True and [one["name"] for one in settings["tasks"]] == ["kind", "size"]
    told = run_in("python", "-c", SPACE, str(space), str(picture), PYTHONPATH="", HF_HOME=str(tmp_path / "home"))
    assert told.returncode == 0, told.stderr
    scores, sizes = json.loads(told.stdout.splitlines()[-1])
    for found in scores:
        check(found, images.predict(str(picture), top=2))
    assert sizes[0] == sizes[1]
    # The code of a repository is run only as it was when somebody looked at it.
    unpinned = call("demo", str(images.path), "--space", str(tmp_path / "hub"), "--repo", "you/name")
    assert unpinned.returncode == 2 and "@COMMIT" in unpinned.stderr


@pytest.mark.slow
def test_the_endpoint_answers_by_the_names_of_the_tasks(images, picture, tmp_path):
    for needed in ("fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(needed, reason='needs the extra: pip install "hf_finetune[serve]"')
    wanted = images.predict(str(picture), top=2)
    text = base64.b64encode(picture.read_bytes()).decode()
    server = Server("serve", str(images.path), "--port", "0", folder=tmp_path)
    try:
        status, answer = server.post(picture.read_bytes())
        assert status == 200 and list(answer) == ["kind", "size"]
        assert [one["label"] for one in answer["kind"]] == [one["label"] for one in wanted["kind"]]
        check([[{one["label"]: one["score"] for one in answer["kind"]}[name] for name in "ab"],
               [answer["size"][0]["score"]]], wanted)  # fmt: skip
        assert answer["size"][0]["label"] == "size"
        status, both = server.post({"inputs": [text, text]})
        assert status == 200 and len(both) == 2
        for each in both:  # two in a batch may differ from one by the last bit
            assert list(each) == list(answer)
            for name, scores in answer.items():
                assert [one["label"] for one in each[name]] == [one["label"] for one in scores]
                assert [one["score"] for one in each[name]] == pytest.approx([one["score"] for one in scores], rel=1e-5)
        status, refused = server.post({"inputs": text, "parameters": {"function_to_apply": "softmax"}})
        assert status == 400 and "each task" in refused["error"]
    finally:
        assert server.stop() == 0


@pytest.mark.slow
def test_a_graph_has_the_outputs_of_all_tasks_one_after_another(images, picture, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'hf_finetune[onnx]'")
    import numpy as np
    from onnxruntime import InferenceSession

    from hf_finetune.publish.export_inputs import prepared

    exported = export_run(images.path, "onnx", out=tmp_path)
    assert exported.comparison.good and exported.comparison.samples == 18
    tasks = json.loads((tmp_path / "labels.json").read_text())["tasks"]
    assert [(one["name"], one["labels"]) for one in tasks] == [("kind", ["a", "b"]), ("size", ["size"])]
    steps = json.loads((tmp_path / "preprocessing.json").read_text())
    pixels = prepared(Image.open(picture).convert("RGB"), steps)[None].astype(np.float32)
    [logits] = InferenceSession(tmp_path / "model.onnx").run(None, {steps["inputs"][0]: pixels})[0]
    likely = np.exp(logits[:2]) / np.exp(logits[:2]).sum()
    wanted = images.predict(str(picture), top=2)
    assert dict(zip("ab", likely, strict=True)) == pytest.approx(
        {one["label"]: one["score"] for one in wanted["kind"]}, abs=0.01
    )
    assert logits[2] == pytest.approx(wanted["size"], rel=0.01)


def test_int8_is_refused_since_no_one_score_judges_it(images, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'hf_finetune[onnx]'")
    with pytest.raises(UserError, match="--quantize int8: of several tasks"):
        export_run(images.path, "onnx", quantize="int8", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_merged_adapters_of_several_tasks_are_a_run_without_adapters(tmp_path):
    run = run_on_files(tmp_path, "bert", "strategy=lora", "strategy.merge=false")
    assert (run.path / "adapter_config.json").is_file()
    assert export_run(run.path, "merged", out=tmp_path / "out").comparison.good
    assert not list((tmp_path / "out").glob("adapter*"))
    texts = splits(True)["test"]["text"][:4]
    from hf_finetune.evaluation.predictor import Predictor
    from hf_finetune.model import load_finished

    merged = Predictor(load_finished(tmp_path / "out"), max_length=16)
    assert "peft" not in type(merged.loaded.model).__module__ and sys.modules.get("peft") is not None
    for found, wanted in zip(merged.in_words(merged.answer(texts)), Run.load(run.path).predict(texts), strict=True):
        assert found["kind"]["label"] == wanted["kind"]["label"]
        assert found["size"] == pytest.approx(wanted["size"], rel=1e-4)
