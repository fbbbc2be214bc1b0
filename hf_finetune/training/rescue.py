"""Where the state of training goes when the disk of the run does not take it."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import nn

from hf_finetune.cache_home import cache_home
from hf_finetune.console import is_main_process, warn
from hf_finetune.disk import DiskError, Place, disk_in_words, size_in_words, writing
from hf_finetune.files import write_whole
from hf_finetune.strategy.frozen import ever_learning
from hf_finetune.training import checkpoints
from hf_finetune.training.folder import STATE, RunFolder


def spare_room(folder: Path, keep: int | None, needed: Collection[int | None]) -> bool:
    """Delete now what is deleted anyway once the next checkpoint is there; whether there was anything.

    Args:
        folder: of the checkpoints.
        keep: how many stay; none is deleted where all stay.
        needed: steps that stay in any case, as does the newest.
    """
    before = set(folder.glob("checkpoint-*"))
    checkpoints.rotate(folder, max(1, keep - 1) if keep else None, needed)
    return set(folder.glob("checkpoint-*")) != before


def rescue_folder(failed: Place, model: nn.Module) -> Path | None:
    """A new folder for a run on another disk with room for a checkpoint; None where there is no such disk.

    Tried are the cache of hf_finetune (`HF_FINETUNE_CACHE`, in the Hugging Face home) and the temporary folder.

    Args:
        failed: the folder of checkpoints where it could not be written.
        model: whose state it is.
    """
    if os.environ.get("LOCAL_WORLD_SIZE", "1") != os.environ.get("WORLD_SIZE", "1"):
        return None  # the processes of other machines would write their parts elsewhere
    for home in (cache_home() / "rescued", Path(tempfile.gettempdir()) / "hf_finetune-rescued"):
        with suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
            if home.stat().st_dev != failed.device and shutil.disk_usage(home).free > 2 * checkpoint_bytes(model):
                made = Path(tempfile.mkdtemp(prefix=f"{failed.path.resolve().parent.name}-", dir=home))
                (made / "checkpoints").mkdir()
                return made
    return None


def papers_of(folder: RunFolder) -> dict[str, str]:
    """By name, the files that tell whose run a folder holds; read while its disk answers, on the first process."""
    return {name: (folder.path / name).read_text() for name in ("recipe.yaml", STATE)} if is_main_process() else {}


def complete(rescued: Path, papers: Mapping[str, str], best: Path) -> None:
    """Make a run's folder of one that has a checkpoint in it, should the other disk not come back.

    Args:
        rescued: the folder.
        papers: of the run.
        best: its best checkpoint, which is copied where it can still be read.
    """
    copy = rescued / "checkpoints" / best.name
    with suppress(OSError):
        for name, text in papers.items():
            write_whole(rescued / name, text)
        if not copy.exists():
            shutil.copytree(best, copy)
    if checkpoints.damage(copy) is not None:
        shutil.rmtree(copy, ignore_errors=True)


def warn_of_little_room(folder: Path, model: nn.Module, keep: int | None) -> None:
    """Say before training that the disk will not do, as far as that can be told.

    Args:
        folder: of the run.
        model: that will be saved.
        keep: checkpoints that stay; one more is there while it is written.
    """
    each = checkpoint_bytes(model)
    final = sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
    there = sum(checkpoints.step_of(path) >= 0 for path in (folder / "checkpoints").glob("checkpoint-*"))
    needed = final + each * max(0, (keep or 2) + 1 - there)
    with suppress(OSError):
        if shutil.disk_usage(folder).free < needed:
            warn(
                f"checkpoints of {size_in_words(each)} each and the model may take {size_in_words(needed)}, more than "
                f"there is on the disk of {folder}, {disk_in_words(folder)}: free some room while it trains."
            )


def checkpoint_bytes(model: nn.Module) -> int:
    """About what a checkpoint takes: what learns, twice more for the optimizer's averages, and buffers."""
    learning = ever_learning(model)
    learned = sum(value.numel() * value.element_size() for name, value in model.named_parameters() if name in learning)
    return 3 * learned + sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())


def where_it_is(rescued: Path, step: int, folder: Path) -> str:
    """How a run goes on from a checkpoint that lies elsewhere, in words."""
    move = shlex.join(["mv", str(rescued / "checkpoints" / f"checkpoint-{step}"), f"{folder.resolve()}/"])
    whole = (rescued / STATE).is_file()
    return (
        f"The state of training is safe in {rescued}: once the disk is well again, move it back with\n"
        f"  {move}\nand give the same command, which goes on from there (the rest of that folder may go then)."
        f"{f' Should the disk not come back, go on there: output_dir={rescued}' if whole else ''}"
    )


def what_is_kept(folder: Path) -> str:
    """What a run goes on from where its last checkpoint could not be written, in words."""
    kept = None
    with suppress(OSError):
        kept = checkpoints.newest_whole(folder)
    if kept is None:
        return "No checkpoint was written before: the same command begins anew."
    return f"Kept is {kept}: once the disk is well again, the same command goes on from there."


@contextmanager
def writing_the_run(folder: RunFolder) -> Iterator[None]:
    """The finished run is written inside; what its disk does to it is told, with what is kept.

    Raises:
        DiskError: the disk does not take it.
    """
    try:
        folder.check_place()
        with writing(f"the finished run in {folder.path}", folder.path):
            yield
    except DiskError as fault:
        raise DiskError(f"{fault} {what_is_kept(folder.checkpoints)}") from fault
