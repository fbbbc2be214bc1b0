"""What only shows a run stops nothing: card and pictures, models that cannot be asked, meters, tables on terminals."""

import json
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_samples import image_model, text_model
from report_samples import run_of
from test_publish_save import save
from torch import nn

from hf_finetune.evaluation.attribution_images import explain_images
from hf_finetune.evaluation.attribution_texts import explain_texts
from hf_finetune.publish import card_pictures
from hf_finetune.publish import save as saving
from hf_finetune.publish.report_data import read_data
from hf_finetune.training import progress
from hf_finetune.training.energy import Energy

# --- a finished run is not lost by what only shows it ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["card_pictures", "about_run", "public_recipe", "model_card"])
def test_what_only_shows_a_run_does_not_lose_it(tmp_path, monkeypatch, capsys, name):
    def fail(*given, **named):
        raise ValueError("no ink")

    monkeypatch.setattr(saving, name, fail)
    folder, *_ = save(tmp_path / "run", image_model())
    assert json.loads((folder / "metrics.json").read_text())["test"]["samples"] == 14
    assert (folder / "model.safetensors").exists() and (folder / "report.html").exists()
    assert "was not made: ValueError: no ink. The run itself is complete" in capsys.readouterr().err
    assert (folder / "README.md").exists() is (name in ("card_pictures", "about_run"))
    assert (folder / "about.json").exists() is (name != "about_run")


def test_the_page_names_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    folder, *_ = save(tmp_path / "run", image_model(), output_dir=str(tmp_path / "alice" / "runs" / "x"))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "~/runs/x" in page and "alice" not in page


def test_a_class_with_a_line_break_in_its_name_is_drawn_in_one_line():
    two = np.array([[3, 1], [0, 4]])
    broken = card_pictures.confusion_matrix(two, ["tabby\ncat", "dog\r\n"])
    assert broken == card_pictures.confusion_matrix(two, ["tabby cat", "dog"])


# --- models that cannot be asked ------------------------------------------------------------------------------------


class Mean(nn.Module):
    """Two classes by the mean of a feature map; fails as it is told."""

    def __init__(self, fault=None, above=0):
        super().__init__()
        self.conv, self.fault, self.above, self.asked = nn.Conv2d(3, 2, 4, stride=4), fault, above, []

    def forward(self, pixel_values):
        self.asked.append(len(pixel_values))
        if self.fault is not None and len(pixel_values) > self.above:
            raise self.fault
        return SimpleNamespace(logits=self.conv(pixel_values).relu().mean(dim=(2, 3)))


def images_of(count):
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.rand(3, 32, 32, generator=generator)} for _ in range(count)]


def test_an_architecture_that_fails_gives_a_sentence():
    found = explain_images(Mean(RuntimeError("windows must be\nsquare")), images_of(3), [0] * 3)
    assert not found.found and not found.method
    assert "failed (RuntimeError: windows must be)" in found.skipped
    _, tokenizer = text_model()

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(len(tokenizer), 2)

        def get_input_embeddings(self):
            return self.table

        def forward(self, **given):
            raise KeyError("bbox")

    found = explain_texts(Odd(), tokenizer, [("good",)], [0])
    assert not found.found and not found.method and "KeyError: 'bbox'" in found.skipped


def test_a_batch_that_memory_does_not_hold_is_halved():
    torch.manual_seed(0)
    model = Mean(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), above=2)
    found = explain_images(model, images_of(7), [0, 1, 0, 1, 0, 1, 0])
    assert model.asked == [7, 3, 1, 1, 1, 1, 1, 1, 1] and not found.skipped and found.found
    none = explain_images(Mean(torch.OutOfMemoryError("CUDA out of memory. Tried")), images_of(2), [0, 0])
    assert "OutOfMemoryError" in none.skipped and not none.found


def test_time_is_looked_at_inside_a_batch(monkeypatch):
    from hf_finetune.evaluation import attribution

    now = [0.0]
    monkeypatch.setattr(attribution.time, "monotonic", lambda: now[0])
    model = Mean()
    reached = []

    def slow(*given):
        now[0] += 100.0

    model.conv.register_forward_hook(slow)
    model.then = nn.Identity()
    model.then.register_forward_hook(lambda *given: reached.append(1))
    first = model.forward
    model.forward = lambda pixel_values: SimpleNamespace(logits=model.then(first(pixel_values).logits))
    found = explain_images(model, images_of(3), [0] * 3, seconds=60.0)
    assert "0 of 3" in found.skipped and not reached


def test_the_page_reads_what_about_json_has_and_what_an_older_report_json_had(tmp_path):
    about = {"history": [{"loss": 1.0, "epoch": 1.0}], "strategy_table": "part  learns", "versions": {"torch": "2"},
             "machine": "a computer", "rows": {"train": 5}, "local": ["/home/alice"]}  # fmt: skip
    (tmp_path / "about.json").write_text(json.dumps(about))
    assert read_data(tmp_path) == {}  # without report.json there is no page to speak of
    (tmp_path / "report.json").write_text(json.dumps({"format": 1, "data": {"labels": []}}))
    told = {
        "history": about["history"], "strategy": "part  learns", "versions": {"torch": "2"},
        "machine": "a computer", "data": {"rows": {"train": 5}, "labels": []},
    }  # fmt: skip
    assert read_data(tmp_path) == {"format": 1, **told}
    (tmp_path / "about.json").unlink()
    (tmp_path / "report.json").write_text(json.dumps({"format": 1, **told}))
    assert read_data(tmp_path) == {"format": 1, **told}


# --- while it runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "err"), [(True, True), (False, True), (True, False), (False, False)])
def test_the_table_needs_a_terminal_on_both_ends(monkeypatch, out, err):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.sys, "stdout", SimpleNamespace(isatty=lambda: out))
    monkeypatch.setattr(progress.sys, "stderr", SimpleNamespace(isatty=lambda: err))
    assert progress.at_a_terminal() is (out and err)


METER = """
import threading

class OfflineEmissionsTracker:
    def __init__(self, **given):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.over.wait, name="meter")  # no daemon, as codecarbon's

    def start(self):
        self.thread.start()
        if FAILS:
            raise OSError("no counter")

    def stop(self):
        self.over.set()
        self.thread.join()
        self.final_emissions_data = type("Data", (), {"energy_consumed": 0.5})
"""


def meters():
    return [thread for thread in threading.enumerate() if thread.name == "meter"]


@pytest.fixture
def meter(tmp_path, monkeypatch, request):
    (tmp_path / "codecarbon.py").write_text(f"FAILS = {getattr(request, 'param', False)}\n{METER}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "codecarbon", raising=False)
    yield getattr(request, "param", False)
    sys.modules.pop("codecarbon", None)


@pytest.mark.parametrize("meter", [False, True], indirect=True)
def test_a_meter_keeps_no_failed_process_alive(meter):
    with pytest.raises(RuntimeError, match="diverged"), Energy() as energy:
        assert (energy._tracker is None) is meter
        raise RuntimeError("diverged")
    assert not meters() and energy.stop() == {}


def test_a_run_that_fails_leaves_no_meter_behind(tmp_path, monkeypatch, meter):
    seen = []

    def fail(self, **given):
        seen.extend(meters())
        raise RuntimeError("diverged")

    monkeypatch.setattr("hf_finetune.training.trainer.FinetuneTrainer.train", fail)
    with pytest.raises(RuntimeError, match="diverged"):
        run_of(tmp_path, "vit")
    assert len(seen) == 1 and not meters()
