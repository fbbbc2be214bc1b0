"""What a measurement has chosen once is chosen again on the same machine."""

from __future__ import annotations

import pytest
import torch

from hf_finetune.training.known_kernels import known


def measured(*answers):
    left = list(answers)
    return lambda: left.pop(0)


def test_a_choice_is_measured_once():
    """Two runs of one recipe ended with other last bits, where a busy machine made a measurement go the other way."""
    measure = measured("oneDNN", "MKL")
    assert [known("products", measure) for _ in range(3)] == ["oneDNN"] * 3
    assert known("attention beside oneDNN", measured("pairs")) == "pairs"
    assert known("attention beside MKL", measured("fused")) == "fused"


def test_with_other_threads_it_is_measured_anew():
    threads = torch.get_num_threads()
    known("products", measured("oneDNN"))
    torch.set_num_threads(threads + 1)
    try:
        assert known("products", measured("MKL")) == "MKL"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_file_that_is_no_answer_is_none(content, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path))
    (tmp_path / "kernels.json").write_text(content)
    assert known("products", measured("MKL")) == "MKL"
    assert known("products", measured()) == "MKL"


def test_where_nothing_can_be_written_it_is_measured_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "file"))
    assert [known("products", measured(answer)) for answer in ("MKL", "oneDNN")] == ["MKL", "oneDNN"]
