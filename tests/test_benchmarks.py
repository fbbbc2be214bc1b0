"""The benchmarks run at toy size, start from the same weights and pixels, and their tables say what the results say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
# Contestants of each script that are tried here: every file that contestants are made of, at least once.
SCRIPTS = {
    "head": ["ours", "ours, another head", "sklearn", "bare"],
    "freeze": ["ours", "plain bf16", "bare"],
    "full": ["ours", "timm"],
    "text": ["ours", "plain, dynamic padding, bf16", "bare"],
    "whole_cifar": ["ours"],
    "startup_memory": ["ours", "ours, accelerate launch", "plain"],
    "gpu": ["ours", "ours, changed on the device", "bare, synthetic data", "timm"],
}
IN_CI = ("gpu",)  # the others take as long again
CONTESTS = {"full": "full-vit", "startup_memory": "startup", "gpu": "gpu-vit-cifar-full"}


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def record(rounds, **more):
    circumstances = {"date": "2026-01-01", "hardware": "a machine", "commit": "0", "versions": {"torch": "2"}}
    plain = {"contest": "x", "title": "X.", "scale": "full", "threads": "all", "bars": [], "facts": {}}
    return {**plain, **circumstances, "rounds": rounds, **more}


def bar(**more):
    from harness import Bar

    return vars(Bar(**{"words": "times faster", "of": "plain", "measure": "seconds", "over": "ours", **more}))


def run(seconds, **more):
    return {"seconds": seconds, "accuracy": 0.8, "test_rows": 100, **more}


def test_a_ratio_is_taken_within_each_round():
    from measures import medians, value_of

    # The machine was three times slower in the second round: the ratio of the medians would be 10 over 4.
    rounds = [{"ours": run(2), "plain": run(10)}, {"ours": run(6), "plain": run(30)}, {"ours": run(4), "plain": run(8)}]
    assert value_of(record(rounds), bar(at_least=5)) == (5, 3)
    assert medians(record(rounds))["ours"]["seconds"] == 4


def test_a_round_without_a_contestant_is_left_out_of_its_ratios():
    from measures import value_of

    rounds = [{"ours": run(2), "plain": run(10)}, {"ours": run(1)}]
    assert value_of(record(rounds), bar(at_least=5)) == (5, 1)
    assert value_of(record([{"ours": run(2)}]), bar(at_least=5)) is None


def test_a_difference_over_another_measure():
    from measures import value_of

    rounds = [{"ours": run(20), "warm": run(8), "bare": run(30, fill_seconds=10)}]
    promised = bar(of="ours", minus="warm", over="bare", over_measure="fill_seconds", at_most=1.25)
    assert value_of(record(rounds), promised) == (1.2, 1)


def test_the_table_judges_each_bar_and_the_accuracy():
    from tables import contest_table

    rounds = [{"ours": run(2), "plain": run(10)}]
    text = contest_table(record(rounds, bars=[bar(at_least=4), bar(at_least=6), bar(of="nobody", at_least=1)]))
    assert "**5.00** (at least 4; met; 1 round)" in text
    assert "**5.00** (at least 6; **not met**; 1 round)" in text
    assert "at least 1; not run yet." in text
    assert "accuracy: ours 0.8000, plain 0.8000" in text
    worse = [{"ours": run(2) | {"accuracy": 0.5}, "plain": run(10)}]
    assert contest_table(record(worse)).count("**not met**") == 1


def test_wilson_holds_its_share():
    from measures import wilson

    low, high = wilson(0.8, 2000)
    assert low == pytest.approx(0.7819, abs=2e-4) and high == pytest.approx(0.8169, abs=2e-4)
    assert wilson(0.0, 10)[0] == pytest.approx(0) and wilson(1.0, 10)[1] == pytest.approx(1)


@pytest.mark.parametrize("folder", [pytest.param("benchmarks", marks=pytest.mark.slow), "."])
def test_a_readme_is_what_the_results_say(folder):
    from tables import PAGES, written

    file = next(page for page in PAGES if page == (BENCHMARKS.parent / folder / "README.md").resolve())
    page = file.read_text(encoding="utf-8")
    assert "<!-- table: " in page and written(page) == page, "python benchmarks/tables.py"


def test_results_name_no_machine_and_no_path():
    for file in (BENCHMARKS / "results").glob("*.json*"):
        text = file.read_text(encoding="utf-8")
        assert os.uname().nodename not in text and str(Path.home()) not in text, file
        assert '"/' not in text, file


def test_a_techniques_difference_is_of_the_same_rows():
    from techniques_table import paired

    def line(seed, right):
        return {"seed": seed, "correct": np.packbits(right).tobytes().hex(), "test": {"samples": len(right)}}

    ours, theirs = [line(0, [1, 1, 1, 0]), line(1, [1, 0, 1, 1])], [line(0, [1, 0, 0, 0]), line(2, [1, 1, 1, 1])]
    mean, low, high = paired(ours, theirs)
    assert mean == 0.5 and low <= mean <= high
    assert paired(ours, [line(7, [1, 1, 1, 1])]) is None


def test_no_script_is_named_like_a_package():
    """A script's folder comes first on sys.path: transformers asks for `kernels`, and found benchmarks/kernels.py."""
    packages = {"kernels", "timm", "peft", "datasets", "evaluate", "matplotlib", "gradio", "wandb", "trackio"}
    for script in (*BENCHMARKS.glob("*.py"), *BENCHMARKS.glob("*/__init__.py")):
        name = script.stem if script.stem != "__init__" else script.parent.name
        assert name not in packages | set(sys.stdlib_module_names), script


