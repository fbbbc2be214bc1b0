"""Advice as a person reads it, and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hf_finetune.choice.candidates import batch_of, epochs_of, pairs_of, usual_epochs
from hf_finetune.choice.forecast import origin_in_words
from hf_finetune.choice.verdict import CORNERS, SIMILAR, corner_of, similarity

if TYPE_CHECKING:
    from hf_finetune.choice.advise import Advice
    from hf_finetune.choice.measures import Measures

# What each strategy is, for somebody who hears of it for the first time.
_MEANS = {
    "head": "keeps the checkpoint as it is and trains only a new last layer on what it sees",
    "freeze": "keeps the lower half of the checkpoint, which sees edges or words, and trains the upper half",
    "lora": "keeps the checkpoint's weights and trains small additions beside them",
    "lp_ft": "trains the new last layer first, so that the whole model, which learns next, starts from a good place",
    "full": "trains everything, from the checkpoint's weights",
    "scratch": "trains everything from random weights, and uses nothing of the checkpoint",
}
_NOISY = 0.05
_KNOWS = 0.8  # of the way from chance to perfection: of what a weaker probe would change, little is wrong
_CLEAR = 0.05  # accuracies so far apart
_NAMED = 3  # of what there was no time for


def in_words(advice: Advice, name: str, pairs: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        advice: what was found.
        name: what stood behind `recipe=`, for the command at the end.
        pairs: what was given beside it, but for the strategy.
    """
    parts = [_title(advice), *_of_the_data(advice), _table(advice), *_corners(advice), *sentences(advice)]
    told = pairs_of(advice.best)
    names = {pair.partition("=")[0] for pair in told}
    words = [f"recipe={name}", *(pair for pair in pairs if pair.partition("=")[0] not in names), *told]
    return "\n".join([*parts, "", " ".join(map(shlex.quote, ("hf-finetune", "train", *words)))])


def shortly(advice: Advice) -> str:
    """What a run says that follows the advice."""
    return "\n".join([_title(advice), _table(advice), *sentences(advice), ""])


def sentences(advice: Advice) -> list[str]:
    """Three, for a newcomer: what the data is like, what to take, how sure that is; and what to mind."""
    found = ["", _what_it_is_like(advice), _what_to_take(advice), _how_sure(advice)]
    return [*found, *_remarks(advice)]


def as_dict(advice: Advice) -> dict[str, Any]:
    """Everything that was found, as plain values."""
    measures = advice.measures
    corner = None if measures is None else corner_of(measures)
    return {
        "checkpoint": advice.recipe.model.checkpoint,
        "data": str(advice.recipe.data.dataset),
        "strategy": advice.kind,
        "pairs": pairs_of(advice.best),
        "options": [
            {**asdict(option), "rate": _rate(advice, option.kind), "epochs": _epochs(advice, option.kind)}
            for option in advice.options
        ],
        "refused": advice.refused,
        "measures": None if measures is None else {**asdict(measures), "above_chance": measures.above_chance},
        "corner": None if corner is None else {"data": corner[0], "checkpoint": corner[1]},
        "pace": asdict(advice.pace),
        "seconds": round(advice.seconds, 3),
        "full_seconds": round(advice.full_seconds, 3),
        "share": advice.share,
        "forecasts_from": origin_in_words(),
        "sentences": sentences(advice)[1:4],
    }


def _title(advice: Advice) -> str:
    measures, recipe = advice.measures, advice.recipe
    share = f"{advice.seconds / max(advice.full_seconds, 1e-9):.1%} of the {duration(advice.full_seconds)}"
    took = f"in {duration(advice.seconds)}, {share} that full fine-tuning would take here"
    what = "nothing was looked at" if measures is None else f"{measures.looked_at:,} training rows were looked at"
    return f"{recipe.model.checkpoint} on {recipe.data.dataset}: {what} {took}"


def _of_the_data(advice: Advice) -> list[str]:
    measures = advice.measures
    if measures is None:
        return [f"There is no time to look at rows in {advice.share:.0%} of that: what follows is a rule of thumb."]
    lines = [f"{measures.train_rows:,} training rows{_classes(measures)}"]
    width = max(len(depth.name) for depth in measures.depths)
    lines += ["", f"{'what is seen at':{width}}  {measures.metric} of a linear probe    of kNN   LogME"]
    lines += [
        f"{depth.name:{width}}  {_number(depth.linear):>{len(measures.metric) + 18}}  {_number(depth.neighbours):>8}"
        f"  {_number(depth.evidence):>6}"
        for depth in measures.depths
    ]
    curve = ", ".join(f"{rows:,} rows {score:.3f}" for rows, score in measures.curve)
    lines += ["", f"learning curve: {curve}; with all {measures.train_rows:,} rows likely {measures.probe:.3f}"]
    if measures.spread is not None:
        lines.append(f"the head's input spreads over {measures.spread:.0%} of its directions (100% is isotropic)")
    if measures.noise is not None:
        why = "(they are wrong, or it cannot tell the classes)"
        lines.append(f"labels that the probe would rather change: {measures.noise:.1%} {why}")
    if measures.left_out:
        first, more = measures.left_out[:_NAMED], len(measures.left_out) - _NAMED
        lines.append(f"no time for {', '.join(first)}{f' and {more} more' if more > 0 else ''} (share=... gives more)")
    return lines


