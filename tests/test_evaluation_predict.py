"""Prediction: equal to transformers' pipelines, in order, and no input lost to another's fault."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_samples import image_model, images, save_model, text_model, texts
from transformers import pipeline

from hf_finetune.console import muted
from hf_finetune.data import TextCollator, text_samples
from hf_finetune.errors import UserError
from hf_finetune.evaluation.commands import evaluate_command, predict_command
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.model import load_finished
from hf_finetune.recipes import Recipe


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("vit"), image_model()))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("bert"), text_model()))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for place, image in enumerate(images(5)):
        image.save((folder if place < 3 else folder / "deep") / f"{place}.png")
    (folder / "broken.jpg").write_text("this is no image")
    (folder / "notes.txt").write_text("not an image either")
    return folder


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_images_are_answered_as_pipelines_do(vit, batch_size):
    predictor = Predictor(load_finished(vit))
    shown = images(7)
    ours = predictor.in_words(predictor.answer(shown, batch_size))
    theirs = [answers[0] for answers in pipeline("image-classification", model=vit)(shown)]
    assert len({answer["label"] for answer in ours}) > 1
    for own, other in zip(ours, theirs, strict=True):
        assert own["label"] == other["label"] and own["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_bar_stays_away_from_a_run_that_is_one_of_many(vit, capsys):
    """As where a run was killed between its scores and its page, which is drawn when it is found again."""
    predictor = Predictor(load_finished(vit))
    with muted(set()):
        predictor.answer(images(2), 2, "looking again")
    assert capsys.readouterr().err == ""
    predictor.answer(images(2), 2, "looking again")
    assert "looking again" in capsys.readouterr().err


def test_texts_and_pairs_are_answered_as_pipelines_do(bert):
    predictor, reference = Predictor(load_finished(bert)), pipeline("text-classification", model=bert)
    said = texts(9)
    pairs = [{"text": one, "text_pair": other} for one, other in zip(said, texts(9, seed=1), strict=True)]
    for inputs in (said, pairs):
        ours, theirs = predictor.in_words(predictor.answer(inputs, 4)), reference(inputs)
        for own, other in zip(ours, theirs, strict=True):
            assert own["label"] == other["label"] and own["score"] == pytest.approx(other["score"], abs=1e-5)
    tuples = [(pair["text"], pair["text_pair"]) for pair in pairs]
    assert np.array_equal(predictor.answer(tuples).logits, predictor.answer(pairs).logits)


def test_regression_and_multi_label_are_answered_as_pipelines_do(tmp_path):
    number = save_model(tmp_path / "number", text_model(("rating",), "regression"))
    predictor = Predictor(load_finished(number))
    ours = predictor.in_words(predictor.answer(texts(5)))
    theirs = pipeline("text-classification", model=str(number))(texts(5))
    assert ours == pytest.approx([answer["score"] for answer in theirs], abs=1e-4)
    several = save_model(tmp_path / "several", image_model(problem="multi_label_classification"))
    predictor = Predictor(load_finished(several))
    theirs = pipeline("image-classification", model=str(several))(images(6))
    for own, other in zip(predictor.in_words(predictor.answer(images(6))), theirs, strict=True):
        assert [answer["label"] for answer in own] == [a["label"] for a in other if a["score"] > 0.5]


def test_logits_come_in_order_and_the_model_is_left_as_it_was():
    from datasets import Dataset

    model, tokenizer = text_model()
    model.train()
    model.bert.encoder.eval()
    modes = [module.training for module in model.modules()]
    said = texts(25)
    samples = text_samples(Dataset.from_dict({"text": said}), tokenizer)
    together = predict_logits(model, samples, TextCollator(tokenizer), 8, "cpu")
    assert [module.training for module in model.modules()] == modes
    model.eval()
    with torch.inference_mode():
        alone = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in said]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)
    assert together.dtype == np.float32


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(monkeypatch, capsys):
    from datasets import Dataset

    model, tokenizer = text_model()
    samples = text_samples(Dataset.from_dict({"text": texts(13)}), tokenizer)
    expected = predict_logits(model, samples, TextCollator(tokenizer), 16, "cpu")

    def small_memory(module, args, kwargs):
        if len(kwargs["input_ids"]) > 3:
            raise torch.cuda.OutOfMemoryError("no memory left")

    model.register_forward_pre_hook(small_memory, with_kwargs=True)
    found = predict_logits(model, samples, TextCollator(tokenizer), 16, "cpu")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "going on with 3" in capsys.readouterr().err


@pytest.mark.gpu
def test_memory_of_a_gpu_does_not_grow_with_samples():
    from datasets import Dataset

    model, tokenizer = text_model(tuple(f"class {n}" for n in range(2000)))
    peaks = []
    for count in (64, 2048):
        samples = text_samples(Dataset.from_dict({"text": ["good film"] * count}), tokenizer)
        torch.cuda.reset_peak_memory_stats()
        predict_logits(model, samples, TextCollator(tokenizer), 32, "cuda")
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] - peaks[0] < 2**20


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_broken_image_is_told_in_its_row_and_the_others_are_predicted(vit, photos, tmp_path, ending):
    out = tmp_path / f"out.{ending}"
    assert predict_command(vit, [str(photos)], out=str(out), batch_size=2) == 1
    table = read(out)
    assert [path.rsplit("/", 1)[1] for path in table["input"]] == [
        "0.png",
        "1.png",
        "2.png",
        "broken.jpg",
        "3.png",
        "4.png",
    ]
    broken = table["input"].str.endswith("broken.jpg")
    assert table.loc[broken, "error"].str.contains("identify").all() and table.loc[broken, "prediction"].isna().all()
    assert table.loc[broken, [f"score_{name}" for name in ("ant", "bee", "cat")]].isna().all().all()
    good = table[~broken]
    assert good["error"].isna().all() and set(good["prediction"]) <= {"ant", "bee", "cat"}
    np.testing.assert_allclose(good[["score_ant", "score_bee", "score_cat"]].sum(axis=1).astype(float), 1, atol=1e-5)
    assert [path.name for path in tmp_path.glob(".*")] == []


def read(path):
    readers = {
        ".csv": pd.read_csv,
        ".tsv": lambda p: pd.read_csv(p, sep="\t"),
        ".jsonl": lambda p: pd.read_json(p, lines=True),
        ".parquet": pd.read_parquet,
    }
    return readers[path.suffix](path)


def test_globs_and_tables_of_images(vit, photos, tmp_path, capsys):
    assert predict_command(vit, [str(photos / "**" / "*.png")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "input\tprediction\tscore" and len(printed) == 6
    pd.DataFrame({"file": ["photos/0.png", "photos/1.png"], "size": [1, 2]}).to_csv(tmp_path / "list.csv", index=False)
    assert predict_command(vit, [str(tmp_path / "list.csv")]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split("\t")[1:] for row in rows] == [row.split("\t")[1:] for row in printed[1:3]]


def test_texts_from_arguments_tables_and_standard_input(bert, tmp_path, capsys, monkeypatch):
    import io

    said = ["good film", "very awful plot", "the"]
    frame = pd.DataFrame({"review": said, "title": ["a", "b", "c"], "stars": [1, 2, 3]})
    frame.to_parquet(tmp_path / "r.parquet")
    frame.to_json(tmp_path / "r.jsonl", orient="records", lines=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(said) + "\n"))
    answers = []
    for given in (said, [str(tmp_path / "r.parquet")], [str(tmp_path / "r.jsonl")], ["-"]):
        assert predict_command(bert, given, column="review" if len(given[0]) > 20 else None) == 0
        answers.append([line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()[1:]])
    assert answers[0] == answers[1] == answers[2] == answers[3]
    with pytest.raises(UserError, match="review, title"):
        predict_command(bert, [str(tmp_path / "r.parquet")])
    with pytest.raises(UserError, match="no column 'reviews'"):
        predict_command(bert, [str(tmp_path / "r.parquet")], column="reviews")
    predict_command(bert, [str(tmp_path / "r.parquet")], column="review,title", out=str(tmp_path / "pairs.jsonl"))
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert pairs[1]["input"].endswith("r.parquet:1") and pairs[1]["prediction"] in ("no", "yes")


def test_empty_cells_and_lines_are_errors_of_their_own(bert, tmp_path, monkeypatch):
    import io

    pd.DataFrame({"text": ["good", None, "bad"]}).to_parquet(tmp_path / "t.parquet")
    assert predict_command(bert, [str(tmp_path / "t.parquet")], out=str(tmp_path / "o.csv")) == 1
    table = read(tmp_path / "o.csv")
    assert table["error"].tolist()[1] == "the cell is empty" and table["prediction"].isna().tolist() == [
        False,
        True,
        False,
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n\nbad\n"))
    assert predict_command(bert, ["-"], out=str(tmp_path / "o.csv")) == 1
    assert read(tmp_path / "o.csv")["error"].notna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (["missing.csv"], {}, "no such file"),
        (["*.png"], {}, "matches no file"),
        (["{photos}"], {"out": "o.xlsx"}, "one of .csv"),
        (["{photos}"], {"out": "nowhere/o.csv"}, "no folder nowhere"),
        (["{photos}"], {"batch_size": 0}, "at least 1"),
    ],
)
def test_arguments_that_name_nothing_are_told(vit, photos, tmp_path, monkeypatch, arguments, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        predict_command(vit, [argument.replace("{photos}", str(photos)) for argument in arguments], **options)


def labelled(tmp_path, names, count=40):
    """A csv of texts, labelled by what the tiny BERT says but for every fourth."""
    predictor = Predictor(load_finished(str(tmp_path / "model")))
    said = texts(count)
    answers = predictor.in_words(predictor.answer(said))
    truth = [
        names[a["label"]] if n % 4 else names["yes" if a["label"] == "no" else "no"] for n, a in enumerate(answers)
    ]
    pd.DataFrame({"text": said, "label": truth}).to_csv(tmp_path / "data.csv", index=False)
    return f"data.dataset={tmp_path / 'data.csv'}"


@pytest.mark.parametrize("model_names", [("no", "yes"), ("yes", "no")])
def test_evaluate_matches_labels_by_name_not_by_order(tmp_path, capsys, model_names):
    save_model(tmp_path / "model", text_model(model_names))
    data = labelled(tmp_path, {"yes": "yes", "no": "no"})
    scores = evaluate_command(str(tmp_path / "model"), [data])
    assert scores["accuracy"] == 0.75 and scores["samples"] == 40
    assert scores["accuracy_ci95"][0] < 0.75 < scores["accuracy_ci95"][1]
    assert "accuracy" in capsys.readouterr().out


def test_evaluate_refuses_other_labels_and_lists_both(tmp_path):
    save_model(tmp_path / "model", text_model())
    data = labelled(tmp_path, {"yes": "positive", "no": "negative"})
    with pytest.raises(UserError, match=r"it knows: no, yes.*negative.*positive"):
        evaluate_command(str(tmp_path / "model"), [data])


def test_evaluate_needs_data_and_takes_no_training_settings(bert):
    with pytest.raises(UserError, match=r"data\.dataset"):
        evaluate_command(bert, [])
    with pytest.raises(UserError, match=r"training\.learning_rate"):
        evaluate_command(bert, ["training.learning_rate=1"])


def as_run(folder, dataset, **data):
    """A finished model that looks like a run trained on a file."""
    save_model(folder, text_model())
    recipe = Recipe(task="text-classification", model={"checkpoint": "x"}, data={"dataset": str(dataset), **data})
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return str(folder)


@pytest.mark.parametrize("named", [{}, {"text": "text", "label": "label"}])
def test_a_run_predicts_the_table_that_it_was_trained_on(tmp_path, capsys, named):
    pd.DataFrame({"text": texts(6), "label": ["no", "yes"] * 3, "id": list("abcdef")}).to_csv(
        tmp_path / "a.csv", index=False
    )
    run = as_run(tmp_path / "run", tmp_path / "a.csv", **named)
    assert predict_command(run, [str(tmp_path / "a.csv")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_a_run_of_pairs_reads_its_two_columns_and_refuses_single_texts(tmp_path):
    table = {"one": texts(4), "two": texts(4, seed=1), "label": ["no", "yes"] * 2}
    pd.DataFrame(table).to_csv(tmp_path / "a.csv", index=False)
    run = as_run(tmp_path / "run", tmp_path / "a.csv", text="one", text_pair="two")
    out = tmp_path / "out.csv"
    assert predict_command(run, [str(tmp_path / "a.csv")], out=str(out)) == 0
    pairs = Predictor(load_finished(run)).answer(list(zip(table["one"], table["two"], strict=True)))
    np.testing.assert_allclose(read(out)["score_yes"], pairs.probabilities[:, 1], atol=1e-5)
    with pytest.raises(UserError, match=r"pairs of texts \(one, two\), and single texts"):
        predict_command(run, ["good film"])
    pd.DataFrame({"one": ["a"]}).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(UserError, match=r"no column 'two'.*--column A,B"):
        predict_command(run, [str(tmp_path / "b.csv")])


def test_evaluate_takes_every_row_of_other_data_and_any_split_of_its_own(tmp_path):
    columns = {"text": texts(40), "label": ["no", "yes"] * 20}
    pd.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({**columns, "label": ["yes"] * 40}).to_csv(tmp_path / "b.csv", index=False)
    run = as_run(tmp_path / "run", tmp_path / "a.csv", test_split=0.2, max_eval_samples=5)
    assert evaluate_command(run)["samples"] == 5
    for name in ("a.csv", "b.csv"):
        assert evaluate_command(run, [f"data.dataset={tmp_path / name}"])["samples"] == 40
    assert evaluate_command(run, ["data.test_split=train", "data.max_eval_samples=null"])["samples"] == 40


def test_a_model_without_class_names_takes_every_row_in_the_datas_order(tmp_path, capsys):
    save_model(tmp_path / "model", text_model(("LABEL_0", "LABEL_1")))
    pd.DataFrame({"text": texts(10), "label": ["bad", "good"] * 5}).to_csv(tmp_path / "a.csv", index=False)
    assert evaluate_command(str(tmp_path / "model"), [f"data.dataset={tmp_path / 'a.csv'}"])["samples"] == 10
    assert "in the data's order: bad, good" in capsys.readouterr().err


def test_a_model_that_has_predicted_can_still_be_trained_in_the_same_process():
    """BEiT caches its position indices: made in inference mode, they could not be used in a later training."""
    from model_samples import tiny

    net = tiny("beit", 3, image_size=88)  # the cache is the whole process's, by size: one that no other test has
    rows = [{"pixel_values": pixels} for pixels in torch.randn(4, 3, 88, 88)]

    def collate(items):
        return {"pixel_values": torch.stack([item["pixel_values"] for item in items])}

    predict_logits(net.eval(), rows, collate)
    net.train()(**collate(rows), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
