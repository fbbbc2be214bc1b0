"""Samples worth a look: the surest errors and the most uncertain, as the model sees them, and what mattered."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.evaluation.attribution import Attributions
from hf_finetune.publish.demo_picture import as_pixels
from hf_finetune.publish.report_answers import MULTI, REGRESSION, SINGLE, TaskAnswers

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

_EACH = 12  # of each kind, where there is one task
_EACH_OF_TASKS = 6
_SIDE = 176  # pixels of a picture's longer side
_MOST_TEXT = 1_200  # characters of a text that is shown without weights
_SECONDS = 60.0  # for what mattered, all tasks together
_SHARDED = "Nothing is said of what mattered: the weights are spread over several processes."
Item = dict[str, Any]


def gallery_of(
    recipe: Recipe, test: Any, tasks: Sequence[TaskAnswers], model: Any, processor: Any, *, sharded: bool = False
) -> list[dict[str, Any]]:
    """For each task {"task", "method", "note", "groups": [{"title", "items"}]}.

    Args:
        recipe: of the run.
        test: its rows.
        tasks: its answers.
        model: the trained model.
        processor: its image processor or tokenizer.
        sharded: several processes hold the weights, so that one alone cannot ask the model.
    """
    found = []
    for answers in tasks:
        chosen = _choose(answers, _EACH if len(tasks) == 1 else _EACH_OF_TASKS)
        places = [place for _, group in chosen for place in group]
        rows = [int(answers.rows[place]) for place in places]
        wanted = [_asked(answers, place) for place in places]
        shown = test.select(rows)
        image = recipe.task == "image-classification"
        seconds = 0.0 if sharded else _SECONDS / len(tasks)
        make = _pictures if image else _texts
        items, mattered = make(recipe, shown, answers, wanted, model, processor, seconds)
        for item, place, row in zip(items, places, rows, strict=True):
            item |= {"id": int(test[row]["id"]), **_facts(answers, place)}
        groups, start = [], 0
        for title, group in chosen:
            groups.append({"title": title, "items": items[start : start + len(group)]})
            start += len(group)
        note = _SHARDED if sharded else mattered.skipped
        found.append({"task": answers.name, "method": mattered.method, "note": note, "groups": groups})
    return found


def _choose(answers: TaskAnswers, count: int) -> list[tuple[str, list[int]]]:
    scores, truth = answers.scores, answers.truth
    if answers.problem == REGRESSION:
        miss = np.abs(scores - truth).mean(axis=1)
        order = np.argsort(-miss, kind="stable")
        return [("Largest misses", order[:count].tolist()), ("Closest", order[::-1][: count // 3].tolist())]
    if answers.problem == MULTI:
        gap = np.abs(scores - truth).max(axis=1)
        doubt = np.abs(scores - 0.5).min(axis=1)
        wrong = (answers.decided != truth).any(axis=1)
    else:
        top = np.sort(scores, axis=1)
        gap = scores.max(axis=1)
        doubt = top[:, -1] - top[:, -2] if scores.shape[1] > 1 else top[:, -1]
        wrong = answers.decided != truth
    errors = [place for place in np.argsort(-gap, kind="stable").tolist() if wrong[place]][:count]
    unsure = [place for place in np.argsort(doubt, kind="stable").tolist() if place not in set(errors)][:count]
    return [("Most confident errors", errors), ("Most uncertain", unsure)]


def _asked(answers: TaskAnswers, place: int) -> int:
    """The output that is explained: the answer; of several labels the one that is most wrong."""
    if answers.problem == SINGLE:
        return int(answers.scores[place].argmax())
    return int(np.abs(answers.scores[place] - answers.truth[place]).argmax())


def _facts(answers: TaskAnswers, place: int) -> Item:
    scores, truth, names = answers.scores[place], answers.truth[place], answers.names
    if answers.problem == SINGLE:
        best = int(scores.argmax())
        return {"label": names[int(truth)], "answer": names[best], "score": round(float(scores[best]), 4),
                "score_of_label": round(float(scores[int(truth)]), 4), "right": best == int(truth)}  # fmt: skip
    if answers.problem == MULTI:
        worst = _asked(answers, place)
        return {"label": [n for n, t in zip(names, truth, strict=True) if t > 0.5],
                "answer": [n for n, s in zip(names, scores, strict=True) if s > 0.5],
                "about": names[worst], "score": round(float(scores[worst]), 4),
                "right": bool(((scores > 0.5) == (truth > 0.5)).all())}  # fmt: skip
    found: Item = {"label": [float(t) for t in truth], "answer": [round(float(s), 6) for s in scores]}
    return found | ({"miss": float(scores[0] - truth[0])} if len(truth) == 1 else {})


def _pictures(
    recipe: Recipe, rows: Any, answers: TaskAnswers, wanted: list[int], model: Any, processor: Any, seconds: float
) -> tuple[list[Item], Attributions]:
    from hf_finetune.data import image_samples
    from hf_finetune.evaluation.attribution_images import explain_images

    samples = image_samples(rows.remove_columns("label"), processor)
    made = [samples[place] for place in range(len(rows))]
    mattered = Attributions()
    if made and seconds:
        single = answers.problem == SINGLE
        mattered = explain_images(model, made, wanted, answers.outputs, single=single, seconds=seconds)
    items: list[Item] = []
    for place, sample in enumerate(made):
        item: Item = {"picture": _jpeg(as_pixels(sample["pixel_values"], processor))}
        if place in mattered.found:
            item["heat"] = _heat(mattered.found[place])
        items.append(item)
    return items, mattered


def _texts(
    recipe: Recipe, rows: Any, answers: TaskAnswers, wanted: list[int], model: Any, processor: Any, seconds: float
) -> tuple[list[Item], Attributions]:
    from hf_finetune.evaluation.attribution_texts import explain_texts

    columns = [name for name in ("text", "text_pair") if name in rows.column_names]
    texts = [tuple(str(row[name]) for name in columns) for row in rows]
    mattered = Attributions()
    if texts and seconds:
        single = answers.problem == SINGLE
        mattered = explain_texts(
            model, processor, texts, wanted, answers.outputs,
            single=single, max_length=recipe.data.max_length, seconds=seconds,
        )  # fmt: skip
    items: list[Item] = []
    for place, parts in enumerate(texts):
        plain = [[[part if len(part) <= _MOST_TEXT else part[:_MOST_TEXT] + " …", 0.0]] for part in parts]
        weighed = mattered.found.get(place)
        items.append({"text": plain if weighed is None else [_cut(part) for part in weighed]})
    return items, mattered


def _cut(pieces: list[tuple[str, float]]) -> list[list[Any]]:
    kept: list[list[Any]] = []
    length = 0
    for piece, weight in pieces:
        if length > _MOST_TEXT:
            return [*kept, [" …", 0.0]]
        kept.append([piece, round(weight, 3)])
        length += len(piece)
    return kept


def _jpeg(pixels: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    kept = io.BytesIO()
    image.save(kept, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(kept.getvalue()).decode()}"


def _heat(heat: np.ndarray) -> str:
    """A small picture, transparent where nothing mattered; the page lays it over the sample and smooths it."""
    from PIL import Image

    small = Image.fromarray(np.rint(heat * 255).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC)
    level = np.asarray(small).astype(np.float64) / 255
    ramp = np.stack([np.full_like(level, 255), 60 + 170 * level, 40 * (1 - level), 215 * level**0.9], axis=-1)
    kept = io.BytesIO()
    Image.fromarray(np.rint(ramp).astype(np.uint8), "RGBA").save(kept, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}"