def _classes(measures: Measures) -> str:
    sizes = sorted(measures.classes.values())
    return f", {len(sizes)} classes of {sizes[0]:,} to {sizes[-1]:,} rows" if sizes else ""


def _table(advice: Advice) -> str:
    foretold = any(option.forecast is not None for option in advice.options)
    lines = [f"\n{'strategy':8}{'  accuracy (in 9 of 10 cases)' if foretold else ''}  time here  epochs  rate"]
    for option in advice.options:
        guess = option.forecast
        score = f"  {guess.score:.3f} ({guess.low:.3f} to {guess.high:.3f})  " if guess else " " * 30
        epochs, rate = _epochs(advice, option.kind), _rate(advice, option.kind)
        lines.append(
            f"{option.kind:8}{score if foretold else ''}  {duration(option.seconds):>9}  {epochs:>6g}  {rate:g}"
        )
    lines += [f"{kind:8}  left out: {why}" for kind, why in advice.refused.items()]
    return "\n".join(lines)


def _corners(advice: Advice) -> list[str]:
    if advice.measures is None:
        return []
    here = corner_of(advice.measures)
    lines = ["", f"{'':12}{'like what the checkpoint knows':34}unlike it"]
    for amount in ("little", "much"):
        cells = []
        for likeness in ("similar", "dissimilar"):
            first, *others = CORNERS[(amount, likeness)]  # type: ignore[index]
            mark = "  <- this data" if here == (amount, likeness) else ""
            cells.append(f"{first} (or {', '.join(others[:1])}){mark}")
        lines.append(f"{amount + ' data':12}{cells[0]:34}{cells[1]}")
    return lines


def _what_it_is_like(advice: Advice) -> str:
    measures = advice.measures
    if measures is None:
        return "1. A full fine-tuning of this data is so short that looking at the data first would not pay."
    amount, likeness = corner_of(measures)
    reads = measures.above_chance >= SIMILAR
    why = "reads the labels off well" if reads else "does not read the labels off well"
    better = f"{', but' if reads else ', and'} a middle layer does it better" if measures.middle_gain >= 0.01 else ""
    return (
        f"1. This is {amount} data ({measures.train_rows:,} rows), and it looks {likeness} to what the checkpoint "
        f"knows: a linear model on what its last layer sees {why} ({measures.metric} {measures.probe:.2f}, "
        f"likeness {similarity(measures):.2f} of 1{better})."
    )


def _what_to_take(advice: Advice) -> str:
    best = advice.options[0]
    return (
        f"2. Take strategy={best.kind}, which {_MEANS[best.kind]}: {_epochs(advice, best.kind):g} epochs at a learning "
        f"rate of {_rate(advice, best.kind):g}, about {duration(best.seconds)} on this machine."
    )


def _how_sure(advice: Advice) -> str:
    best, *others = advice.options
    if best.forecast is None:
        return "3. No score is foretold here, only a rule followed: compare it with one other before you rely on it."
    next_best = next((option for option in others if option.forecast is not None), None)
    line = f"3. It will likely reach an accuracy of {best.forecast.low:.2f} to {best.forecast.high:.2f}"
    if next_best is None or next_best.forecast is None:
        return f"{line} ({origin_in_words()})."
    apart = abs(best.forecast.score - next_best.forecast.score)
    sure = "so near that only a comparison tells them apart" if apart < 0.02 else "which is worth a comparison too"
    if apart >= _CLEAR:
        sure = "which is clearly less"
    return (
        f"{line} ({origin_in_words()}); strategy={next_best.kind} is foretold {next_best.forecast.score:.2f} against "
        f"{best.forecast.score:.2f}, {sure}."
    )


def _remarks(advice: Advice) -> list[str]:
    lines = []
    rows = advice.recipe.training.values()
    count = advice.train_rows
    if "num_train_epochs" in rows:
        processes = advice.pace.processes
        usual = usual_epochs(advice.kind, count, batch_of(advice.recipe, count, processes))
        if usual >= 2 * epochs_of(advice.kind, advice.recipe, count, processes):
            given = f"{float(rows['num_train_epochs']):g}"
            lines.append(
                f"note: the recipe's {given} epochs are few steps for {count:,} rows, and the forecasts are for about "
                f"{usual}: training.num_train_epochs=null lets the advice choose."
            )
    measures = advice.measures
    if measures is not None and (measures.noise or 0) >= _NOISY and measures.above_chance >= _KNOWS:
        lines.append("note: `hf-finetune doctor` with the same words names the labels that are likely wrong.")
    return lines


def _epochs(advice: Advice, kind: str) -> float:
    return round(epochs_of(kind, advice.recipes[kind], advice.train_rows, advice.pace.processes), 2)


def _rate(advice: Advice, kind: str) -> float:
    return float(advice.recipes[kind].training.values()["learning_rate"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """`3.2 s`, `4.1 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
