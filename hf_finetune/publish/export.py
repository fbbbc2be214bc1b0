"""`hf-finetune export`: a finished run as a model for other programs, called good when real samples agree."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from hf_finetune.console import say, warn
from hf_finetune.data import load_data, load_test
from hf_finetune.data.streamed import is_streamed
from hf_finetune.errors import UserError
from hf_finetune.evaluation.commands import names_data, recipe_of
from hf_finetune.evaluation.metrics import compute_metrics, default_metrics
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.files import write_whole
from hf_finetune.model import load_finished, save_pretrained
from hf_finetune.model.adapter_files import has_adapters, merged
from hf_finetune.publish.export_check import Answers, Batches, Comparison, compare
from hf_finetune.publish.export_graph import (
    OnnxModel,
    ProgramModel,
    TorchModel,
    check_packages,
    write_onnx,
    write_program,
)
from hf_finetune.publish.export_inputs import PREPROCESSING, write_inputs, write_labels
from hf_finetune.publish.export_int8 import better_way, write_int8
from hf_finetune.publish.report import finished
from hf_finetune.recipes import load_recipe

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.recipes import Recipe

Format = Literal["onnx", "merged", "exported-program"]
Quantize = Literal["int8", "int8-dynamic", "int8-static"]
FORMATS: tuple[str, ...] = get_args(Format)
QUANTIZE: tuple[str, ...] = get_args(Quantize)
SAMPLES = 500
_CALIBRATION = 128  # training samples that tell the ranges of int8


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was judged.

    Args:
        folder: where it lies.
        comparison: the exported model beside the run's, in fp32.
        figures: as check.json holds them.
    """

    folder: Path
    comparison: Comparison
    figures: dict[str, Any]


@dataclass
class _Work:
    """A run's model and the samples that judge it."""

    run: Path
    recipe: Recipe
    predictor: Predictor
    test: Dataset
    batches: Batches
    labels: np.ndarray

    @property
    def model(self) -> Any:
        return self.predictor.loaded.model


def export_run(
    run: str | Path,
    format: Format = "onnx",
    *,
    quantize: Quantize | None = None,
    out: str | Path | None = None,
    samples: int = SAMPLES,
    overrides: Sequence[str] = (),
    trust_remote_code: bool = False,
) -> Exported:
    """Export a finished run and check what was written on samples of its test split.

    Args:
        run: output_dir of a finished run.
        format: `onnx`; `exported-program` (torch.export's .pt2); `merged`: adapters in the weights, a plain model.
        quantize: also an int8 model, for onnx.
        out: folder to write to; RUN/FORMAT if None.
        samples: of the test split, at most.
        overrides: `data.*` settings, where the run's data lies elsewhere now.
        trust_remote_code: allow code from the Hub that the checkpoint brings.

    Raises:
        UserError: a package is missing, the run or its data is not there, or torch cannot export the architecture.
    """
    if quantize is not None and format != "onnx":
        raise UserError(f"--quantize {quantize} makes an ONNX model: say --format onnx.")
    if samples < 2:
        raise UserError(f"--samples {samples}: at least 2.")
    if format == "onnx":
        check_packages()
    if quantize is not None and load_recipe(str(finished(Path(run)))).tasks:
        raise UserError(f"--quantize {quantize}: of several tasks no single score tells what was lost; leave it out.")
    work = _begun(finished(Path(run)), samples, overrides, trust_remote_code)
    if format == "merged" and not has_adapters(work.model):
        raise UserError(f"{run} has no adapters to merge: its folder is a plain model already.")
    folder = Path(out) if out is not None else work.run / format
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        expected = work.batches.logits(TorchModel(work.model))
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder) as scratch:
        answers = _written(work, format, Path(scratch), trust_remote_code)
        found = work.batches.logits(answers)
        comparison = compare(expected, found, work.predictor.labels, work.predictor.rule)
        figures: dict[str, Any] = {"format": format, "good": comparison.good, **asdict(comparison)}
        say(comparison.in_words())
        if quantize is not None and comparison.good:
            figures["int8"] = _int8(work, quantize, Path(scratch), found)
        if format != "merged":
            write_labels(work.predictor.labels, Path(scratch), work.predictor.rule)
            _write_inputs(work, Path(scratch), folder)
        write_whole(Path(scratch) / "check.json", json.dumps(figures, indent=2) + "\n")
        for file in sorted(Path(scratch).iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)
    return Exported(folder, comparison, figures)


