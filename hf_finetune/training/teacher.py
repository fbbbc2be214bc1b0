"""The model that teaches: its labels in the data's order, its answers, and the features that they come from.

The teacher may be of another family than the student. It reads rows through its own processor, and batches that were
changed at random as the student sees them, in its own size and normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_finetune.console import is_main_process, is_muted, warn
from hf_finetune.data import TEXT_OF_WINDOW, TextCollator, collate_images, image_samples, normalized
from hf_finetune.errors import TransientError, UserError
from hf_finetune.evaluation.label_names import is_unnamed
from hf_finetune.evaluation.predict import longest_first
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.evaluation.read import mean_of_each, read
from hf_finetune.model import load_finished
from hf_finetune.model.custom_layers import MlpHead
from hf_finetune.model.heads import output_layer, seeded
from hf_finetune.runs import Run
from hf_finetune.stopping import deaf_worker
from hf_finetune.training.checkpoints import digest_of_frozen

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.data import LabelSpace
    from hf_finetune.recipes.schema import Recipe

Batch = Mapping[str, torch.Tensor]


class Answers(NamedTuple):
    """Logits (N, C) in the order of the data's labels, and unit vectors of features (N, F) where they are wanted."""

    logits: torch.Tensor
    features: torch.Tensor | None


class Teacher:
    """A finished model that answers; frozen, in eval mode.

    Args:
        name: as the recipe gives it.
        predictor: the model, and how it reads texts.
        places: for each of the data's labels, the number of the model's output.
        with_features: whether features are wanted beside logits.
    """

    def __init__(self, name: str, predictor: Predictor, places: Sequence[int], with_features: bool) -> None:
        self.name, self.predictor, self.places = name, predictor, list(places)
        self.model = predictor.loaded.model.eval().requires_grad_(False)
        self.digest = digest_of_frozen(self.model)
        self.output = _output_of(predictor) if with_features else None

    @property
    def width(self) -> int:
        """Number of features, F."""
        output: Any = self.output
        return int(output.in_features if hasattr(output, "in_features") else output.in_channels)

    @torch.no_grad()
    def __call__(self, batch: Batch, at_once: int | None = None) -> Answers:
        """Answers to a batch as the teacher's own collator gives it, on its device; labels are not looked at."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        with inputs_of(self.output) as seen:
            logits = read(self.model, inputs, at_once=at_once).logits.float()[:, self.places]
        if self.output is None:
            return Answers(logits, None)
        return Answers(logits, nn.functional.normalize(pooled(seen, inputs), dim=-1))

    def samples(self, rows: Dataset) -> tuple[Any, Callable[[list[Any]], dict[str, torch.Tensor]]]:
        """Rows (column image, or text and perhaps text_pair) as the teacher takes them, and their collator."""
        processor = self.predictor.loaded.processor
        rows = rows.remove_columns([name for name in ("label",) if name in rows.column_names])
        if self.predictor.task == "image-classification":
            return image_samples(rows, processor), collate_images
        return self.predictor.texts(rows), TextCollator(processor)

    def answer_all(self, rows: Dataset, device: torch.device, batch_size: int, workers: int, what: str) -> Answers:
        """Answers to all rows in their order, on the CPU; several processes share the work.

        Args:
            rows: as for `samples`.
            device: where to run.
            batch_size: rows at a time.
            workers: processes that read samples.
            what: words for the progress bar.
        """
        samples, collate = self.samples(rows)
        self.model.to(device)
        together = distributed.is_available() and distributed.is_initialized()
        rank, processes = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        mine = [int(row) for row in longest_first(samples)[rank::processes]]
        loader = DataLoader(
            samples,
            batch_size,
            sampler=mine,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=deaf_worker(None),
        )
        parts: list[Answers] = []
        for batch in tqdm(loader, desc=what, unit="batch", leave=False, disable=is_muted() or not is_main_process()):
            answers = self(normalized({name: value.to(device) for name, value in batch.items()}), batch_size)
            parts.append(Answers(answers.logits.cpu(), None if answers.features is None else answers.features.cpu()))
        found: list[Any] = [(mine, parts)]
        if processes > 1:
            found = [None] * processes
            distributed.all_gather_object(found, (mine, parts))
        places = torch.tensor([row for shard, _ in found for row in shard])
        logits = torch.cat([logits for _, shard in found for logits, _ in shard])
        in_order = torch.argsort(places)
        if self.output is None:
            return Answers(logits[in_order], None)
        # Unit vectors: 16 bits hold them, in half the memory.
        features = torch.cat([features for _, shard in found for _, features in shard])
        return Answers(logits[in_order], features[in_order].half())


def load_teacher(recipe: Recipe, labels: LabelSpace, trust_remote_code: bool) -> Teacher:
    """The teacher that `distill.teacher` names.

    Raises:
        UserError: no such model, one for another task or kind of answer, or one with other labels.
    """
    settings = recipe.distill
    if settings is None:
        raise UserError("The recipe has no distill section.")
    name, folder = settings.teacher, Path(settings.teacher)
    where = f"distill.teacher={name}"
    try:
        own = Run.load(folder).recipe if (folder / "recipe.yaml").is_file() else None
        with seeded(recipe.seed):
            loaded = load_finished(name, revision=settings.revision, trust_remote_code=trust_remote_code)
    except UserError as fault:
        kind = TransientError if isinstance(fault, TransientError) else UserError
        raise kind(f"distill.teacher: {fault}") from fault
    predictor = Predictor.of(loaded, own)
    if predictor.task != recipe.task:
        raise UserError(f"{where} is for {predictor.task}, and the task is {recipe.task}: give another teacher.")
    if predictor.problem_type != labels.problem_type:
        there, here = (kind.replace("_", " ") for kind in (predictor.problem_type, labels.problem_type))
        raise UserError(f"{where} answers {there}, and the data is {here}: give a teacher of the same kind.")
    places = places_of(labels, predictor.names, where)
    return Teacher(name, predictor, places, settings.on != "logits")


def places_of(labels: LabelSpace, names: Sequence[str], where: str) -> list[int]:
    """For each of the data's labels, the number of the teacher's output of that name; upper case is as lower case.

    Args:
        labels: of the data.
        names: of the teacher's outputs, in their order.
        where: what the message begins with.

    Raises:
        UserError: the two do not have the same names; both are listed.
    """
    same_count = len(names) == labels.num_labels
    if same_count and labels.problem_type == "regression" and len(names) == 1:
        return [0]
    if same_count and all(map(is_unnamed, names)) and not all(map(is_unnamed, labels.names)):
        warn(f"{where} does not name its labels; taken in the data's order: {_listed(labels.names)}.")
        return list(range(len(names)))
    for plain in (str, str.casefold):
        there, here = [plain(name) for name in names], [plain(name) for name in labels.names]
        if len(set(there)) == len(there) and sorted(there) == sorted(here):
            return [there.index(name) for name in here]
    raise UserError(
        f"{where} has other labels than the data, so that its answers mean something else.\n"
        f"  teacher ({len(names):,}): {_listed(names)}\n  data ({labels.num_labels:,}): {_listed(labels.names)}\n"
        "Give a teacher that was fine-tuned on these labels (their order does not matter)."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) if len(names) <= 20 else ", ".join(names[:8]) + ", ..."


def _output_of(predictor: Predictor) -> nn.Module:
    loaded = predictor.loaded
    layer: Any = loaded.model.get_submodule(output_layer(loaded.model, loaded.anatomy))
    return layer.output if isinstance(layer, MlpHead) else layer


@contextmanager
def inputs_of(layer: nn.Module | None) -> Iterator[list[torch.Tensor]]:
    """What a layer receives in the block, one tensor a call; nothing where there is no layer."""
    seen: list[torch.Tensor] = []
    if layer is None:
        yield seen
        return
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


def pooled(seen: Sequence[torch.Tensor], inputs: Batch) -> torch.Tensor:
    """Features (N, F) float32 from what the output layer received for a batch.

    Maps of 1x1 convolutions are averaged. A family that answers at every token (GPT-2) is read at the last one that is
    not padding, as its classifier does. Windows of one text are averaged, as their logits are.
    """
    features = torch.cat(list(seen)).float()
    if features.ndim == 4:
        features = features.mean((2, 3))
    if features.ndim == 3:
        mask = inputs["attention_mask"]
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(-1)
        features = features[torch.arange(len(features), device=features.device), last.to(features.device)]
    owners = inputs.get(TEXT_OF_WINDOW)
    return features if owners is None else mean_of_each(features, owners)
