"""Texts are tokenized as the tokenizer does it, in order, and padded as little as possible."""

import pytest
import torch
from data_samples import make_recipe, private_cache  # noqa: F401
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_finetune.data import TextCollator, load_data, text_samples
from hf_finetune.errors import UserError

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(50))]


def tokenizer(pad="[PAD]", types=True, side="right", limit=64):
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 1), ("[SEP]", 2)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=names, padding_side=side, model_max_length=limit,
    )  # fmt: skip


def rows(count=20, pair=False):
    columns = {
        "text": [" ".join(f"w{(n + k) % 50}" for k in range(n + 1)) for n in range(count)],
        "label": [n % 2 for n in range(count)],
    }
    if pair:
        columns["text_pair"] = [f"w{n} w1" for n in range(count)]
    return Dataset.from_dict(columns)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("max_length", [None, 7])
def test_samples_are_the_tokenizers(pair, types, max_length):
    split, make = rows(pair=pair), tokenizer(types=types)
    samples = text_samples(split, make, max_length=max_length, problem_type="single_label_classification")
    assert len(samples) == 20
    for n, row in enumerate(split):
        expected = dict(make(row["text"], row.get("text_pair"), truncation=True, max_length=max_length or 64))
        label = samples[n].pop("labels")
        sample = {name: value for name, value in samples[n].items() if name != "labels"}
        assert sample == expected and label == row["label"] and label.dtype == torch.int64
        assert samples.lengths[n] == len(expected["input_ids"])


def test_texts_are_cut_at_the_tokenizers_limit_and_not_beyond():
    split = Dataset.from_dict({"text": [" ".join(["w1"] * 500)]})
    assert text_samples(split, tokenizer(limit=32)).lengths.tolist() == [32]
    assert text_samples(split, tokenizer(limit=int(1e30))).lengths.tolist() == [502]
    with pytest.raises(UserError, match=r"data\.max_length=40: the checkpoint takes 32 tokens"):
        text_samples(split, tokenizer(limit=32), max_length=40)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_padded_to_a_multiple_of_eight_within_the_limit(side):
    make = tokenizer(side=side, limit=30)
    samples = text_samples(rows(40), make)
    collate = TextCollator(make)
    for picked, width in (([0, 1], 8), ([0, 10], 16), ([5, 39], 30)):
        batch = collate([samples[n] for n in picked])
        assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape == (2, width)
        for place, n in enumerate(picked):
            mask = batch["attention_mask"][place].bool()
            assert batch["input_ids"][place][mask].tolist() == samples[n]["input_ids"]
            assert (batch["input_ids"][place][~mask] == make.pad_token_id).all()
            assert mask[0 if side == "right" else -1]
        assert batch["labels"].tolist() == [n % 2 for n in picked]


def test_a_tokenizer_without_padding_is_refused():
    with pytest.raises(UserError, match="no padding token"):
        TextCollator(tokenizer(pad=None))


def test_inputs_without_labels():
    make = tokenizer()
    samples = text_samples(Dataset.from_dict({"text": ["w1", "w2 w3"]}), make)
    assert "labels" not in samples[0] and "labels" not in TextCollator(make)([samples[0], samples[1]])


@pytest.mark.parametrize(
    ("labels", "problem_type", "shape"),
    [([0.5, 1.5] * 10, "regression", ()), ([1, 2] * 10, "regression", ()), ([["a"], ["b", "a"]] * 10, None, (2,))],
)
def test_numbers_and_sets_are_floats(labels, problem_type, shape):
    source = Dataset.from_dict({"text": [f"w{n}" for n in range(20)], "label": labels})
    task = load_data(make_recipe("memory", test_split=None, problem_type=problem_type), source)
    make = tokenizer()
    samples = text_samples(task.train, make, problem_type=task.labels.problem_type)
    batch = TextCollator(make)([samples[n] for n in range(4)])
    assert batch["labels"].dtype == torch.float32 and batch["labels"].shape == (4, *shape)


def test_order_and_bounds():
    samples = text_samples(rows(5), tokenizer())
    assert [sample["labels"].item() for sample in samples] == [0, 1, 0, 1, 0]
    assert samples[-1]["input_ids"] == samples[4]["input_ids"]
    with pytest.raises(IndexError):
        samples[5]
