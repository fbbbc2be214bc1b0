"""Likely label errors: rows whose label a classifier that has not seen them finds unlikely."""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.advice.doctor_features import pooled_features
from hf_finetune.advice.doctor_material import Material
from hf_finetune.advice.doctor_report import Section, count, row_name

if TYPE_CHECKING:
    from hf_finetune.model import LoadedModel

_FOLDS = 5
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, from strong regularisation to weak
_MANY = 2000  # rows from which one fold is enough to choose C
_WEAK = 0.85  # agreement below which the probe's own errors are most of the suspects
_TITLE = "Likely label errors"


def label_errors(material: Material, loaded: LoadedModel, limit: int) -> Section:
    """Rows whose given label is unlikely, the most suspicious first.

    Out-of-fold probabilities come from a logistic regression on the frozen features of the recipe's checkpoint;
    cleanlab (Northcutt et al. 2021, "Confident learning", arXiv:1911.00068) ranks the rows by the probability of their
    given label and estimates how many labels are wrong. All splits are looked at together.

    Args:
        material: with single classes; other labels are not looked at.
        loaded: the checkpoint.
        limit: rows that are looked at, at most.
    """
    section = Section(_TITLE)
    if not material.has_classes:
        kind = material.labels.problem_type.replace("_", " ")
        section.lines.append(f"not looked at: for single-label classes, and this is {kind}")
        return section
    if importlib.util.find_spec("cleanlab") is None:
        section.lines.append("not looked at: needs cleanlab")
        section.advice.append("pip install 'hf_finetune[doctor]' lets the doctor look for label errors")
        return section
    rows = _rows(material, limit)
    if len({target for *_, target in rows}) < 2:
        section.lines.append(f"not looked at: fewer than two classes have {_FOLDS} rows")
        return section
    features = _features(material, loaded, rows)
    classes, labels = np.unique([target for *_, target in rows], return_inverse=True)
    likely = out_of_fold(features, labels, material.recipe.seed)
    _tell(section, material, rows, classes, labels, likely)
    return section


def _rows(material: Material, limit: int) -> list[tuple[int, int, int]]:
    """(place of the split, row, class); a copy is left out, and so are classes with fewer rows than folds."""
    seen: set[str] = set()
    rows = []
    for split, taken in material.sample(limit, labeled=True):
        place = material.splits.index(split)
        for row in taken.tolist():
            if split.looked.digests[row] not in seen:
                seen.add(split.looked.digests[row])
                rows.append((place, row, split.targets[row]))
    counts = Counter(target for *_, target in rows)
    return [row for row in rows if counts[row[2]] >= _FOLDS]


def _features(material: Material, loaded: LoadedModel, rows: list[tuple[int, int, int]]) -> np.ndarray:
    parts = []
    for place, split in enumerate(material.splits):
        if taken := [row for owner, row, _ in rows if owner == place]:
            parts.append(pooled_features(loaded, material.recipe, split.rows.select(taken)))
    return np.concatenate(parts)


def out_of_fold(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities (N, C) of each row's classes by a logistic regression that was not fitted on the row.

    The strength of the regularisation is the one with the smallest out-of-fold log loss: wrong labels are to be
    disagreed with, not learnt.

    Args:
        features: (N, width).
        labels: (N,) from 0 to C - 1, each class at least five times.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(features, labels))
    every = np.arange(labels.max() + 1)

    def probabilities(strength: float, some: list[Any]) -> np.ndarray:
        likely = np.zeros((len(labels), len(every)))
        for fit, held in some:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
            likely[held] = model.fit(features[fit], labels[fit]).predict_proba(features[held])
        return likely

    some = folds if len(labels) <= _MANY else folds[:1]
    held = np.concatenate([rows for _, rows in some])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged in 300 steps serves as well
        tried = {strength: probabilities(strength, some) for strength in _STRENGTHS}
        best = min(tried, key=lambda strength: log_loss(labels[held], tried[strength][held], labels=every))
        return tried[best] if some is folds else probabilities(best, folds)


def _tell(
    section: Section,
    material: Material,
    rows: list[tuple[int, int, int]],
    classes: np.ndarray,
    labels: np.ndarray,
    likely: np.ndarray,
) -> None:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(labels, likely)  # probability of the given label
    counted = find_label_issues(labels, likely, n_jobs=1)
    answers = likely.argmax(axis=1)
    order = [int(place) for place in np.argsort(quality, kind="stable") if answers[place] != labels[place]]
    suspects = [
        {
            **material.splits[rows[place][0]].show(rows[place][1]),
            "given": material.labels.names[classes[labels[place]]],
            "likely": material.labels.names[classes[answers[place]]],
            "confidence": round(float(likely[place].max()), 4),
            "probability_of_given": round(float(quality[place]), 4),
            "counted_as_error": bool(counted[place]),
        }
        for place in order
    ]
    errors, agree = int(counted.sum()), float((answers == labels).mean())
    section.facts |= {"rows": len(rows), "agreement": agree, "errors": errors, "suspects": suspects}
    section.lines.append(
        f"{count(len(rows), 'row')} looked at; a logistic regression on frozen features of "
        f"{material.recipe.model.checkpoint} agrees with {agree:.1%} of the labels"
    )
    section.lines.append(
        f"cleanlab counts {count(errors, 'likely error')}; most suspicious first:" if suspects else "no suspects"
    )
    section.add_rows(
        [
            f"{row_name(row['split'], row['row'], row.get('path'), row.get('text'))}: given {row['given']}, likely "
            f"{row['likely']} ({row['confidence']:.0%})"
            for row in suspects
        ]
    )
    if errors:
        weak = f" (many are right: the probe itself agrees with only {agree:.0%})" if agree < _WEAK else ""
        section.advice.append(f"look at the first of these{weak}; where the label is wrong, mend it at the source")
