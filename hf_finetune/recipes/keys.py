"""Which keys a recipe has, as dotted paths, and the nearest one to a name that is not among them."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from hf_finetune.recipes.training_arguments import ELSEWHERE, REMOVED

# Names that other trainers use for the same thing.
_SYNONYMS = {
    "rank": "r",
    "lora_r": "r",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "model_name_or_path": "checkpoint",
    "dataset_name": "dataset",
    "image_column_name": "image",
    "label_column_name": "label",
    "early_stopping_patience": "patience",
}
_ELSEWHERE = {
    "model.name": "model.checkpoint",
    "model.path": "model.checkpoint",
    "model.pretrained": "model.checkpoint",
    "data.name": "data.dataset",
    "data.path": "data.dataset",
    "data.subset": "data.config",
    "data.split": "data.train_split",
    "data.validation_split": "data.validation",
    "data.test": "data.test_split",
}


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes an annotation allows: none for a plain value, several for a union tagged by `kind`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in sections_in(inner)]


def kind_of(section: type[BaseModel]) -> str | None:
    """`lora` for the section class whose `kind` is lora; None for a section without kinds."""
    field = section.model_fields.get("kind")
    return str(field.default) if field is not None else None


@cache
def known_keys() -> dict[str, tuple[str, ...]]:
    """Every dotted path of a recipe, with the kinds that have it (empty: always there)."""
    return _walked()[0]


@cache
def mapping_keys() -> frozenset[str]:
    """The paths whose value may be a mapping with keys of its own choosing, such as `training.lr_scheduler_kwargs`."""
    return _walked()[1]


def _walked() -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    from hf_finetune.recipes.schema import Recipe

    keys: dict[str, tuple[str, ...]] = {}
    mappings: set[str] = set()

    def walk(section: type[BaseModel], prefix: str, kinds: tuple[str, ...]) -> None:
        for name, field in section.model_fields.items():
            path = prefix + name
            keys[path] = (*keys.get(path, ()), *kinds)
            # The keys of a list's items are given inside it; those of `tasks` follow a name of the user's own.
            listed = get_origin(field.annotation) in (tuple, dict)
            inner = [] if listed else sections_in(field.annotation)
            if not inner and "dict[" in repr(field.annotation):
                mappings.add(path)
            for choice in inner:
                kind = kind_of(choice)
                walk(choice, f"{path}.", (kind,) if kind else kinds)

    walk(Recipe, "", ())
    return keys, frozenset(mappings)


@cache
def kinds_at(path: str) -> tuple[str, ...]:
    """The kinds to choose from at `strategy` or `model.head`; empty elsewhere."""
    return known_keys().get(f"{path}.kind", ())


def nearest(path: str) -> str | None:
    """The known path a mistyped one most probably means, or None."""
    known = sorted(known_keys(), key=lambda key: key.count("."))  # of like names that of the larger section is meant
    path = _ELSEWHERE.get(path, path)
    parent, _, leaf = path.rpartition(".")
    leaf = _SYNONYMS.get(leaf, leaf)
    same_leaf = [key for key in known if key.rpartition(".")[2] == leaf]
    beside = [key for key in same_leaf if key.rpartition(".")[0] == parent]
    if beside:
        return beside[0]
    close = difflib.get_close_matches(f"{parent}.{leaf}" if parent else leaf, known, n=1, cutoff=0.75)
    if close:
        return close[0]
    if same_leaf:
        return same_leaf[0]
    leaves = {key.rpartition(".")[2]: key for key in reversed(known)}
    close = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    return leaves[close[0]] if close else None


def unknown_key(path: str) -> str:
    """What to say of a path that no recipe has."""
    section, _, leaf = path.partition(".")
    if section == "training" and leaf in ELSEWHERE:
        return f"is not a recipe's to set: {ELSEWHERE[leaf]}"
    if section == "training" and leaf in REMOVED:
        return f"is no longer an argument of transformers: {REMOVED[leaf]}"
    for length in range(path.count("."), 0, -1):
        holder = ".".join(path.split(".")[:length])
        if holder in known_keys() and not any(key.startswith(f"{holder}.") for key in known_keys()):
            return f"unknown key; {holder} takes a value, it has no keys of its own"
    guess = nearest(path)
    if guess is not None:
        return f"unknown key; did you mean {guess}?"
    siblings = [key.rpartition(".")[2] for key in known_keys() if key.rpartition(".")[0] == path.rpartition(".")[0]]
    where = section if leaf and siblings else "a recipe"
    names = siblings if leaf and siblings else [key for key in known_keys() if "." not in key]
    return f"unknown key; {where} has {', '.join(dict.fromkeys(names))}"


def wrong_kind(path: str, kind: str) -> str | None:
    """What to say of a key that only other kinds have, or None when `kind` has it."""
    kinds = known_keys().get(path, ())
    if not kinds or kind in kinds or path.endswith(".kind"):
        return None
    parent = path.rpartition(".")[0]
    return (
        f"only {parent} {' and '.join(kinds)} has this key, and the kind is {kind}; {parent}={kinds[0]} would choose it"
    )
