"""The table before training: every part is decided, and it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.strategy.apply import Applied


@dataclass
class _Row:
    """A part: its parameters, those of them that learn, and at what rate."""

    name: str
    parameters: int
    learning: int
    rate: float | None
    is_block: bool = False

    @property
    def learns(self) -> str:
        """ "no", "yes", or "partly": adapters beside frozen weights."""
        return "no" if self.learning == 0 else "yes" if self.learning == self.parameters else "partly"

    def alike(self, other: _Row) -> bool:
        """Whether two rows of blocks are treated alike, and can be folded into one."""
        return self.is_block and other.is_block and (self.learns, self.rate) == (other.learns, other.rate)


def strategy_table(applied: Applied, lr: float) -> str:
    """Part, parameters, learns, rate; neighbouring blocks that are treated alike in one row; a line of totals.

    Args:
        applied: the strategy applied to a model.
        lr: rate of the body.
    """
    rows = _rows(applied, lr)
    cells = [("part", "parameters", "learns", "rate")]
    cells += [
        (_label(folded), f"{sum(row.parameters for row in folded):,}", _learns(folded), _rate(folded[0]))
        for folded in _fold(rows)
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        f"{part:<{widths[0]}}  {parameters:>{widths[1]}}  {learns:>{widths[2]}}  {rate:>{widths[3]}}".rstrip()
        for part, parameters, learns, rate in cells
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    learning, total = sum(row.learning for row in rows), sum(row.parameters for row in rows)
    return "\n".join([*lines, f"learns {learning:,} of {total:,} ({_percent(learning, total)})"])


def _rows(applied: Applied, lr: float) -> list[_Row]:
    """One row a part, in order; adapters count where they sit, and a head that peft copied counts once."""
    rows = {
        part.name: _Row(part.name, 0, 0, None, is_block=part.name.startswith("block "))
        for part in applied.anatomy.parts
    }
    for name, parameter in applied.model.named_parameters():
        if ".original_module." in name:
            continue
        row = rows[applied.part_name(name)]
        row.parameters += parameter.numel()
        if parameter.requires_grad:
            row.learning += parameter.numel()
            row.rate = lr * (applied.head_multiplier if row.name == "head" else 1.0)
    return list(rows.values())


def _fold(rows: list[_Row]) -> list[list[_Row]]:
    folded: list[list[_Row]] = []
    for row in rows:
        if folded and folded[-1][-1].alike(row):
            folded[-1].append(row)
        else:
            folded.append([row])
    return folded


def _label(rows: list[_Row]) -> str:
    if len(rows) == 1:
        return rows[0].name
    first, last = (rows[index].name.removeprefix("block ") for index in (0, -1))
    return f"blocks {first}-{last}"


def _learns(rows: list[_Row]) -> str:
    return f"{sum(row.learning for row in rows):,}" if rows[0].learns == "partly" else rows[0].learns


def _rate(row: _Row) -> str:
    return "-" if row.rate is None else f"{row.rate:.3g}"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "100%" if part == whole else f"{share:.1f}%" if share >= 0.1 else f"{share:.2g}%"
