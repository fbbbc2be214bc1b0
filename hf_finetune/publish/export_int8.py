"""An ONNX model whose weights, and the numbers between its layers, are of 8 bits; made by onnxruntime.

Two ways. Dynamic: the matrix products alone, and each batch finds the range of its own numbers. Static: convolutions
and products, with the ranges of some training samples. Transformers want the first, convolutional nets the second:
docs/export.md has figures.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hf_finetune.model.quiet import quiet

if TYPE_CHECKING:
    from hf_finetune.publish.export_check import Batches

Way = Literal["dynamic", "static"]


def better_way(source: Path) -> Way:
    """Static where most weights are of convolutions, else dynamic."""
    import onnx

    graph = onnx.load(str(source), load_external_data=False).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    counts = {"Conv": 0, "other": 0}
    for node in graph.node:
        kind = "Conv" if node.op_type == "Conv" else "other"
        counts[kind] += sum(sizes.get(name, 0) for name in node.input)
    return "static" if counts["Conv"] > counts["other"] else "dynamic"


def write_int8(source: Path, target: Path, way: Way, calibration: Batches | None = None) -> None:
    """Write an int8 model.

    Args:
        source: the fp32 model.
        target: where to.
        way: see the module's first lines.
        calibration: samples that tell the ranges; for `static`.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch, quiet(), _silence():
        ready = Path(scratch) / "ready.onnx"
        # BatchNorm goes into the convolutions before it, so that a layer has one weight and one range.
        quant_pre_process(_without_shapes(source, Path(scratch)), str(ready), skip_symbolic_shape=True)
        if way == "dynamic":
            quantization.quantize_dynamic(
                ready,
                target,
                op_types_to_quantize=["MatMul", "Gemm", "Attention"],
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
            )
        else:
            assert calibration is not None
            quantization.quantize_static(
                ready,
                target,
                _reader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )


def _without_shapes(source: Path, scratch: Path) -> str:
    """The model without the shapes that torch has written into it: onnxruntime infers its own, and stumbles on them."""
    import onnx

    model = onnx.load(str(source))
    del model.graph.value_info[:]
    plain = scratch / "plain.onnx"
    large = model.ByteSize() > 1 << 30
    onnx.save(model, str(plain), save_as_external_data=large)
    return str(plain)


def _reader(batches: Batches) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # a class of an untyped library
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            _, batch = next(self.batches, (None, None))
            return None if batch is None else {name: tensor.numpy() for name, tensor in batch.items()}

    return Reader()


@contextmanager
def _silence() -> Iterator[None]:
    """The quantizer advises what has been done already, through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
