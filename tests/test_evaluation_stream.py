"""Prediction of many inputs: a chunk in memory, written as it goes, gone on with after a stop, never mixed up."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from evaluation_samples import image_model, images, save_model, text_model, texts
from test_evaluation_predict import read

from hf_finetune.errors import UserError
from hf_finetune.evaluation import stream
from hf_finetune.evaluation.commands import predict_command
from hf_finetune.evaluation.inputs import gather_inputs
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.model import load_finished

ENDINGS = ["csv", "tsv", "jsonl", "parquet"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("vit"), image_model()))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Four images between two writes, at a batch size of 2."""
    monkeypatch.setattr(stream, "_BATCHES", {"image-classification": 2, "text-classification": 2})


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, image in enumerate(images(11)):
        image.save(folder / f"{place:02}.png")
    (folder / "05.png").write_text("this is no image")
    return folder


def stop_after(monkeypatch, chunks):
    """Prediction that is interrupted once so many chunks are written."""
    answer, calls = Predictor.answer, []

    def interrupted(self, *arguments, **options):
        calls.append(len(arguments[0]))
        if len(calls) > chunks:
            raise KeyboardInterrupt
        return answer(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "answer", interrupted)
    return calls


def stopped(model, given, out, monkeypatch, chunks=2, **options):
    with monkeypatch.context() as patch:
        calls = stop_after(patch, chunks)
        with pytest.raises(KeyboardInterrupt):
            predict_command(model, given, out=str(out), batch_size=2, **options)
    return calls


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stopped_prediction_goes_on_and_gives_the_same_file(vit, photos, tmp_path, monkeypatch, capsys, ending):
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    assert predict_command(vit, [str(photos)], out=str(whole), batch_size=2) == 1
    stopped(vit, [str(photos)], out, monkeypatch)
    assert not out.exists() and "8 of 11 predictions are in" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        calls = stop_after(patch, 99)
        # The input that cannot be read was met before the stop; it still decides the exit code.
        assert predict_command(vit, [str(photos)], out=str(out), batch_size=2) == 1
    said = capsys.readouterr()
    assert calls == [3] and "going on" in said.out and "1 of 11 inputs could not be read" in said.err
    assert "05.png" in said.err
    if ending == "parquet":
        pd.testing.assert_frame_equal(read(out), read(whole))
    else:
        assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["photos", whole.name, out.name])


def test_rows_are_on_disk_before_the_end(vit, photos, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    stopped(vit, [str(photos)], out, monkeypatch, chunks=1)
    assert len(pd.read_csv(tmp_path / "out.csv.part")) == 4


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_a_crash_cut_short_is_written_again(vit, photos, tmp_path, monkeypatch, ending):
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    predict_command(vit, [str(photos)], out=str(whole), batch_size=2)
    stopped(vit, [str(photos)], out, monkeypatch)
    part = tmp_path / f"out.{ending}.part"
    if ending == "csv":
        with part.open("a") as file:
            file.write("half a ro")
    else:
        (part / f"{8:012}.parquet").write_bytes(b"half a file")
        (part / f"{10:012}.parquet").write_bytes(b"of another size of chunks")
    predict_command(vit, [str(photos)], out=str(out), batch_size=2)
    pd.testing.assert_frame_equal(read(out), read(whole))


def changed_model(vit, photos, tmp_path):
    other = image_model(names=("ant", "bee", "dog"))
    return str(save_model(tmp_path / "other", other))


def changed_file(vit, photos, tmp_path):
    images(3, seed=9)[2].save(photos / "01.png")
    return vit


def earlier_file(vit, photos, tmp_path):
    images(1)[0].save(photos / "00a.png")
    return vit


def fewer_files(vit, photos, tmp_path):
    for path in sorted(photos.iterdir())[3:]:
        path.unlink()
    return vit


@pytest.mark.parametrize("change", [changed_model, changed_file, earlier_file, fewer_files])
def test_rows_of_another_model_or_of_other_inputs_are_not_gone_on_with(vit, photos, tmp_path, monkeypatch, change):
    out = tmp_path / "out.jsonl"
    stopped(vit, [str(photos)], out, monkeypatch)
    before = (tmp_path / "out.jsonl.part").read_bytes()
    model = change(vit, photos, tmp_path)
    with pytest.raises(UserError, match=r"(another model|inputs).*delete .*out.jsonl.part.json.*another --out"):
        predict_command(model, [str(photos)], out=str(out), batch_size=2)
    assert (tmp_path / "out.jsonl.part").read_bytes() == before
    (tmp_path / "out.jsonl.part.json").unlink()
    predict_command(model, [str(photos)], out=str(out), batch_size=2)
    names = [json.loads(line)["input"] for line in out.read_text().splitlines()]
    assert names == [str(path) for path in sorted(photos.iterdir())]


def test_later_files_may_join_after_a_stop(vit, photos, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    stopped(vit, [str(photos)], out, monkeypatch)
    images(1)[0].save(photos / "99.png")
    predict_command(vit, [str(photos)], out=str(out), batch_size=2)
    assert len(pd.read_csv(out)) == 12


def test_tables_of_texts_go_on_too_and_a_changed_table_does_not(tmp_path, monkeypatch):
    bert = str(save_model(tmp_path / "bert", text_model()))
    table = tmp_path / "t.parquet"
    pd.DataFrame({"text": [*texts(9), None]}).to_parquet(table)
    stopped(bert, [str(table)], tmp_path / "out.csv", monkeypatch, chunks=1)
    assert predict_command(bert, [str(table)], out=str(tmp_path / "out.csv"), batch_size=2) == 1
    found = pd.read_csv(tmp_path / "out.csv")
    predictor = Predictor(load_finished(bert))
    np.testing.assert_allclose(found["score_yes"][:9], predictor.answer(texts(9)).probabilities[:, 1], atol=1e-5)
    assert found["error"].tolist()[9] == "the cell is empty"
    stopped(bert, [str(table)], tmp_path / "out.csv", monkeypatch, chunks=1)
    pd.DataFrame({"text": [*texts(10), "bad"]}).to_parquet(table)
    with pytest.raises(UserError, match="have changed since"):
        predict_command(bert, [str(table)], out=str(tmp_path / "out.csv"), batch_size=2)


def test_encoded_images_of_a_table_stay_on_disk(tmp_path):
    """Of 40 MB of images in a table, listing them holds names alone."""
    pixels = np.random.default_rng(0).bytes(1 << 20)
    pd.DataFrame({"image": [pixels] * 40}).to_parquet(tmp_path / "t.parquet")
    tracemalloc.start()
    found = gather_inputs([str(tmp_path / "t.parquet")], "image-classification")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.values) == 40 and held < 4 << 20
    assert found.part(39, 40).values[0] == pixels or found.part(39, 40).values[0]["bytes"] == pixels


def test_memory_does_not_grow_with_the_number_of_inputs(vit, tmp_path, monkeypatch):
    """With five times the images the peak of what Python and numpy hold is nearly the same."""
    peaks = []
    for count in (24, 120):
        folder = tmp_path / f"photos{count}"
        folder.mkdir()
        shown = images(8)
        for place in range(count):
            shown[place % 8].resize((200, 200)).save(folder / f"{place:03}.bmp")
        if not peaks:
            predict_command(vit, [str(folder)], out=str(tmp_path / "warm.csv"), batch_size=2)
        tracemalloc.start()
        predict_command(vit, [str(folder)], out=str(tmp_path / f"{count}.csv"), batch_size=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 120 images of 120 kB are 14 MB; their names and the bar's bookkeeping are some hundred kB.
    assert peaks[1] - peaks[0] < 1 << 20, peaks
