"""The Run object: what a finished folder gives back to code."""

import numpy as np
import pytest
from evaluation_samples import image_model, images, text_model, texts
from test_publish_save import MULTI, REGRESSION, save

from hf_finetune.errors import UserError
from hf_finetune.runs import Run


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    return Run.load(save(tmp_path_factory.mktemp("image") / "run", image_model())[0])


def test_a_run_gives_back_what_it_left(image_run):
    assert image_run.metrics["test"]["samples"] == 14
    assert image_run.recipe.task == "image-classification"
    assert image_run.model is image_run.model and not image_run.model.training
    assert "accuracy" in repr(image_run)


def test_images_in_any_form_get_one_answer(image_run, tmp_path):
    shown = images(4)
    expected = image_run.predict(shown)
    assert [set(answer) for answer in expected] == [{"label", "score"}] * 4
    shown[0].save(tmp_path / "0.png")
    array = np.asarray(shown[0])
    forms = [
        shown[0],
        str(tmp_path / "0.png"),
        tmp_path / "0.png",
        (tmp_path / "0.png").read_bytes(),
        array,
        array.transpose(2, 0, 1),
        array / 255,
        array.astype(np.int64),
        {"image": shown[0]},
        {"bytes": (tmp_path / "0.png").read_bytes(), "path": None},
    ]
    for form in forms:
        answer = image_run.predict(form)
        assert answer["label"] == expected[0]["label"] and answer["score"] == pytest.approx(
            expected[0]["score"], abs=1e-6
        )
    assert image_run.predict(image for image in shown) == expected
    assert image_run.predict([]) == []
    stack = np.stack([array, array])
    assert len(image_run.predict(stack)) == 2


def test_the_best_few_are_ranked_and_sum_to_one(image_run):
    (ranked,) = image_run.predict(images(1), top=3)
    scores = [answer["score"] for answer in ranked]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-5)
    assert len(image_run.predict(images(1)[0], top=2)) == 2


@pytest.mark.parametrize(
    "bad", [b"no image", "missing.png", 7, np.zeros((5, 5, 9)), np.full((4, 4), 300), np.full((4, 4), -0.5)]
)
def test_what_is_no_image_is_told(image_run, bad):
    with pytest.raises(UserError):
        image_run.predict([images(1)[0], bad])


def test_texts_pairs_and_dictionaries(tmp_path):
    run = Run.load(save(tmp_path / "run", text_model())[0])
    said = texts(6)
    one, other = run.predict(said[2]), run.predict(said)[2]
    assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-5)
    pair = run.predict((said[1], said[2]))
    assert pair == run.predict({"text": said[1], "text_pair": said[2]})
    assert len(run.predict([(said[1], said[2]), (said[3], said[4])])) == 2
    for bad in (["a", ("a", "b")], [3], [("a", "b", "c")]):
        with pytest.raises(UserError):
            run.predict(bad)


def test_a_model_of_pairs_refuses_single_texts(tmp_path):
    folder = save(tmp_path / "run", text_model())[0]
    recipe = Run.load(folder).recipe
    pairs = recipe.data.model_copy(update={"text": "question", "text_pair": "answer"})
    (folder / "recipe.yaml").write_text(recipe.model_copy(update={"data": pairs}).to_yaml())
    run, said = Run.load(folder), texts(3)
    assert "label" in run.predict((said[1], said[2]))
    with pytest.raises(UserError, match="question, answer"):
        run.predict(said)


def test_numbers_and_several_labels(tmp_path):
    number = Run.load(save(tmp_path / "number", text_model(("stars",), REGRESSION), REGRESSION)[0])
    assert isinstance(number.predict("good film"), float)
    several = Run.load(save(tmp_path / "several", image_model(problem=MULTI), MULTI)[0])
    for answer in several.predict(images(3)):
        assert all(label["score"] > 0.5 for label in answer)


def test_a_folder_that_is_no_finished_run_is_told(tmp_path):
    folder = save(tmp_path / "run", image_model())[0]
    (folder / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        Run.load(folder)
