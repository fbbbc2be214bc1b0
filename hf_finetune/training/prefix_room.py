"""How much of the disk a run's features may take: asked when a stage begins, and again for what has gone since."""

from __future__ import annotations

from hf_finetune import prefix_store as store
from hf_finetune.disk import size_in_words
from hf_finetune.recipes.schema import Recipe


class Room:
    """What there is for one run, on this machine.

    Args:
        recipe: its cache section.

    Attributes:
        wanted: keys of this run's own entries, which nothing makes room for.
    """

    def __init__(self, recipe: Recipe) -> None:
        most = recipe.cache.max_gb
        self._left = float("inf") if most is None else most * 1e9  # bytes that this run may yet add
        # Of the disk's free space and what all kept features take of it; checkpoints need room too.
        self._share = 0.5 if most is None else 0.9
        self.wanted: set[str] = set()

    def lacking(self, needed: int) -> str | None:
        """Why so many bytes cannot be had, in words, or None."""
        there = max(0, int(min(self._left, store.room(store.bound(self._share), self.wanted))))
        if needed <= there:
            return None
        sizes = size_in_words(needed), size_in_words(there)
        return f"it takes {sizes[0]} of disk, and {sizes[1]} may be used (cache.max_gb, cache.dtype=bf16)"

    def take(self, needed: int) -> int:
        """Count so many bytes as this run's; what was not used for longest goes where it must.

        Returns:
            bytes of what was deleted.
        """
        self._left -= needed
        gone = store.make_room(needed, store.bound(self._share), self.wanted) if needed else []
        return sum(entry.meta.bytes for entry in gone)
