"""Views of an image at test time: which they are, that their logits are averaged, and where."""

import numpy as np
import pandas as pd
import pytest
import torch
from data_samples import private_cache  # noqa: F401
from evaluation_samples import image_model, images
from PIL import Image

from hf_finetune import finetune, load_recipe
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.evaluation.read import read
from hf_finetune.evaluation.views import views_of
from hf_finetune.model import LoadedModel, find_anatomy
from hf_finetune.recipes.schema import VIEWS

KINDS = [kind for kind in VIEWS if kind != "none"]


def symmetric(count=4, side=16):
    """Images that equal their mirror images."""
    torch.manual_seed(0)
    half = torch.randn(count, 3, side, side // 2)
    return torch.cat([half, half.flip(-1)], dim=-1)


@pytest.mark.parametrize("kind", VIEWS)
def test_views_have_the_images_shape_and_number(kind):
    found = list(views_of(torch.randn(2, 3, 16, 24), kind))
    assert len(found) == VIEWS[kind] and {tuple(view.shape) for view in found} == {(2, 3, 16, 24)}


def test_a_mirrored_view_follows_each():
    pixels = torch.randn(2, 3, 16, 16)
    one, other = views_of(pixels, "flip")
    assert torch.equal(one, pixels) and torch.equal(other, pixels.flip(-1))
    ten, five = list(views_of(pixels, "ten_crop")), list(views_of(pixels, "five_crop"))
    for place, view in enumerate(five):
        assert torch.equal(ten[2 * place], view) and torch.equal(ten[2 * place + 1], view.flip(-1))


def test_crops_are_the_corners_and_the_centre():
    # On a slope, a view's mean tells where its centre was: corners keep 14 of 16 pixels.
    ramp = torch.arange(16.0)
    pixels = torch.stack([ramp.view(1, 16).expand(16, 16), ramp.view(16, 1).expand(16, 16)]).unsqueeze(0)
    places = [tuple(view.mean(dim=(2, 3))[0].round(decimals=3).tolist()) for view in views_of(pixels, "five_crop")]
    assert places == [(6.5, 6.5), (8.5, 6.5), (6.5, 8.5), (8.5, 8.5), (7.5, 7.5)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_the_mean_of_the_views_logits(kind):
    model, _ = image_model()
    pixels = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected = sum(model(pixel_values=view).logits for view in views_of(pixels, kind)) / VIEWS[kind]
        found = read(model, {"pixel_values": pixels}, kind).logits
    torch.testing.assert_close(found, expected)


def test_of_a_symmetric_image_the_mirrored_view_changes_nothing():
    model, _ = image_model()
    with torch.no_grad():
        plain = model(pixel_values=symmetric()).logits
        assert torch.equal(read(model, {"pixel_values": symmetric()}, "flip").logits, plain)
        flat = torch.full((2, 3, 16, 16), 0.3)
        plain = model(pixel_values=flat).logits
        torch.testing.assert_close(read(model, {"pixel_values": flat}, "ten_crop").logits, plain)


def test_without_views_the_answer_is_the_models_own():
    model, _ = image_model()
    pixels = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(read(model, {"pixel_values": pixels}).logits, model(pixel_values=pixels).logits)


def test_a_predictor_averages_too():
    model, processor = image_model()
    loaded = LoadedModel(model, processor, (), None, find_anatomy(model))
    given = images(7)
    plain = Predictor(loaded, device="cpu").answer(given).logits
    mirrored = Predictor(loaded, device="cpu").answer([im.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for im in given])
    found = Predictor(loaded, tta="flip", device="cpu").answer(given, batch_size=2).logits
    np.testing.assert_allclose(found, (plain + mirrored.logits) / 2, atol=2e-2)  # mirrored before resizing, and after
    assert np.abs(found - plain).max() > 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = load_recipe(
        "digits",
        "evaluation.tta=flip",
        "training.num_train_epochs=1",
        "data.max_train_samples=200",
        "data.max_eval_samples=60",
        "evaluation.bootstrap=50",
        f"output_dir={tmp_path_factory.mktemp('runs') / 'mirrored'}",
    )
    return finetune(recipe, precision="no")


def test_a_run_scores_validation_and_test_by_the_mean_of_its_views(run):
    from hf_finetune.data import collate_images, image_samples, load_data

    task = load_data(run.recipe)
    table = pd.read_parquet(run.path / "predictions.parquet")
    stored = np.stack(table["probabilities"])
    for kind, agrees in (("flip", True), ("none", False)):
        samples = image_samples(task.test, run.processor)
        logits = predict_logits(run.model, samples, collate_images, 64, "cpu", None, kind)
        probabilities = torch.from_numpy(logits).softmax(1).numpy()
        assert np.allclose(probabilities, stored, atol=1e-5) == agrees
    samples = image_samples(task.validation, run.processor)
    logits = predict_logits(run.model, samples, collate_images, 64, "cpu", None, "flip")
    right = (logits.argmax(1) == np.array(task.validation["label"][:])).mean()
    assert run.metrics["validation"]["accuracy"] == pytest.approx(right)


def test_evaluate_and_predict_do_as_the_run_did(run):
    scores = run.evaluate()
    assert scores["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"])
    table = pd.read_parquet(run.path / "predictions.parquet")
    from hf_finetune.data import load_data

    given = [row["image"]["bytes"] for row in load_data(run.recipe).test.select(range(8))]
    answers = run.predict(given)
    for answer, (_, row) in zip(answers, table.head(8).iterrows(), strict=True):
        assert answer["score"] == pytest.approx(max(row["probabilities"]), abs=1e-5)


def test_the_card_says_what_pipelines_do_not_do(run):
    card = (run.path / "README.md").read_text()
    assert "average the logits over 2 views" in card and "evaluation.tta=none" in card
