"""A finished model as a graph that runs without its Python code: ONNX, or torch's own exported program.

Both are made by torch's exporter (torch.export), with a batch of any size and, for texts, of any length.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hf_finetune.errors import UserError
from hf_finetune.model.quiet import quiet

LARGEST_FILE = 1 << 31  # bytes: what a protobuf file holds; beyond, the weights lie in a file beside it
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CHATTY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def check_packages() -> None:
    """Whether what ONNX needs is there.

    Raises:
        UserError: a package is missing.
    """
    lacking = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        raise UserError(f"--format onnx needs {', '.join(lacking)}: pip install 'hf_finetune[onnx]'.")


def write_onnx(model: nn.Module, example: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write a model as ONNX: inputs by their names, one output `logits` (batch, C).

    Args:
        model: a classification model on the CPU, in eval mode, without adapters.
        example: two or more samples as the model takes them.
        file: where to; weights of more than 2 GB lie in FILE.data beside it.

    Raises:
        UserError: torch cannot export this architecture.
    """
    names = {name: {0: "batch", 1: "length"} if _is_text(name) else {0: "batch"} for name in example}
    with _told(model), quiet(), _silence():
        program = torch.onnx.export(
            _Logits(model),
            (),
            kwargs=dict(example),
            dynamo=True,
            dynamic_shapes={"inputs": names},
            input_names=list(example),
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        program.save(str(file), external_data=size > 0.9 * LARGEST_FILE)


def write_program(model: nn.Module, example: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write a model as a .pt2 file: `torch.export.load(FILE).module()(**inputs)` gives the logits (batch, C).

    Args:
        model: as for `write_onnx`.
        example: as for `write_onnx`.
        file: where to.

    Raises:
        UserError: torch cannot export this architecture.
    """
    any_size = torch.export.Dim.DYNAMIC
    sizes = {name: {0: any_size, 1: any_size} if _is_text(name) else {0: any_size} for name in example}
    with _told(model), quiet(), _silence(), torch.no_grad():
        program = torch.export.export(
            _Logits(model), (), kwargs=dict(example), dynamic_shapes={"inputs": sizes}, strict=False
        )
        torch.export.save(program, file)


class OnnxModel:
    """An ONNX file on the CPU, by onnxruntime.

    Args:
        file: the model.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Logits (N, C) of a batch as the model takes it."""
        taken = {each.name for each in self.session.get_inputs()}
        given = {name: tensor.numpy() for name, tensor in inputs.items() if name in taken}
        return np.asarray(self.session.run(["logits"], given)[0], dtype=np.float32)


class ProgramModel:
    """An exported program.

    Args:
        file: the model.
    """

    def __init__(self, file: Path) -> None:
        with quiet(), _silence():
            self.module = torch.export.load(file).module()

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Logits (N, C) of a batch as the model takes it."""
        return np.asarray(self.module(**inputs).float().numpy())


class TorchModel:
    """A model as it is.

    Args:
        model: on the CPU, in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Logits (N, C) of a batch as the model takes it."""
        return np.asarray(self.model(**inputs).logits.float().numpy())


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**inputs).logits
        return logits


def _is_text(name: str) -> bool:
    return name != "pixel_values"


@contextmanager
def _told(model: nn.Module) -> Iterator[None]:
    """What torch's exporter raises, in words."""
    try:
        yield
    except UserError:
        raise
    except Exception as fault:  # the exporter raises anything, also of classes of its own
        reason = next((line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__)
        inner = getattr(model, "model", model)
        name = type(inner).__name__ if isinstance(inner, nn.Module) else type(model).__name__
        raise UserError(
            f"torch's exporter cannot make a graph of {name}: {reason[:300]}\n"
            "Its Python code does what no graph can say. hf-finetune serve runs the model as it is."
        ) from fault


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter's progress on standard output, and its advice, are nothing for a user."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _CHATTY)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
