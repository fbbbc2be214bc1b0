"""fp32 products by the faster of torch's two CPU libraries."""

import pytest
import torch

from hf_finetune.evaluation import products
from hf_finetune.evaluation.products import fast_products, library_in_use


def test_the_block_alone_is_changed():
    before = torch.get_float32_matmul_precision()
    with fast_products():
        assert torch.get_float32_matmul_precision() == ("medium" if library_in_use() == "oneDNN" else before)
    assert torch.get_float32_matmul_precision() == before
    assert library_in_use() == "MKL"


def test_an_error_inside_leaves_nothing_behind():
    with pytest.raises(ZeroDivisionError), fast_products():
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"
    assert library_in_use() == "MKL"


@pytest.mark.parametrize("begun", ["MKL", "oneDNN"])
def test_a_run_goes_on_as_it_began_and_so_does_what_it_calls(begun):
    with fast_products(begun):
        library = library_in_use()
        assert library == begun or not products._rounds_nothing()
        with fast_products("MKL" if begun == "oneDNN" else "oneDNN"):
            assert library_in_use() == library
        assert library_in_use() == library


def test_whatever_is_chosen_computes_in_fp32():
    """bf16 would be wrong in the third digit."""
    noise = torch.Generator().manual_seed(1)
    with fast_products("oneDNN"):
        for rows, inner, columns in ((6304, 192, 768), (333, 1024, 77), (32, 192, 10)):
            x, y = torch.randn(rows, inner, generator=noise), torch.randn(columns, inner, generator=noise)
            for found, exact in (
                (x @ y.T, x.double() @ y.double().T),
                (x.T @ x, x.double().T @ x.double()),
                (torch.nn.functional.linear(x, y), x.double() @ y.double().T),
            ):
                assert float((found - exact).abs().max()) < 1e-5 * rows**0.5 * inner**0.5


@pytest.mark.parametrize("library", [None, "oneDNN"])
def test_who_has_chosen_a_precision_keeps_it(library):
    usual = products.faster_library()
    torch.set_float32_matmul_precision("high")
    try:
        with fast_products(library):
            assert library_in_use() == "MKL"
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    with fast_products():
        assert library_in_use() == usual


def test_a_library_that_rounds_is_not_taken(monkeypatch):
    """On a processor with AMX oneDNN may use it: then it computes in bf16."""
    monkeypatch.setattr(products, "_ERROR", 0.0)
    monkeypatch.setattr(products, "_gain", lambda: 10.0)
    products._rounds_nothing.cache_clear()
    try:
        for library in (None, "oneDNN"):
            with fast_products(library):
                assert library_in_use() == "MKL"
    finally:
        products._rounds_nothing.cache_clear()


@pytest.mark.parametrize(("one_dnn", "taken"), [(1.0, "MKL"), (3.0, "oneDNN")])
def test_the_quicker_library_is_taken(one_dnn, taken, monkeypatch):
    """A clock on which oneDNN is so many times faster."""
    now = [0.0]
    own = torch.mm

    def mm(x, y):
        now[0] += 1.0 if torch.get_float32_matmul_precision() == "highest" else 1.0 / one_dnn
        return own(x, y)

    monkeypatch.setattr(products, "_rounds_nothing", lambda: True)
    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(products.time, "perf_counter", lambda: now[0])
    products._gain.cache_clear()
    try:
        assert products.faster_library() == ("MKL" if torch.cuda.is_available() else taken)
    finally:
        products._gain.cache_clear()
