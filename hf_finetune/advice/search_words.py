"""What a search says: a line for each trial, and at the end what was found and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.advice.search_gain import Gain
    from hf_finetune.advice.search_study import Tried

_STATES = {"complete": "complete", "pruned": "given up early", "failed": "failed"}


def trial_in_words(told: Tried, tried: Sequence[Tried], best: Tried | None, trials: int) -> str:
    """One line.

    Args:
        told: the trial that has just ended.
        tried: all that have ended.
        best: of them.
        trials: that are wanted.
    """
    count = sum(each.state != "failed" for each in tried)
    score = "" if told.score is None else f" {told.score:.4f}"
    what = {
        "complete": f"validation{score}",
        "pruned": f"given up at validation{score}",
        "failed": f"failed: {told.reason.splitlines()[0] if told.reason else ''}",
    }[told.state]
    if told.same_as is not None:
        what += f" (the same values as trial {told.same_as})"
    leads = "" if best is None or best.score is None else f", best so far {best.score:.4f} of trial {best.number}"
    return f"{count} of {trials}  trial {told.number}: {what}, {told.seconds:.0f} s{leads}: {in_values(told)}"


def in_values(trial: Tried) -> str:
    """What a trial has changed, as the command line would say it."""
    if trial.number == 0:
        return "the recipe as it was given"
    return " ".join(f"{key}={text}" for key, text in sorted(trial.values.items()))


def found_in_words(tried: Sequence[Tried], winner: Tried, metric: str, gain: Gain | None) -> str:
    """The end of a search, before the winner is scored on the test split.

    Args:
        tried: every trial.
        winner: the best.
        metric: that chose it.
        gain: over the first trial; None where there is none, or no interval.
    """
    counts = Counter[str](each.state for each in tried)
    shown = ", ".join(f"{counts[state]} {words}" for state, words in _STATES.items() if counts[state])
    first = tried[0]
    lines = [
        f"{len(tried)} trials: {shown}.",
        f"  best validation {metric}  {winner.score:.4f}  trial {winner.number}: {in_values(winner)}",
        f"  as it was given{' ' * len(metric)}  {first.score:.4f}",
    ]
    if gain is not None:
        low, high = gain.interval
        lines.append(
            f"  difference {gain.value:+.4f}, 95% between {low:+.4f} and {high:+.4f} (paired bootstrap, {gain.rows:,} "
            "validation rows)"
        )
        if gain.unbiased is not None and gain.unbiased_interval is not None:
            low, high = gain.unbiased_interval
            lines.append(
                f"  on rows that did not choose it {gain.unbiased:+.4f}, 95% between {low:+.4f} and {high:+.4f} "
                "(BBC-CV, arXiv:1708.07180)"
            )
    return "\n".join([*lines, _verdict(winner, gain)])


def _verdict(winner: Tried, gain: Gain | None) -> str:
    if winner.number == 0:
        return "No trial beat the recipe as it was given: keep it."
    if gain is None:
        return "How sure that is cannot be said: this metric has no intervals of a difference."
    if gain.sure:
        return "The winner is better than the recipe as it was given, by more than chance."
    if gain.on_these_rows:
        return (
            "The winner is better on these rows, but it was chosen on them: whether it is on others is not certain. "
            "More validation rows would tell."
        )
    return "The recipe as it was given is within noise of the winner: there is no need to change it."


def written(trial: Tried) -> Mapping[str, object]:
    """A trial for JSON."""
    notes: dict[str, object] = {"same_as": trial.same_as} if trial.same_as is not None else {}
    notes |= {name: value for name in ("reason", "node") if (value := getattr(trial, name))}
    return {
        "trial": trial.number,
        "state": trial.state,
        "validation": trial.score,
        "seconds": trial.seconds,
        "values": trial.values,
        **notes,
    }
