"""A table on the terminal that grows with every evaluation, over one bar; made by rich."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_SHOWN = 8  # evaluations while it runs; at the end all of them


@dataclass(frozen=True)
class Evaluation:
    """One row: numbers as they are shown."""

    epoch: str
    step: str
    training: str
    validation: str
    score: str
    better: bool


class LiveTable:
    """Shown from `open` to `close`.

    Args:
        metric: name of the score's column.
        total: steps of the run.
        done: steps made before.
        console: where; standard error if None.
    """

    def __init__(self, metric: str, total: int, done: int = 0, console: Console | None = None) -> None:
        self.metric = metric
        self.rows: list[Evaluation] = []
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            expand=True,
        )
        self.task = self.bar.add_task("training", total=total, completed=done, loss="")
        self.live = Live(self._shown(), console=console or Console(stderr=True), refresh_per_second=4)

    def open(self) -> None:
        """Show it; what is printed meanwhile goes above it."""
        atexit.register(self.live.stop)  # a run that fails gives the cursor back
        self.live.start()

    def step(self, done: int) -> None:
        """Move the bar to so many steps."""
        self.bar.update(self.task, completed=done)

    def loss(self, loss: float) -> None:
        """The latest training loss."""
        self.bar.update(self.task, loss=f"loss {loss:.4f}")

    def evaluated(self, row: Evaluation) -> None:
        """A new row."""
        self.rows.append(row)
        self.live.update(self._shown())

    def close(self) -> None:
        """Leave the whole table behind, without the bar."""
        self.live.update(self._table(self.rows), refresh=True)
        self.live.stop()
        atexit.unregister(self.live.stop)

    def _shown(self) -> Any:
        return Group(*([self._table(self.rows[-_SHOWN:])] if self.rows else []), self.bar)

    def _table(self, rows: list[Evaluation]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("epoch", "step", "training loss", "validation loss", self.metric):
            table.add_column(Text(name), justify="right")  # a task's name is no markup
        table.add_column("")
        best = max((place for place, row in enumerate(rows) if row.better), default=-1)
        for place, row in enumerate(rows):
            mark = "best" if place == best else ""
            style = "bold" if place == best else "" if row.better else "dim"
            table.add_row(row.epoch, row.step, row.training, row.validation, row.score, mark, style=style)
        return table
