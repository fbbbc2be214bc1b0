"""Longer texts than the model takes, in overlapping windows: what they hold, and that logits are averaged by text."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from data_samples import private_cache  # noqa: F401
from datasets import Dataset
from evaluation_samples import WORDS, save_model, text_model
from trainer_samples import trainer, weights

from hf_finetune import finetune
from hf_finetune.data import TEXT_OF_WINDOW, TextCollator, text_samples
from hf_finetune.errors import UserError
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.evaluation.read import mean_of_each, read
from hf_finetune.model import LoadedModel, find_anatomy
from hf_finetune.recipes.schema import Recipe, TextAugment

LIMIT = 10  # 8 words and two special tokens
LENGTHS = [3, 30, 8, 9, 1, 100, 20]


def said(lengths=tuple(LENGTHS), seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=length)) for length in lengths]


def table(texts, **columns):
    return Dataset.from_dict({"id": list(range(len(texts))), "text": texts, **columns})


def windowed(texts, overlap=0.25, limit=LIMIT, **options):
    _, tokenizer = text_model()
    return text_samples(table(texts), tokenizer, max_length=limit, window_overlap=overlap, **options)


def windows_of(sample):
    return sample.get("windows") or [sample]


@pytest.mark.parametrize(("overlap", "shared"), [(0.25, 2), (0.5, 4), (0.01, 0), (0.99, 7)])
def test_windows_hold_the_whole_text_and_overlap_as_said(overlap, shared):
    _, tokenizer = text_model()
    for text, sample in zip(said(), windowed(said(), overlap), strict=True):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        parts = [window["input_ids"] for window in windows_of(sample)]
        assert all(len(part) <= LIMIT and part[0] == 2 and part[-1] == 3 for part in parts)
        joined = parts[0][1:-1]
        for before, after in itertools.pairwise(parts):
            assert len(before) == LIMIT and before[1:-1][8 - shared :] == after[1:-1][:shared]
            joined = joined + after[1:-1][shared:]
        assert joined == whole
        assert (len(parts) == 1) == (len(whole) <= 8)


def test_short_texts_are_samples_and_batches_as_without_windows():
    _, tokenizer = text_model()
    short = said((3, 8, 1, 5))
    cut = text_samples(table(short), tokenizer, max_length=LIMIT)
    read_whole = windowed(short)
    assert [read_whole[n] for n in range(4)] == [cut[n] for n in range(4)]
    assert read_whole.lengths.tolist() == cut.lengths.tolist()
    batches = [TextCollator(tokenizer)([samples[n] for n in range(4)]) for samples in (cut, read_whole)]
    assert batches[0].keys() == batches[1].keys()
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])


def test_training_on_short_texts_is_the_same_to_the_bit(tmp_path):
    _, tokenizer = text_model()
    short = table(said([1 + n % 8 for n in range(16)]), label=[n % 3 for n in range(16)])
    found = []
    for overlap in (None, 0.25):
        run = trainer(tmp_path, "bert", num_train_epochs=1)
        run.train_dataset = text_samples(short, tokenizer, max_length=LIMIT, window_overlap=overlap)
        run.eval_dataset = run.train_dataset
        run.data_collator = TextCollator(tokenizer)
        run.train()
        found.append(weights(run.model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def by_hand(model, tokenizer, texts, overlap=2):
    """Logits of each text: the mean over windows of 8 words, cut as words."""
    rows = []
    for text in texts:
        words = text.split()
        starts = [0]
        while starts[-1] + 8 < len(words):
            starts.append(starts[-1] + 8 - overlap)
        parts = [" ".join(words[start : start + 8]) for start in starts]
        with torch.no_grad():
            logits = [model(**tokenizer(part, return_tensors="pt")).logits[0] for part in parts]
        rows.append(torch.stack(logits).mean(0))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_logits_of_a_text_are_the_mean_of_its_windows(batch_size):
    model, tokenizer = text_model()
    calls = []
    model.register_forward_hook(lambda module, args, output: calls.append(len(output.logits)))
    found = predict_logits(model, windowed(said()), TextCollator(tokenizer), batch_size, "cpu")
    # A long text in a small batch is read in several passes, so that memory is bounded.
    assert max(calls) <= batch_size and sum(calls) == sum(len(windows_of(sample)) for sample in windowed(said()))
    np.testing.assert_allclose(found, by_hand(model, tokenizer, said()), atol=1e-5)


def test_rows_are_averaged_by_their_owner():
    logits = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [0.0, 4.0]], requires_grad=True)
    mean = mean_of_each(logits, torch.tensor([0, 0, 1, 0]))
    torch.testing.assert_close(mean, torch.tensor([[4 / 3, 2.0], [5.0, 5.0]]))
    mean[0, 0].backward()
    torch.testing.assert_close(logits.grad[:, 0], torch.tensor([1 / 3, 1 / 3, 0.0, 1 / 3]))


def test_training_takes_all_windows_in_one_pass_and_one_loss_a_text(tmp_path):
    _, tokenizer = text_model()
    run = trainer(tmp_path, "bert", still=True)
    samples = text_samples(
        table(said(), label=[n % 3 for n in range(7)]), tokenizer, max_length=LIMIT, window_overlap=0.25
    )
    batch = TextCollator(tokenizer)([samples[n] for n in range(7)])
    calls = []
    run.model.register_forward_hook(lambda module, args, output: calls.append(output.logits))
    loss = run.compute_loss(run.model.train(), batch)
    assert len(calls) == 1 and len(calls[0]) == len(batch[TEXT_OF_WINDOW]) > 7
    expected = torch.nn.functional.cross_entropy(mean_of_each(calls[0], batch[TEXT_OF_WINDOW]), batch["labels"])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    run.data_collator = TextCollator(tokenizer)
    predicted = run.predict(samples)
    assert predicted.predictions.shape == (7, 3) and predicted.label_ids.tolist() == [n % 3 for n in range(7)]
    run.model.eval()
    with torch.no_grad():
        logits = read(run.model, {name: value for name, value in batch.items() if name != "labels"}).logits
    np.testing.assert_allclose(predicted.predictions, logits.numpy(), atol=1e-5)


def test_words_of_windows_are_masked_too():
    hidden = windowed(said(), augment=TextAugment(word_dropout=1, keep=0))
    for sample in hidden:  # this tokenizer has no mask: one word of each window is left
        assert all(len(window["input_ids"]) == 3 for window in windows_of(sample))


@pytest.mark.parametrize(
    "before", [None, {"max_length": 7, "stride": 0, "strategy": "longest_first", "direction": "right"}]
)
def test_the_saved_tokenizer_knows_nothing_of_windows(before):
    _, tokenizer = text_model()
    if before:
        tokenizer.backend_tokenizer.enable_truncation(**before)
    text_samples(table(said()), tokenizer, max_length=LIMIT, window_overlap=0.25)
    assert tokenizer.backend_tokenizer.truncation == before


def test_what_has_no_windows_is_refused():
    _, tokenizer = text_model()
    pairs = Dataset.from_dict({"text": ["good film"], "text_pair": ["bad plot"]})
    with pytest.raises(UserError, match="these are pairs"):
        text_samples(pairs, tokenizer, window_overlap=0.25)
    tokenizer.model_max_length = int(1e30)
    with pytest.raises(UserError, match=r"names no limit; say data\.max_length"):
        text_samples(table(["good"]), tokenizer, window_overlap=0.25)
    with pytest.raises(UserError, match="leaves a window 1 words"):
        text_samples(table(["good"]), tokenizer, max_length=3, window_overlap=0.25)
    texts = {"task": "text-classification", "model": {"checkpoint": "none"}}
    for bad, message in (
        ({"data": {"dataset": "none", "long_text": "windows", "text": "a", "text_pair": "b"}}, "windows cut one text"),
        ({"data": {"dataset": "none", "window_overlap": 0.5}}, "no windows to overlap"),
        (
            {"task": "image-classification", "data": {"dataset": "none", "long_text": "windows"}},
            "windows are for texts",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe.model_validate({**texts, **bad})


def test_a_run_predicts_and_evaluates_in_windows(tmp_path):
    made = text_model()
    save_model(tmp_path / "checkpoint", made)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"text": said([5 + 5 * (n % 12) for n in range(40)]), "label": rng.integers(0, 2, 40)})
    frame.head(30).to_csv(tmp_path / "train.csv", index=False)
    frame.tail(10).to_csv(tmp_path / "test.csv", index=False)
    recipe = Recipe.model_validate(
        {
            "task": "text-classification",
            "model": {"checkpoint": str(tmp_path / "checkpoint")},
            "data": {
                "dataset": {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")},
                "problem_type": "single_label_classification",
                "long_text": "windows",
                "validation": 0.2,
            },
            "training": {"num_train_epochs": 1, "per_device_train_batch_size": 4},
            "evaluation": {"bootstrap": 20},
            "output_dir": str(tmp_path / "run"),
        }
    )
    run = finetune(recipe, precision="no")
    stored = pd.read_parquet(run.path / "predictions.parquet")
    answers = run.predict(list(frame.tail(10)["text"]))
    np.testing.assert_allclose(
        [answer["score"] for answer in answers], [max(row) for row in stored["probabilities"]], atol=1e-5
    )
    assert run.evaluate()["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"])
    loaded = LoadedModel(run.model, run.processor, (), None, find_anatomy(run.model))
    cut = Predictor(loaded, device="cpu").answer(list(frame.tail(10)["text"]))
    whole = Predictor(loaded, window_overlap=0.25, device="cpu").answer(list(frame.tail(10)["text"]))
    assert np.abs(cut.logits - whole.logits).max() > 1e-3
    assert "read in windows that overlap by 25%" in (run.path / "README.md").read_text()
