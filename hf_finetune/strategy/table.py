"""The table before training: every part is decided, and it is printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.strategy.apply import Applied


@dataclass
class _Row:
    """A part: its parameters, and in each stage those of them that learn and at what rates."""

    name: str
    stages: int
    parameters: int = 0
    learning: list[int] = field(default_factory=list)
    rates: list[set[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.learning = [0] * self.stages
        self.rates = [set() for _ in range(self.stages)]

    @property
    def is_block(self) -> bool:
        """Whether this row can be folded with its neighbours."""
        return self.name.startswith("block ")

    def learns(self, stage: int) -> str:
        """ "no", "yes", or "partly": adapters beside frozen weights, or biases and norms alone."""
        return "no" if self.learning[stage] == 0 else "yes" if self.learning[stage] == self.parameters else "partly"

    @property
    def treatment(self) -> tuple[object, ...]:
        """What makes neighbouring blocks alike."""
        return tuple((self.learns(stage), frozenset(self.rates[stage])) for stage in range(self.stages))


def strategy_table(applied: Applied, lr: float) -> str:
    """Part, parameters, learns, rate; neighbouring blocks that are treated alike in one row; lines of totals.

    With several stages the rates stand beside the stages they hold in, and each stage has a line of its own.

    Args:
        applied: the strategy applied to a model.
        lr: the run's rate.
    """
    rows = _rows(applied, lr)
    folded = _fold(rows)
    total = sum(row.parameters for row in rows)
    if len(applied.stages) == 1:
        cells: list[tuple[str, ...]] = [("part", "parameters", "learns", "rate")]
        cells += [(_label(group), _size(group), _learns(group), _rate(group[0].rates[0])) for group in folded]
        return "\n".join([*_aligned(cells), f"learns {_share(rows, 0, total)}"])
    cells = [("part", "parameters", "rate")]
    cells += [(_label(group), _size(group), _rate_by_stage(group[0])) for group in folded]
    lines = _aligned(cells, left_from=2)
    for index, stage in enumerate(applied.stages):
        epochs = f"{stage.epochs or 0:.3g} {'epoch' if stage.epochs == 1 else 'epochs'}"
        lines.append(
            f"stage {index + 1}: {epochs}, {who_learns(applied, index)} {_verb(applied, index)}: "
            f"{_share(rows, index, total)}"
        )
    return "\n".join(lines)


def who_learns(applied: Applied, index: int) -> str:
    """Who learns in a stage, in words, such as "everything", "blocks 11-12 and the head", "norms and the head"."""
    stage, part_names = applied.stages[index], applied.names_in
    awake = [part for part in applied.anatomy.parts if not stage.multipliers.keys().isdisjoint(part_names(part.name))]
    if stage.who:
        return f"{stage.who} and the head" if len(awake) > 1 else "the head"
    if len(awake) == len(applied.anatomy.parts):
        return "everything"
    names = [part.name for part in awake]
    numbers = [int(name.removeprefix("block ")) for name in names if name.startswith("block ")]
    said = ["the stem"] * ("stem" in names) + _runs(numbers) + ["the head"] * ("head" in names)
    return " and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]


def _verb(applied: Applied, index: int) -> str:
    return "learns" if who_learns(applied, index) in ("everything", "the head") else "learn"


def _runs(numbers: list[int]) -> list[str]:
    """[1, 2, 3, 7] as "blocks 1-3", "block 7"."""
    runs = []
    for _, pairs in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in pairs]
        runs.append(f"block {run[0]}" if len(run) == 1 else f"blocks {run[0]}-{run[-1]}")
    return runs


def _rows(applied: Applied, lr: float) -> list[_Row]:
    """One row a part, in order; adapters count where they sit, and a head that peft copied counts once."""
    rows = []
    sizes = {name: parameter.numel() for name, parameter in applied.model.named_parameters()}
    for part in applied.anatomy.parts:
        row = _Row(part.name, len(applied.stages))
        for name in applied.names_in(part.name):
            if ".original_module." in name:
                continue
            row.parameters += sizes[name]
            for index, stage in enumerate(applied.stages):
                if name in stage.multipliers:
                    row.learning[index] += sizes[name]
                    row.rates[index].add(stage.rate(name, lr))
        rows.append(row)
    return rows


def _fold(rows: list[_Row]) -> list[list[_Row]]:
    folded: list[list[_Row]] = []
    for row in rows:
        before = folded[-1][-1] if folded else None
        if before is not None and before.is_block and row.is_block and before.treatment == row.treatment:
            folded[-1].append(row)
        else:
            folded.append([row])
    return folded


def _aligned(cells: list[tuple[str, ...]], left_from: int | None = None) -> list[str]:
    """Columns of text: the first flush left, the others flush right, those from `left_from` flush left again."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = []
    for line in cells:
        columns = []
        for index, (text, width) in enumerate(zip(line, widths, strict=True)):
            left = index == 0 or (left_from is not None and index >= left_from)
            columns.append(f"{text:<{width}}" if left else f"{text:>{width}}")
        lines.append("  ".join(columns).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return lines


def _label(rows: list[_Row]) -> str:
    if len(rows) == 1:
        return rows[0].name
    first, last = (rows[index].name.removeprefix("block ") for index in (0, -1))
    return f"blocks {first}-{last}"


def _size(rows: list[_Row]) -> str:
    return f"{sum(row.parameters for row in rows):,}"


def _learns(rows: list[_Row]) -> str:
    return f"{sum(row.learning[0] for row in rows):,}" if rows[0].learns(0) == "partly" else rows[0].learns(0)


def _rate(rates: set[float]) -> str:
    if not rates or rates == {0.0}:  # frozen, or fitted without steps
        return "-"
    low, high = min(rates), max(rates)
    return f"{high:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _rate_by_stage(row: _Row) -> str:
    """ "1-2: 0.001, 3: 0.0001", stage by stage; alike stages in one."""
    said = []
    for (rate, learns), run in groupby(
        range(row.stages), key=lambda stage: (_rate(row.rates[stage]), row.learns(stage))
    ):
        stages = [number + 1 for number in run]
        if learns != "no":
            name = f"stage {stages[0]}" if len(stages) == 1 else f"stages {stages[0]}-{stages[-1]}"
            said.append(f"{rate} in {name}{' (partly)' if learns == 'partly' else ''}")
    return ", then ".join(said) or "-"


def _share(rows: list[_Row], stage: int, total: int) -> str:
    learning = sum(row.learning[stage] for row in rows)
    return f"{learning:,} of {total:,} ({_percent(learning, total)})"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "100%" if part == whole else f"{share:.1f}%" if share >= 0.1 else f"{share:.2g}%"
