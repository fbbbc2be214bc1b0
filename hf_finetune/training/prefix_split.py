"""The features of one split: where they are kept, whether they are still right, and computing them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import BaseFileLock, Timeout

from hf_finetune import prefix_store as store
from hf_finetune.console import say, warn
from hf_finetune.data.folds import POOL
from hf_finetune.data.roles import ROLES
from hf_finetune.disk import size_in_words
from hf_finetune.errors import TransientError
from hf_finetune.model.attention import attention_in_use
from hf_finetune.model.replay import Replay
from hf_finetune.training.agreement import as_the_first, together
from hf_finetune.training.prefix_cache import Features, starts_of
from hf_finetune.training.prefix_fill import Prefix, fill
from hf_finetune.training.prefix_key import digest_of_prefix, key_of, number_facts, place_of
from hf_finetune.training.prefix_pool import samples_of
from hf_finetune.training.prefix_probes import probe_rows
from hf_finetune.training.watchdog import beat

if TYPE_CHECKING:
    from hf_finetune.strategy.prefix import FrozenPrefix
    from hf_finetune.training.prefix_setup import Making

_PATIENCE = 30.0  # seconds that one process waits for a lock, and the others in a collective for it
_TOLERANCE = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.02}  # mean difference over mean size, of the same features


class NotKept(Exception):
    """Features cannot be kept here, for a reason in words; the same one on all processes."""


class SplitFeatures:
    """The features of one split: their key, their size, and how to come by them.

    Args:
        making: the run that they are for.
        replay: what is kept, and how it is computed.
        prefix: what runs once.
        number: 0 for training, 1 for validation, 2 for test, 3 for the fold that is held out.
    """

    def __init__(self, making: Making, replay: Replay, prefix: FrozenPrefix, number: int) -> None:
        self.number = number
        self.samples, self.places = samples_of(making, number)
        self.trainer = making.trainer
        self.room = making.room
        self.views = making.views if number == 0 else 1
        # Evaluation is in fp32, so that the saved model scores what was logged, unless the recipe says bf16.
        trains = (number == 0 or making.recipe.cache.dtype == "bf16") and making.recipe.strategy.kind != "features"
        autocast = (torch.float16 if making.trainer.args.fp16 else making.trainer.autocast_dtype) if trains else None
        precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(autocast, "fp32") if autocast else "fp32"
        dtype = making.recipe.cache.dtype
        dtype = ("bf16" if precision == "bf16" else "fp32") if dtype == "auto" else dtype
        device = making.trainer.args.device
        self.prefix = Prefix(replay, making.trainer._prepare_inputs, making.real.collate, device, autocast)
        self.tolerance = max(_TOLERANCE[precision], _TOLERANCE[dtype])
        self.starts = starts_of(self.samples) if self.prefix.every_token else None
        rows = int(self.starts[-1]) if self.starts is not None else len(self.samples) * self.views
        sizes = tuple(size for size in replay.border.shape.sizes if size > 0)
        role = POOL if self.places is not None else ROLES[number]
        recipe = making.recipe
        every = f"{making.task.fingerprint} {role}"  # with row numbers, which random changes are drawn by
        content = making.task.contents.get(role, every)
        again = making.changed if number == 0 else ""
        what = f"{recipe.model.checkpoint}, {prefix.blocks} of {prefix.of} blocks, {recipe.data.dataset} {role}"
        self.meta = store.Meta(what, rows, sizes, {"bf16": "bfloat16", "fp32": "float32"}[dtype])
        key = key_of(
            digest_of_prefix(making.applied.model, prefix),
            place_of(making.applied.model, replay.border),
            self.samples,
            making.loaded.processor,
            every if again else content,
            precision=precision,
            dtype=dtype,
            numbers=number_facts(device, making.trainer.channels_last, attention_in_use(making.applied.model)),
            change=f"{again} seed {recipe.seed} views {self.views}" if again else "",
        )
        self.key = as_the_first(key)  # one entry, whatever a process has measured or read for itself
        self.format = f"computed in {precision}, kept in {dtype}"
        self.known = store.known(self.key, self.meta)

    def features(self) -> Features:
        """Read, or computed by all processes of the machine and then read.

        Raises:
            TransientError: the disk has no room for them.
            NotKept: what stands in their place is another user's.
        """
        store.home().mkdir(parents=True, exist_ok=True)
        lock = store.lock_of(self.key)
        try:
            begun = take_lock(lock) or as_the_first(together(self._begin))
            if isinstance(begun, str):
                raise NotKept(begun)
            self.known = not begun
            if not self.known:
                self._compute()
            rows = together(self._opened)  # nobody deletes what the others have yet to open
        finally:
            store.release(lock)
        starts = None if self.starts is None else torch.from_numpy(self.starts).to(rows.device)
        return Features(rows, starts)

    def _begin(self) -> bool | str:
        """Whether to compute them, there being no entry that is right: the first process has made a file for them.

        Or why they cannot be kept, in words.
        """
        if not first_on_machine():
            return False
        entry, damaged = store.find(self.key)
        if entry is not None:
            if self._same(entry):
                return False
            store.drop(entry.folder)
        folder = store.home() / self.key
        if store.stays(self.key):
            return f"{folder} cannot be replaced (another user's?)"
        if damaged or entry is not None:
            why = "are damaged" if damaged else "are not what the model gives now"
            warn(f"features in {folder} {why}: they are computed again.")
        if self.known:  # then no room was made for it
            self._room_again()
        try:
            store.begin(self.key, self.meta)
        except (PermissionError, FileExistsError):  # a half-filled one lies there
            return f"{store.partial(self.key)} cannot be written (another user's?)"
        except OSError as fault:
            raise TransientError(
                f"There is no room for features in {store.home()}: {fault.strerror}. Free "
                f"{size_in_words(self.meta.bytes)} (hf-finetune cache clear), or say cache.prefix=off."
            ) from fault
        return True

    def _room_again(self) -> None:
        """Room for what was there when the stage began, and is not any more: another run may have taken it."""
        why = self.room.lacking(self.meta.bytes)
        if why is not None:
            raise TransientError(
                f"features in {store.home() / self.key} have gone just now, and there is no room to compute them "
                f"again: {why}. Start the run again, then it decides anew."
            )
        self.room.take(self.meta.bytes)

    def _compute(self) -> None:
        """All processes fill the file that the first has made; one that is not finished does not stay."""
        partial = store.partial(self.key)
        try:
            together(self._fill, partial)
            together(self._finish, partial)
        except BaseException:  # also Ctrl-C
            if first_on_machine():
                store.abandon(self.key)
            raise

    def _fill(self, partial: Path) -> None:
        out = store.mapped(partial / "rows.bin", self.meta, shared=True)
        for view in range(self.views):
            self.samples.set_epoch(view)
            fill(self.prefix, self.samples, out, self.starts, self.trainer.args, view * len(self.samples))

    def _finish(self, partial: Path) -> None:
        if first_on_machine():
            store.finish(self.key, partial, self.meta)

    def _opened(self) -> torch.Tensor:
        entry = store.whole(self.key)
        if entry is None:
            raise TransientError(f"features in {store.home() / self.key} were deleted just now. Start the run again.")
        return entry.tensor(self.trainer.args.device)

    def _same(self, entry: store.Entry) -> bool:
        """Whether the features of a few samples, computed now, are those that are kept; else they are stale."""
        if (entry.meta.rows, entry.meta.sizes, entry.meta.dtype) == (self.meta.rows, self.meta.sizes, self.meta.dtype):
            rows = probe_rows(self.samples)
            self.samples.set_epoch(0)
            now = self.prefix.of_rows(self.samples, rows).cpu().float()
            kept = entry.tensor()
            places = (
                [np.arange(self.starts[row], self.starts[row + 1]) for row in rows] if self.starts is not None else rows
            )
            then = kept[
                torch.from_numpy(np.concatenate(places) if self.starts is not None else np.asarray(rows))
            ].float()
            if (now - then).abs().mean() <= self.tolerance * now.abs().mean() + 1e-6:
                return True
        return False


def first_on_machine() -> bool:
    """Whether this is the process that keeps order on its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def take_lock(lock: BaseFileLock) -> str | None:
    """Take it in the first process of the machine, however long another run has it; all processes wait.

    They meet after each round: one collective that lasts as long as another run computes would end at its timeout.

    Returns:
        why nobody can take it, or None.
    """
    taken = as_the_first(together(_taken, lock, 0.0))
    if taken is False:
        say("frozen prefix: another run is computing these features; waiting for it.")
    while taken is False:
        taken = as_the_first(together(_taken, lock, _PATIENCE))
        beat("waiting for another run's features")
    return taken if isinstance(taken, str) else None


def _taken(lock: BaseFileLock, seconds: float) -> bool | str:
    if not first_on_machine():
        return True
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    except PermissionError:
        return f"{lock.lock_file} cannot be written (another user's?)"
    return True