def export_command(run: str, format: Format, **options: Any) -> int:
    """Export, and say how it was judged; the exit code: 0, or 1 where the exported model is another one."""
    exported = export_run(run, format, **options)
    if exported.comparison.good:
        say(f"{exported.folder}: good, the same model as {run}.")
        return 0
    warn(
        f"{exported.folder}: NOT good. The exported model is not the one in {run}: every decision has to agree, and no "
        "probability to differ by more than 0.001. Do not use it."
    )
    return 1


def _begun(run: Path, samples: int, overrides: Sequence[str], trust_remote_code: bool) -> _Work:
    loaded = load_finished(run, trust_remote_code=trust_remote_code)
    recipe = recipe_of(str(run), overrides, loaded)
    most = min(samples, recipe.data.max_eval_samples or samples)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_eval_samples": most})})
    if recipe.data.long_text == "windows" or recipe.evaluation.tta != "none":
        warn("The run averages several windows or views of a sample; the exported model reads one.")
    # The CPU, in fp32: what the figures are about is the graph, not a device's rounding.
    predictor = Predictor(loaded, recipe.data.max_length, device="cpu")
    own = not names_data(overrides)
    if recipe.data.test_split is None and own:
        test: Any = load_data(recipe).validation
    else:
        test, _ = load_test(recipe, predictor.labels, trained_by=recipe.data, own=own)
    if len(test) < 2:
        raise UserError(f"{run} has {len(test)} test samples, and nothing can be checked with them.")
    test = test.select(range(min(samples, len(test))))
    return _Work(run, recipe, predictor, test, Batches(predictor, test), np.asarray(test["label"][:]))


def _written(work: _Work, format: Format, folder: Path, trust_remote_code: bool) -> Answers:
    """Write the model, and load it again as a user would."""
    model = merged(work.model) if has_adapters(work.model) else work.model
    if format == "merged":
        save_pretrained(model, work.predictor.loaded.processor, folder)
        return TorchModel(load_finished(folder, trust_remote_code=trust_remote_code).model)
    if format == "exported-program":
        write_program(model, work.batches.example(), folder / "model.pt2")
        return ProgramModel(folder / "model.pt2")
    write_onnx(model, work.batches.example(), folder / "model.onnx")
    return OnnxModel(folder / "model.onnx")


def _int8(work: _Work, quantize: Quantize, folder: Path, plain: np.ndarray) -> dict[str, Any]:
    """Write the int8 model, and tell what it costs and saves."""
    source, target = folder / "model.onnx", folder / "model_int8.onnx"
    way: Any = better_way(source) if quantize == "int8" else quantize.removeprefix("int8-")
    write_int8(source, target, way, _calibration(work) if way == "static" else None)
    found = work.batches.logits(OnnxModel(target))
    problem, names = work.predictor.problem_type, work.predictor.names
    metric = default_metrics(problem, len(names))[0]
    rule = work.predictor.rule
    both = (rule.decisive(rule.tempered(logits)) for logits in (plain, found))
    before, after = (compute_metrics(logits, work.labels, problem, [metric])[metric] for logits in both)
    against = compare(plain, found, work.predictor.labels, rule)
    sizes = [_size(source), _size(target)]
    say(
        f"int8 ({way}): {metric} {before:.4f} before, {after:.4f} after, on {against.samples:,} samples; agreement "
        f"{against.agreement:.2%}; {sizes[0] / 1e6:.1f} MB before, {sizes[1] / 1e6:.1f} MB after"
    )
    return {
        "way": way,
        "metric": metric,
        "before": before,
        "after": after,
        "agreement": against.agreement,
        "difference": against.difference,
        "bytes_before": sizes[0],
        "bytes_after": sizes[1],
    }


def _calibration(work: _Work) -> Batches:
    """Some training samples: the test split has to stay unseen."""
    data = {"max_train_samples": min(_CALIBRATION, work.recipe.data.max_train_samples or _CALIBRATION)}
    recipe = work.recipe.model_copy(update={"data": work.recipe.data.model_copy(update=data)})
    task = load_data(recipe)
    return Batches(work.predictor, task.validation if is_streamed(task.train) else task.train)


def _size(file: Path) -> int:
    beside = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _write_inputs(work: _Work, scratch: Path, folder: Path) -> None:
    why = write_inputs(work.predictor, list(work.batches.example()), scratch)
    if why is not None:
        (folder / PREPROCESSING).unlink(missing_ok=True)
        warn(f"No {PREPROCESSING} is written: {why}. Prepare inputs with the run's own processor.")
