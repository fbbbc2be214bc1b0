"""strategy=features: the saved model answers as scikit-learn does on features computed by hand."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from datasets import Dataset
from model_samples import batch, save_checkpoint, tiny, tokenizer
from PIL import Image
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC, LinearSVR
from strategy_samples import load, recipe_for
from test_distributed import free_port
from trainer_samples import Fixed, collate
from transformers import TrainingArguments, pipeline

from hf_finetune import finetune
from hf_finetune.data import TextCollator, text_samples
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.evaluation import compute_metrics
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.model import load_finished, load_pretrained, save_pretrained
from hf_finetune.model.heads import output_layer
from hf_finetune.outputs import predictions, probabilities
from hf_finetune.recipes import load_recipe
from hf_finetune.strategy import apply_strategy
from hf_finetune.training.features import fit_features, pooled_features
from hf_finetune.training.fits import fit_linear
from hf_finetune.training.trainer import FinetuneTrainer

ROWS, UNSEEN = 60, 24
# family -> name of the module whose output is the pooled features
POOLED = {
    "vit": "vit.layernorm",
    "resnet": "resnet.pooler",
    "timm_mobilenetv3": "timm_model.act2",
    "bert": "bert.pooler",
}
BEST = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "micro_f1",
    "regression": "mse",
}


def labels_of(problem, family, size, seed, classes=3):
    generator = np.random.default_rng(seed)
    inputs = Fixed(family, size, seed).columns
    signal = next(iter(inputs.values())).double().flatten(1).mean(1).numpy() + generator.normal(0, 0.01, size)
    if problem == "regression":
        return 200 + 30 * signal
    if problem == "multi_label_classification":
        return (generator.random((size, classes)) < 0.4).astype(np.float32)
    return np.argsort(np.argsort(signal)) * classes // size


def fitted(tmp_path, family="vit", problem="single_label_classification", classes=3, pooling=None, **strategy):
    """A fit on random samples: recipe, applied, trainer, samples, their labels and what was fitted."""
    checkpoint = tmp_path / family
    if not checkpoint.exists():
        save_checkpoint(family, checkpoint)
    recipe = recipe_for(family, checkpoint, {"kind": "features", **strategy})
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"pooling": pooling})})
    names = ["y"] if problem == "regression" else [f"c{place}" for place in range(classes)]
    loaded = load_pretrained(
        recipe.model,
        recipe.task,
        num_labels=len(names),
        label_names=names,
        problem_type=problem,
        seed=0,
        layer=recipe.strategy.layer,
    )
    applied = apply_strategy(loaded, recipe)
    splits = [{"label": labels_of(problem, family, size, seed, classes)} for size, seed in ((ROWS, 1), (UNSEEN, 2))]
    task = SimpleNamespace(
        train=splits[0], validation=splits[1], labels=SimpleNamespace(problem_type=problem, num_labels=len(names))
    )
    samples = SimpleNamespace(train=Fixed(family, ROWS, 1), validation=Fixed(family, UNSEEN, 2), collate=collate)
    arguments = TrainingArguments(
        str(tmp_path / "out"),
        metric_for_best_model=BEST[problem],
        greater_is_better=problem != "regression",
        use_cpu=True,
        report_to="none",
    )
    trainer = FinetuneTrainer(
        applied,
        arguments,
        train_dataset=samples.train,
        eval_dataset=samples.validation,
        collate=collate,
        problem_type=problem,
        compute_metrics=lambda found: compute_metrics(found.predictions, found.label_ids, problem, [BEST[problem]]),
    )
    result = fit_features(recipe, task, loaded, applied, trainer, samples)
    return SimpleNamespace(
        recipe=recipe, loaded=loaded, applied=applied, trainer=trainer, samples=samples, task=task, result=result
    )


@torch.no_grad()
def by_hand(model, module, family, size, seed):
    """What a module gives for the samples, with one forward pass and a hook."""
    seen = []
    hook = model.get_submodule(module).register_forward_hook(lambda _, inputs, output: seen.append(output))
    columns = {name: value for name, value in Fixed(family, size, seed).columns.items() if name != "labels"}
    logits = model.eval()(**columns).logits
    hook.remove()
    features = getattr(seen[0], "pooler_output", seen[0])
    return (features[:, 0] if features.ndim == 3 else features.flatten(1)).double().numpy(), logits.numpy()


@pytest.mark.parametrize("family", POOLED)
def test_softmax_of_the_saved_model_is_scikit_learns_probability(tmp_path, family):
    run = fitted(tmp_path, family)
    save_pretrained(run.applied.model, run.loaded.processor, tmp_path / "saved")
    saved = load_finished(tmp_path / "saved").model
    train, _ = by_hand(saved, POOLED[family], family, ROWS, 1)
    unseen, logits = by_hand(saved, POOLED[family], family, UNSEEN, 2)
    sklearn = make_pipeline(StandardScaler(), LogisticRegression(C=run.result.chosen, max_iter=1000))
    sklearn.fit(train, run.task.train["label"])
    assert type(saved).__module__.startswith("transformers.")
    assert np.allclose(probabilities(logits, "single_label_classification"), sklearn.predict_proba(unseen), atol=1e-5)
    assert (logits.argmax(1) == sklearn.predict(unseen)).all()


def test_the_best_by_validation_is_kept_and_of_equals_the_strongest(tmp_path):
    scores = fitted(tmp_path).result.scores
    run = fitted(tmp_path, regularization=[10, 0.001, 0.1])
    assert list(run.result.scores) == [0.001, 0.1, 10]
    best = max(run.result.scores.values())
    assert run.result.chosen == next(value for value, score in run.result.scores.items() if score == best)
    assert all(scores[value] == score for value, score in run.result.scores.items())
    assert run.result.facts()["tried"].keys() == {"0.001", "0.1", "10"}
    assert "features of 60 x 16; logistic: C" in run.result.in_words() and "of 3 tried" in run.result.in_words()


@pytest.mark.parametrize(("family", "stay"), [("vit", 1), ("bert", 2), ("timm_vit", 2)])
def test_features_of_a_layer_are_those_of_the_model_cut_there(tmp_path, family, stay):
    run = fitted(tmp_path, family, layer=stay)
    assert len(run.loaded.anatomy.blocks) == stay and any("cut after block" in line for line in run.loaded.changes)
    cut = recipe_for(family, tmp_path / family, "head")
    cut = cut.model_copy(update={"model": cut.model.model_copy(update={"drop_blocks": 3 - stay})})
    other = load(cut, ["c0", "c1", "c2"])
    found, expected = (
        pooled_features(each.model, output_layer(each.model, each.anatomy), run.samples.train, collate)
        for each in (run.loaded, other)
    )
    assert np.allclose(found, expected, atol=1e-6)
    save_pretrained(run.applied.model, run.loaded.processor, tmp_path / "saved")
    saved = load_finished(tmp_path / "saved")
    assert len(saved.anatomy.blocks) == stay


def test_features_of_a_layer_are_the_hidden_states_after_it(tmp_path):
    run = fitted(tmp_path, "vit", layer=2)
    whole = load(recipe_for("vit", tmp_path / "vit", "head"), ["c0", "c1", "c2"]).model.eval()
    with torch.no_grad():
        states = whole.vit(Fixed("vit", ROWS, 1).columns["pixel_values"], output_hidden_states=True).hidden_states
        expected = whole.vit.layernorm(states[2])[:, 0]
    found = pooled_features(run.applied.model, "classifier", run.samples.train, collate)
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_the_middle_is_half_of_the_blocks(tmp_path):
    assert len(fitted(tmp_path, "bert", layer="middle").loaded.anatomy.blocks) == 1


@pytest.mark.parametrize("classifier", ["ridge", "svm"])
def test_regression_is_scikit_learns(tmp_path, classifier):
    run = fitted(tmp_path, problem="regression", classifier=classifier)
    train, _ = by_hand(run.applied.model, POOLED["vit"], "vit", ROWS, 1)
    unseen, outputs = by_hand(run.applied.model, POOLED["vit"], "vit", UNSEEN, 2)
    targets = run.task.train["label"]
    estimator = Ridge(alpha=run.result.chosen)
    if classifier == "svm":
        estimator = LinearSVR(C=run.result.chosen, dual="auto", random_state=0)
    sklearn = make_pipeline(StandardScaler(), estimator)
    sklearn.fit(train, (targets - targets.mean()) / targets.std())
    expected = sklearn.predict(unseen) * targets.std() + targets.mean()
    assert np.allclose(outputs[:, 0], expected, rtol=1e-5 if classifier == "ridge" else 1e-3)
    if classifier == "ridge":
        plain = make_pipeline(StandardScaler(), Ridge(alpha=run.result.chosen)).fit(train, targets)
        assert np.allclose(outputs[:, 0], plain.predict(unseen), rtol=1e-5)


@pytest.mark.parametrize("classifier", ["logistic", "ridge", "svm"])
def test_every_label_is_one_against_the_rest(tmp_path, classifier):
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(50, 6)), (generator.random((50, 3)) < 0.4).astype(float)
    labels[:, 1] = features[:, 0] > 0
    found = fit_linear(classifier, 0.5, features, labels, "multi_label_classification", 3).logits(features)
    estimator = {
        "logistic": LogisticRegression(C=0.5, max_iter=1000),
        "ridge": RidgeClassifier(alpha=0.5),
        "svm": LinearSVC(C=0.5, dual="auto", random_state=0),
    }[classifier]
    sklearn = OneVsRestClassifier(estimator).fit(features, labels)
    assert np.allclose(found, sklearn.decision_function(features), atol=1e-5)
    assert (predictions(found, "multi_label_classification") == sklearn.predict(features)).all()
    run = fitted(tmp_path, "bert", "multi_label_classification", classifier=classifier)
    assert run.applied.model.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("classifier", ["logistic", "ridge", "svm"])
def test_two_classes_become_two_logits(classifier):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(50, 6))
    labels = (features[:, 0] + generator.normal(size=50) > 0).astype(int)
    logits = fit_linear(classifier, 0.5, features, labels, "single_label_classification", 2).logits(features)
    if classifier == "logistic":
        sklearn = LogisticRegression(C=0.5, max_iter=1000).fit(features, labels)
        assert np.allclose(
            probabilities(logits, "single_label_classification"), sklearn.predict_proba(features), atol=1e-6
        )
    sklearn = {"logistic": LogisticRegression(C=0.5), "ridge": RidgeClassifier(alpha=0.5), "svm": LinearSVC(C=0.5)}
    assert (logits.argmax(1) == sklearn[classifier].fit(features, labels).predict(features)).all()


def test_a_class_without_rows_is_never_answered_and_one_class_is_refused():
    features = np.random.default_rng(0).normal(size=(20, 4))
    labels = np.array([0, 2] * 10)
    logits = fit_linear("logistic", 1.0, features, labels, "single_label_classification", 3).logits(features)
    assert set(logits.argmax(1)) <= {0, 2}
    with pytest.raises(UserError, match="one class"):
        fit_linear("logistic", 1.0, features, np.zeros(20, int), "single_label_classification", 3)
    never = fit_linear("svm", 1.0, features, np.zeros((20, 1)), "multi_label_classification", 1).logits(features)
    assert (never < 0).all()


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_neighbours_are_scikit_learns_and_are_saved_as_weights(tmp_path, family):
    run = fitted(tmp_path, family, classifier="knn", regularization=[3])
    save_pretrained(run.applied.model, run.loaded.processor, tmp_path / "saved")
    saved = load_finished(tmp_path / "saved").model
    train, _ = by_hand(saved, f"model.{POOLED[family]}", family, ROWS, 1)
    unseen, logits = by_hand(saved, f"model.{POOLED[family]}", family, UNSEEN, 2)
    sklearn = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(train, run.task.train["label"])
    assert np.allclose(probabilities(logits, "single_label_classification"), sklearn.predict_proba(unseen), atol=1e-5)
    assert not list((tmp_path / "saved").glob("*.skops")) and not list((tmp_path / "saved").glob("*.pkl"))


def test_a_model_of_neighbours_gets_a_head_that_learns_when_it_is_tuned_further(tmp_path):
    run = fitted(tmp_path, classifier="knn", regularization=[3])
    save_pretrained(run.applied.model, run.loaded.processor, tmp_path / "saved")
    onwards = load(recipe_for("vit", tmp_path / "saved"), ["c0", "c1", "c2"])
    assert onwards.fresh and "values" not in "".join(name for name, _ in onwards.model.named_parameters())
    assert onwards.model(**batch("vit")).logits.shape == (4, 3)


def test_neighbours_of_numbers_are_their_mean(tmp_path):
    run = fitted(tmp_path, problem="regression", classifier="knn", regularization=[ROWS])
    _, outputs = by_hand(run.applied.model, f"model.{POOLED['vit']}", "vit", UNSEEN, 2)
    assert np.allclose(outputs, run.task.train["label"].mean(), rtol=1e-5)


def test_random_layers_before_the_output_layer_are_refused(tmp_path):
    tiny("distilbert").distilbert.save_pretrained(tmp_path / "distilbert")
    tokenizer().save_pretrained(tmp_path / "distilbert")
    with pytest.raises(UserError, match=r"no weights for .*model.pooling=mean"):
        fitted(tmp_path, "distilbert")


def test_an_output_layer_without_a_bias_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no bias.*model.pooling=mean"):
        fitted(tmp_path, "gpt2")


@pytest.mark.parametrize(("family", "classifier"), [("gpt2", "auto"), ("distilbert", "auto"), ("gpt2", "knn")])
def test_another_pooling_is_the_remedy(tmp_path, family, classifier):
    run = fitted(tmp_path, family, pooling="mean", classifier=classifier, layer=2)
    save_pretrained(run.applied.model, run.loaded.processor, tmp_path / "saved")
    saved = load_finished(tmp_path / "saved").model.eval()
    inputs = {name: value for name, value in batch(family).items() if name != "labels"}
    with torch.no_grad():
        assert torch.allclose(saved(**inputs).logits, run.applied.model.eval()(**inputs).logits, atol=1e-5)


@pytest.mark.parametrize(("family", "layer", "words"), [("vit", 9, "has 3 blocks"), ("resnet", 1, "cannot be cut")])
def test_a_layer_that_is_not_to_be_had_is_refused(tmp_path, family, layer, words):
    with pytest.raises(UserError, match=words):
        fitted(tmp_path, family, layer=layer)


@pytest.mark.parametrize(
    ("pairs", "path"),
    [
        (["data.augment=basic"], "data.augment"),
        (["data.mixup=0.2"], "data.mixup"),
        (["model.head=mlp"], "model.head"),
        (["model.pooling=attention"], "model.pooling"),
        (["model.drop_blocks=1", "strategy.layer=middle"], "strategy.layer"),
        (["strategy.classifier=knn", "strategy.regularization=[1.5]"], "strategy.regularization"),
        (["strategy.classifier=logistic", "data.problem_type=regression", "evaluation.metrics=[mse]"], "strategy"),
        (["loss.kind=focal"], "loss"),
        (["average.ema=0.9"], "average"),
        (["strategy.layer=0"], "strategy.layer"),
    ],
)
def test_what_has_no_meaning_is_a_fault_of_the_recipe(pairs, path):
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", "strategy=features", *pairs)
    assert path in str(caught.value)


def test_a_whole_run_is_finished_once_and_answers_as_a_pipeline(tmp_path):
    small = ("data.max_train_samples=100", "data.max_eval_samples=40", "evaluation.bootstrap=0")
    recipe = load_recipe("digits", "strategy=features", *small, f"output_dir={tmp_path / 'run'}")
    run = finetune(recipe)
    assert run.metrics["train"]["classifier"] == "logistic" and run.metrics["test"]["accuracy"] > 0.6
    assert finetune(recipe).metrics == run.metrics
    assert (run.path / "predictions.parquet").exists()
    classify = pipeline("image-classification", model=str(run.path))
    image = Image.new("L", (8, 8), 90).convert("RGB")
    assert classify(image)[0]["label"] == run.predict([image])[0]["label"]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_fit_what_one_fits(tmp_path, capsys):
    job = ("strategy=features", "data.max_train_samples=100", "data.max_eval_samples=37", "evaluation.bootstrap=0")
    finetune(load_recipe("digits", *job, f"output_dir={tmp_path / 'one'}"), precision="no")
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port()]
    launch += [str(REPOSITORY / "hf_finetune" / "run.py"), "recipe=digits", *job, "precision=no", "output_dir=two"]
    done = subprocess.run(
        [sys.executable, "-m", *launch], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=300
    )
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-6, err_msg=name)
    said = [
        [line for line in text.splitlines() if line.startswith("features of")]
        for text in (capsys.readouterr().out, done.stdout)
    ]
    assert said[0] == said[1] and len(said[0]) == 1


def test_a_long_text_in_windows_has_the_mean_of_its_windows_features(tmp_path):
    save_checkpoint("bert", tmp_path / "bert")
    rows = [{"text": " ".join(f"w{3 + (row * 7 + n * (1 + row % 3)) % 46}" for n in range(30))} for row in range(6)]
    recipe = recipe_for("bert", tmp_path / "bert", "features")
    loaded = load(recipe, ["a", "b", "c"])
    samples = text_samples(Dataset.from_list(rows), loaded.processor, max_length=12, window_overlap=0.25)
    features = pooled_features(loaded.model, "classifier", samples, TextCollator(loaded.processor))
    logits = predict_logits(loaded.model, samples, TextCollator(loaded.processor))
    layer = loaded.model.classifier
    expected = features @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    assert features.shape == (6, 16) and np.allclose(logits, expected, atol=1e-6)