def test_every_technique_is_a_valid_recipe(tmp_path):
    from techniques import _recipe_file
    from techniques_problems import PROBLEMS

    from hf_finetune import load_recipe

    for name, problem in PROBLEMS.items():
        file = _recipe_file(tmp_path / name, name, "full")
        for technique in problem.techniques:
            load_recipe(str(file), *technique.overrides, "seed=1", f"output_dir={tmp_path}/run")


def test_timm_starts_from_the_same_weights(tmp_path):
    import torch
    from timm_loop import timm_vit
    from transformers import ViTForImageClassification

    checkpoint = BENCHMARKS.parent / "hf_finetune" / "assets" / "digits-vit"
    source = ViTForImageClassification.from_pretrained(checkpoint).eval()
    same = timm_vit(str(checkpoint), 10).eval()
    same.head.load_state_dict(source.classifier.state_dict())
    pixels = torch.randn(2, 3, source.config.image_size, source.config.image_size)
    with torch.no_grad():
        assert torch.allclose(same(pixels), source(pixels).logits, atol=1e-5)


def test_the_bare_loop_sees_what_the_processor_gives(tmp_path):
    import torch
    from bare_pixels import View
    from PIL import Image
    from transformers import ViTImageProcessor

    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path)
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((32, 32))
    expected = ViTImageProcessor.from_pretrained(tmp_path)(smooth, return_tensors="pt")["pixel_values"]
    seen = View.of(str(tmp_path))(torch.from_numpy(np.array(smooth)).permute(2, 0, 1)[None], False)
    assert float((seen - expected).abs().mean()) < 2 / 255


def started(name, tmp_path, *options):
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--scale", "toy", "--rounds", "1", "--threads", "1"]
    command += ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results"), *options]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550, check=False
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long) for name in SCRIPTS]
)
def test_every_script_runs_at_toy_size(name, tmp_path):
    some = [word for contestant in SCRIPTS[name] for word in ("--only", contestant)]
    some += ["--contest", CONTESTS[name]] if name in CONTESTS else []
    done = started(name, tmp_path, *some)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    for file in (tmp_path / "results").iterdir():
        results = json.loads(file.read_text())
        assert sorted(results["rounds"][0]) == sorted(SCRIPTS[name])
        for measures in results["rounds"][0].values():
            assert measures["seconds"] > 0 and measures["peak_mb"] > 0 and 0 <= measures["accuracy"] <= 1
    again = started(name, tmp_path, *some)
    assert "round 1" not in again.stdout, "finished runs are not run again"


@pytest.mark.slow
def test_techniques_resume(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "techniques.py"), "--scale", "toy", "--problems", "fashion_mnist"]
    command += ["--seeds", "1", "--out", "out.jsonl", "--techniques", "scratch,distillation"]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=500)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["technique"] for line in lines] == ["scratch", "distillation"]
