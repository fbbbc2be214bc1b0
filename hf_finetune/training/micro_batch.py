"""`training.auto_find_batch_size`: the largest part of a batch that fits into memory at once.

The recipe's batch is what one optimizer step sees on a process: `per_device_train_batch_size` times
`gradient_accumulation_steps`. It stays, and so do the steps and the rows of each; what is looked for is how many rows
go through the model together. transformers' own option makes the batch itself smaller, by a tenth at a time, and so
changes the number of steps without a word.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from torch import distributed
from torch.utils.data import RandomSampler, Sampler

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.evaluation.predict import longest_first
from hf_finetune.training.dry_run import batch_of, untouched
from hf_finetune.training.out_of_memory import OutOfMemory, forget, is_out_of_memory
from hf_finetune.training.precision import launcher_shards_the_model

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Recipe
    from hf_finetune.training.folder import RunFolder
    from hf_finetune.training.trainer import FinetuneTrainer


class WholeBatches(Sampler[int]):
    """The first rows of another order.

    Args:
        order: a sampler.
        rows: how many.
    """

    def __init__(self, order: Any, rows: int) -> None:
        self.order, self.rows = order, rows

    def set_epoch(self, epoch: int) -> None:
        """Pass on which pass over the data comes next."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        for _, row in zip(range(self.rows), self.order, strict=False):
            yield row


def settle_batch(trainer: FinetuneTrainer, recorded: Mapping[str, Any] | None = None, most: int | None = None) -> None:
    """With `training.auto_find_batch_size`: find the rows that go through the model at once, and accumulate the rest.

    Tried is a whole step, forward and backward, of the longest rows, beside the memory that the optimizer will take.
    All processes take what fits on the least of them.

    Args:
        trainer: before training.
        recorded: facts of the run that this one goes on with, which keeps its "micro_batch".
        most: rows at once, since more have turned out not to fit.

    Raises:
        UserError: not even one row fits, or FSDP or DeepSpeed shards the model.
    """
    args = trainer.args
    if not args.auto_find_batch_size:
        return
    if launcher_shards_the_model():
        raise UserError("training.auto_find_batch_size is not for FSDP or DeepSpeed: give the batch size yourself.")
    args.auto_find_batch_size = False  # transformers' own way
    given, whole = args.train_batch_size, args.train_batch_size * args.gradient_accumulation_steps
    total: int = len(trainer.train_dataset)  # type: ignore[arg-type]
    # Of an epoch the last short batch is left out; the same rows must be, whatever goes through the model at once.
    rows = total // args.world_size // given * given if args.dataloader_drop_last else 0
    sizes = [size for size in range(whole, 0, -1) if whole % size == 0 and rows % size == 0]
    sizes = [size for size in sizes if most is None or size <= most]
    found = (recorded or {}).get("micro_batch")
    found = found if found in sizes or (found and most is None) else _largest(trainer, sizes)
    if found not in sizes:
        raise UserError(
            f"Not even one row of this model fits into the memory of {args.device}. Use training.gradient_"
            "checkpointing=true, a smaller model, or smaller inputs (model.image_size, data.max_length)."
        )
    if args.dataloader_drop_last and rows * args.world_size < total:
        trainer.sampler = WholeBatches(_order(trainer), rows * args.world_size)
    args.per_device_train_batch_size, args.gradient_accumulation_steps = found, whole // found
    trainer._train_batch_size = trainer.micro_batch = found
    say(f"batch: {whole} rows a step and process, {found} of them at once (training.auto_find_batch_size)")


def fewer_at_once(recipe: Recipe, folder: RunFolder, fault: OutOfMemory) -> bool:
    """After a step that did not fit though its size was tried: whether the run goes on with fewer rows at once.

    Then the folder knows how many they may be at most. What a failed step has left on the device is let go. Several
    processes cannot agree on it in the middle of a step: there a launcher with restarts starts them again.

    Args:
        recipe: of the run.
        folder: of the run.
        fault: what ended it.
    """
    tried = folder.rows_at_once
    if not (recipe.training.values().get("auto_find_batch_size") and fault.in_step and tried and tried > 1):
        return False
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return False
    folder.most_at_once = tried - 1
    forget(fault)
    say(f"batch: {tried} rows at once did not fit after all; going on from the last checkpoint with fewer.")
    return True


def _order(trainer: FinetuneTrainer) -> Any:
    """The order of the training rows; a plain shuffle as accelerate would make it, the same on every process."""
    order: Any = trainer._get_train_sampler()
    if not isinstance(order, RandomSampler):
        return order
    return SeedableRandomSampler(trainer.train_dataset, data_seed=trainer.args.data_seed)


def _largest(trainer: FinetuneTrainer, sizes: list[int]) -> int:
    """The first of the sizes that fits on every process; 0 where none does."""
    with untouched(trainer):
        for size in sizes:
            fits = torch.tensor([int(_fits(trainer, size))], device=trainer.args.device)
            if trainer.args.world_size > 1:
                torch.distributed.all_reduce(fits, op=torch.distributed.ReduceOp.MIN)
            if fits.item():
                return size
    return 0


def _fits(trainer: FinetuneTrainer, size: int) -> bool:
    """Whether a step of the longest rows fits into memory beside gradients and an optimizer's two averages."""
    learning = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    longest = np.resize(longest_first(trainer.train_dataset)[:size], size).tolist()
    kept: Any = None
    try:
        kept = [torch.empty_like(parameter) for parameter in learning for _ in range(2)]
        trainer.compute_loss(trainer.model, batch_of(trainer, longest)).backward()
        return True
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as fault:
        if not is_out_of_memory(fault):
            raise
        return False
    finally:
        del kept
        trainer.model.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
