"""fp32 products by the faster of torch's two CPU libraries."""

import pytest
import torch

from hf_finetune.evaluation import products
from hf_finetune.evaluation.products import fast_products, library_in_use


def test_the_block_alone_is_changed():
    before = torch.get_float32_matmul_precision()
    with fast_products() as library:
        assert library_in_use() == library
        assert torch.get_float32_matmul_precision() == ("medium" if library == "oneDNN" else before)
    assert torch.get_float32_matmul_precision() == before
    assert library_in_use() == "MKL"


def test_an_error_inside_leaves_nothing_behind():
    with pytest.raises(ZeroDivisionError), fast_products():
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"
    assert library_in_use() == "MKL"


@pytest.mark.parametrize("begun", ["MKL", "oneDNN"])
def test_a_run_goes_on_as_it_began_and_so_does_what_it_calls(begun):
    with fast_products(begun) as library:
        assert library == begun or not products._rounds_nothing()
        with fast_products("MKL" if begun == "oneDNN" else "oneDNN") as inner:
            assert inner == library
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


def test_who_has_chosen_a_precision_keeps_it():
    products._rounds_nothing.cache_clear()
    products._faster.cache_clear()
    torch.set_float32_matmul_precision("high")
    try:
        with fast_products() as library:
            assert library == "MKL"
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
        products._rounds_nothing.cache_clear()
        products._faster.cache_clear()


def test_a_library_that_rounds_is_not_taken(monkeypatch):
    """On a processor with AMX oneDNN may use it: then it computes in bf16."""
    monkeypatch.setattr(products, "_ERROR", 0.0)
    products._rounds_nothing.cache_clear()
    products._faster.cache_clear()
    try:
        with fast_products() as library:
            assert library == "MKL"
        with fast_products("oneDNN") as library:
            assert library == "MKL"
    finally:
        products._rounds_nothing.cache_clear()
        products._faster.cache_clear()
