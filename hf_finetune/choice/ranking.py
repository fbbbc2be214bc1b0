"""Several checkpoints for the same data, by what each is likely to reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hf_finetune.choice.advise import advise
from hf_finetune.choice.words import duration
from hf_finetune.console import say, warn
from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_finetune.choice.advise import Advice
    from hf_finetune.recipes.schema import Recipe


def rank(
    recipes: Mapping[str, Recipe],
    *,
    share: float,
    data: Dataset | DatasetDict | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Advice]:
    """Advice for each checkpoint, the most promising first; one that cannot be used is told and left out.

    Args:
        recipes: by the checkpoint's name.
        share: of each one's own full fine-tuning.
        data: as for `advise`.
        trust_remote_code: as for `advise`.

    Raises:
        UserError: none of them can be used.
    """
    found: dict[str, Advice] = {}
    faults = []
    for name, recipe in recipes.items():
        say(f"looking at the data through {name}")
        try:
            found[name] = advise(recipe, share=share, data=data, trust_remote_code=trust_remote_code)
        except UserError as fault:
            faults.append(f"{name}: {fault}")
            warn(f"{faults[-1]} (left out)")
    if not found:
        raise UserError("None of these checkpoints can be used:\n" + "\n".join(faults))
    return dict(sorted(found.items(), key=lambda item: _promise(item[1]), reverse=True))


def _promise(advice: Advice) -> tuple[bool, float]:
    """The score that is foretold, or the probe's where none is; where nothing was measured, below all others."""
    if advice.measures is None:
        return False, 0.0
    guess = advice.options[0].forecast
    return True, advice.measures.probe if guess is None else guess.score


def ranking_in_words(found: Mapping[str, Advice]) -> str:
    """One line a checkpoint."""
    width = max(len("checkpoint"), *(len(name) for name in found))
    lines = [f"{'checkpoint':{width}}  take      likely score            probe   LogME   full run here"]
    for name, advice in found.items():
        guess, measures = advice.options[0].forecast, advice.measures
        score = f"{guess.score:.3f} ({guess.low:.3f} to {guess.high:.3f})" if guess else "-"
        probe = "-" if measures is None else f"{measures.probe:.3f}"
        evidence = "-" if measures is None or measures.top.evidence is None else f"{measures.top.evidence:.3f}"
        whole = duration(advice.full_seconds)
        lines.append(f"{name:{width}}  {advice.kind:8}  {score:22}  {probe:6}  {evidence:6}  {whole}")
    return "\n".join(lines)
