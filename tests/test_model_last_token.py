"""GPT-2 and XLNet: the last token answers, so padding must never be the last token."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch
from model_samples import batch, save_checkpoint, tokenizer
from strategy_samples import load, recipe_for, train_steps

from hf_finetune import finetune
from hf_finetune.data.text_samples import TextCollator
from hf_finetune.recipes import load_recipe
from hf_finetune.strategy import apply_strategy

FAMILIES = ("gpt2", "xlnet")
NAMES = ["ant", "bee", "cat"]
TEXTS = ["w3 w4 w5", "w6", "w7 w8 w9 w10 w11 w12 w13", "w20 w21"]


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    """Family, and the folder of a tiny checkpoint of it."""
    return request.param, save_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


def answer(loaded, texts):
    """Logits of the texts as one batch, made as for training."""
    samples = [dict(loaded.processor(text)) for text in texts]
    inputs = TextCollator(loaded.processor)(samples)
    with torch.no_grad():
        return loaded.model.eval()(**inputs).logits


@pytest.mark.parametrize("head", ["linear", {"kind": "mlp", "hidden": [8]}])
def test_a_text_among_longer_ones_gets_the_logits_that_it_gets_alone(saved, head):
    loaded = load(recipe_for(saved[0], saved[1], head=head), NAMES)
    alone = torch.cat([answer(loaded, [text]) for text in TEXTS])
    torch.testing.assert_close(answer(loaded, TEXTS), alone, rtol=1e-4, atol=1e-6)
    assert alone.std(0).min() > 1e-4  # the texts are told apart


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_that_a_tokenizer_pads_is_the_models_choice(side, saved, tmp_path):
    family, folder = saved
    ours = tokenizer()
    ours.padding_side = side
    folder = save_checkpoint(family, tmp_path)
    ours.save_pretrained(folder)
    loaded = load(recipe_for(family, folder), NAMES)
    alone = torch.cat([answer(loaded, [text]) for text in TEXTS])
    # GPT-2 counts its positions from the left, padding too.
    assert loaded.processor.padding_side == {"gpt2": "right", "xlnet": "left"}[family]
    torch.testing.assert_close(answer(loaded, TEXTS), alone, rtol=1e-4, atol=1e-6)


def test_gpt2_reads_before_the_padding_of_its_tokenizer_whatever_its_config_says(tmp_path):
    folder = save_checkpoint("gpt2", tmp_path, pad_token_id=40)
    loaded = load(recipe_for("gpt2", folder), NAMES)
    assert loaded.model.config.pad_token_id == loaded.processor.pad_token_id == 0
    alone = torch.cat([answer(loaded, [text]) for text in TEXTS])
    torch.testing.assert_close(answer(loaded, TEXTS), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("head", ["head"]),
        ({"kind": "freeze", "train_blocks": 2}, ["block 2", "block 3", "head"]),
        ({"kind": "full", "layer_decay": 0.9}, ["stem", "block 1", "block 2", "block 3", "head"]),
        ("lora", ["block 1", "block 2", "block 3", "head"]),
        ("scratch", ["stem", "block 1", "block 2", "block 3", "head"]),
    ],
    ids=str,
)
def test_a_strategy_moves_its_parts_and_no_other(saved, strategy, parts):
    family, folder = saved
    recipe = recipe_for(family, folder, strategy)
    applied = apply_strategy(load(recipe, NAMES), recipe)
    assert [name for name, learns in applied.learns.items() if learns] == parts
    before = copy.deepcopy(applied.model.state_dict())
    inputs = batch(family)
    if family == "xlnet":  # whose embeddings of segments no step reads without token types
        inputs["token_type_ids"] = (torch.arange(12) > 6).long().expand(4, -1)
    train_steps(applied, inputs, steps=2)
    # XLNet's mask embedding is for pretraining alone.
    still = {name for name, tensor in applied.model.state_dict().items() if torch.equal(tensor, before[name])}
    learning = {name for name in applied.learning if not name.endswith("mask_emb")}
    assert still.isdisjoint(learning)
    assert {name for name, _ in applied.model.named_parameters()} - applied.learning <= still


def test_a_run_learns_and_a_single_text_is_answered_as_in_the_table(saved, tmp_path):
    rows = [(f"w{3 + n % 5} " * (1 + n % 7) + ("w40" if n % 2 else "w41"), n % 2) for n in range(120)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "rows.csv", index=False)
    run = finetune(
        load_recipe(
            "sst2",
            f"model.checkpoint={saved[1]}",
            f"data.dataset={tmp_path / 'rows.csv'}",
            "data.text=text",
            "data.label=label",
            "data.train_split=train",
            "data.test_split=0.3",
            "data.validation=0.2",
            "data.max_length=null",
            "training.num_train_epochs=6",
            "training.learning_rate=0.02",
            "evaluation.bootstrap=0",
            f"output_dir={tmp_path / 'run'}",
        )
    )
    assert run.metrics["test"]["accuracy"] > 0.9
    table = pd.read_parquet(run.path / "predictions.parquet")
    texts = pd.read_csv(tmp_path / "rows.csv")["text"]
    # One text alone, and others in one batch, by the saved model: the answers of the run.
    ids, expected = list(table["id"]), [str(label) for label in table["prediction"]]
    assert run.predict(texts[ids[0]])["label"] == expected[0]
    assert [told["label"] for told in run.predict(list(texts[ids]))] == expected
