"""Logits of one sample as the page shows them, with what mattered. A Space gets a copy of this file."""

from __future__ import annotations

from typing import Any

import torch

from hf_finetune.evaluation.attribution_images import explain_images
from hf_finetune.evaluation.attribution_texts import explain_texts
from hf_finetune.publish.demo_page import Page, Shown
from hf_finetune.publish.demo_picture import as_pixels, overlaid

SINGLE = "single_label_classification"
REGRESSION = "regression"
_SECONDS = 20.0  # for what mattered in one sample


def shown(
    page: Page,
    model: Any,
    processor: Any,
    given: Any,
    logits: torch.Tensor,
    about: int = 0,
    max_length: int | None = None,
) -> Shown:
    """Scores of every task, and what mattered for the answer of one.

    Args:
        page: says what the outputs are.
        model: whose answer it is.
        processor: its image processor or tokenizer.
        given: a sample as the model takes it ({"pixel_values": ...}), or a tuple of texts.
        logits: (outputs,).
        about: the task to explain.
        max_length: tokens read of a text; the tokenizer's limit if None.
    """
    found, start, scores, places = Shown([]), 0, [], []
    for task in page.tasks:
        outputs = slice(start, start + len(task.labels))
        start, own = outputs.stop, logits[outputs].double()
        likely = own.softmax(0) if task.problem == SINGLE else own if task.problem == REGRESSION else own.sigmoid()
        scores.append(likely.tolist())
        # Of numbers the first is explained: none of them is the answer more than another.
        places.append((outputs, 0 if task.problem == REGRESSION else int(own.argmax())))
    found.scores = scores
    rule = _rule_in_words(page, model, scores)
    about = min(max(about, 0), len(places) - 1)
    task, (outputs, best) = page.tasks[about], places[about]
    single = task.problem == SINGLE
    if page.image:
        looked = explain_images(model, [given], [best], outputs, single=single, seconds=_SECONDS)
        found.picture = overlaid(as_pixels(given["pixel_values"], processor), looked.found.get(0))
        how = looked.skipped or f"For {task.labels[best]}: {looked.method}. A hint at where to look, no proof."
        found.said = rule + how
        return found
    read = explain_texts(
        model, processor, [given], [best], outputs, single=single, max_length=max_length, seconds=_SECONDS
    )
    found.pieces = read.found.get(0, [])
    how = read.skipped or f"For (above 0) and against {task.labels[best]}: {read.method}. A hint, no proof."
    found.said = rule + how
    return found


def _rule_in_words(page: Page, model: Any, scores: list[list[float]]) -> str:
    """Which labels the model gives, by the thresholds or for the prediction sets that its config.json keeps."""
    held = getattr(model.config, "hf_finetune", None) or {}
    labels, own = page.tasks[0].labels, scores[0]
    ranked = sorted(range(len(own)), key=lambda place: -own[place])
    if thresholds := held.get("thresholds"):
        given = [labels[place] for place in ranked if own[place] > thresholds[place]]
        return f"Given, each above its own threshold: {', '.join(given) or 'none'}. "
    if held.get("quantile") is not None:
        inside = [labels[place] for place in ranked if 1 - own[place] <= held["quantile"]]
        return f"With {held['coverage']:.0%} chance one of: {', '.join(inside) or 'none of them'}. "
    return ""
