"""What a person sees of many runs: on a terminal a table that is drawn anew, elsewhere one line a run."""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.advice.trials import Trial, in_words
from hf_finetune.console import inert, is_main_process, say
from hf_finetune.publish.report_words import duration

_SHOWN = 20  # rows of a live table: a screen holds not many more


class TrialTable:
    """Rows of runs: waiting, running, finished, failed. A context: inside, on a terminal, it is drawn again and again.

    Args:
        names: of the trials, in the order in which they run.
        groups: the cell of each.
        split: whose scores are shown while it runs; of the validation split, so that nobody chooses by the test.
    """

    def __init__(self, names: Sequence[str], groups: Mapping[str, str], split: str = "validation") -> None:
        self.names, self.groups, self.split = list(names), groups, split
        self.done: dict[str, Trial] = {}
        self.running: str | None = None
        self._since = 0.0
        self._live: Any = None

    def __enter__(self) -> TrialTable:
        from hf_finetune.training.progress import at_a_terminal

        if is_main_process() and at_a_terminal():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(get_renderable=self._drawn, console=Console(stderr=True), refresh_per_second=4)
            atexit.register(self._live.stop)
            self._live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.running = None
        if self._live is not None:
            self._live.stop()
            atexit.unregister(self._live.stop)
            self._live = None

    def began(self, name: str, place: int) -> None:
        """A trial is being run."""
        self.running, self._since = name, time.monotonic()

    def ended(self, trial: Trial, place: int) -> None:
        """A trial has ended: a line, where no table is drawn."""
        self.done[trial.name] = trial
        self.running = None
        if self._live is None:
            left = self.left()
            still = f"  ({duration(left)} left)" if left else ""
            say(f"{place + 1} of {len(self.names)}  {in_words(trial, self.split)}{still}")

    def left(self) -> float | None:
        """Seconds that the rest will take, by those of its kind that have been run; None where nothing tells."""
        done = list(self.done.items())  # the table is drawn by another thread
        ran = {name: trial.seconds for name, trial in done if trial.run is not None and not trial.found}
        if not ran:
            return None
        mean = sum(ran.values()) / len(ran)
        whole = 0.0
        for name in self.names:
            if name not in self.done:
                alike = [seconds for other, seconds in ran.items() if self.groups[other] == self.groups[name]]
                whole += sum(alike) / len(alike) if alike else mean
        return whole

    def _drawn(self) -> Any:
        """The table as it is now; of many rows those around the one that runs."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("run", self.split, "time", ""):
            table.add_column(name, justify="left" if name in ("run", "") else "right")
        at = self.names.index(self.running) if self.running else len(self.done)
        start = max(0, min(at - _SHOWN // 2, len(self.names) - _SHOWN))
        for name in self.names[start : start + _SHOWN]:
            cells, style = self._row(name)
            table.add_row(*(Text(inert(cell)) for cell in (name, *cells)), style=style)
        left = self.left()
        table.caption = f"{len(self.done)} of {len(self.names)}" + (f", {duration(left)} left" if left else "")
        table.caption_justify = "left"
        return table

    def _row(self, name: str) -> tuple[tuple[str, str, str], str]:
        trial = self.done.get(name)
        if trial is None:
            if name != self.running:
                return ("", "", "waits"), "dim"
            return ("", duration(round(time.monotonic() - self._since)), "runs"), "bold"
        if trial.run is None:
            return ("", "", f"failed: {trial.reason.splitlines()[0]}"), "red"
        value = trial.score(self.split)
        took = "" if trial.found else duration(round(trial.seconds, 1))
        return ("undefined" if value is None else f"{value:.4f}", took, "found finished" if trial.found else ""), ""


def table_in_words(found: Mapping[str, Any]) -> str:
    """The result as lines: each cell's score with its interval, its time, the tests, and whom to take."""
    metric, seeds = found["metric"], found["seeds"]
    over = f"over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    width = max(len(name) for name in (*(cell["name"] for cell in found["cells"]), "run"))
    failed = [f"{one['name']}, seed {one['seed']}: {one['reason'].splitlines()[0]}" for one in found["failed"]]
    baseline = found["baseline"]
    lines = [
        f"{found['split']} {metric}, {found['samples']:,} samples, {over}; {found['budget']}",
        f"  {'run':{width}}  {metric[:10]:>10}  95% between         time a run",
        *(f"  {cell['name']:{width}}  {_cell_in_words(cell)}" for cell in found["cells"]),
        *([f"  {baseline['what']}: {baseline['score']:.4f}"] if baseline else []),
        *(f"  {_pair_in_words(pair)}" for pair in found["pairs"] if pair["p_holm"] is not None),
        *(f"  failed: {words}" for words in failed),
        *(f"  {note}" for note in found["notes"]),
        found["take"]["sentence"],
    ]
    return "\n".join(lines)


def _cell_in_words(cell: Mapping[str, Any]) -> str:
    mean, interval = cell["score"]["mean"], cell["score"]["ci95"]
    value = "undefined" if mean is None else f"{mean:.4f}"
    between = f"{interval[0]:.4f} and {interval[1]:.4f}" if interval else ""
    short = "  (cut short by the budget)" if cell["cut_short"] else ""
    lost = f"  ({cell['failed']} failed)" if cell["failed"] else ""
    return f"{value:>10}  {between:18}  {duration(cell['seconds']):>10}{short}{lost}"


def _pair_in_words(pair: Mapping[str, Any]) -> str:
    told = f"{pair['difference']:+.4f}, p = {pair['p_holm']:.3g} ({pair['method']}; corrected by Holm)"
    return f"{pair['first']} less {pair['second']}: {told}"
