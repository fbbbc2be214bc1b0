"""The model card's tables: the data, how to repeat the run, with what it ran, and its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_finetune.data.sources import MEMORY
from hf_finetune.data.split_names import AUTO
from hf_finetune.publish.code_span import code
from hf_finetune.publish.local_places import is_hub_id

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe


def data_table(recipe: Recipe, about: dict[str, Any]) -> str:
    """The splits: rows, and where they come from at which commit."""
    rows: dict[str, int] = about.get("rows", {})
    if not rows:
        return ""
    whence = whence_of(recipe, about)
    lines = ["| split | rows | from |", "|---|---|---|"]
    lines += [f"| {name} | {count:,} | {_share(whence[name], whence['train'])} |" for name, count in rows.items()]
    notes = [f"Data: {_dataset(recipe)}."]
    if left := about.get("skipped"):
        notes.append(f"{left:,} broken rows were left out.")
    if dropped := about.get("cleaned"):
        notes.append(f"`data.clean` dropped {dropped:,} rows.")
    return "\n".join(lines) + "\n\n" + " ".join(notes)


def whence_of(recipe: Recipe, about: dict[str, Any]) -> dict[str, Any]:
    """By role, the split that was read, or the share of train; None where nobody knows what `auto` meant."""
    data = recipe.data
    named = {"train": data.train_split, "validation": data.validation, "test": data.test_split}
    return {role: None if split == AUTO else split for role, split in (named | about.get("splits", {})).items()}


def split_of_test(recipe: Recipe, about: dict[str, Any]) -> str | None:
    """The split of the data set that the test was taken from; for a share, the train split and the share."""
    whence = whence_of(recipe, about)
    if isinstance(whence["test"], float):
        return f"{whence['train'] or 'train'} ({whence['test']:.0%} held out)"
    return whence["test"]


def source(recipe: Recipe) -> str:
    """The data set in words."""
    dataset = recipe.data.dataset
    if dataset == MEMORY:
        return "data given in memory"
    if isinstance(dataset, dict):
        listed = {split: (files,) if isinstance(files, str) else files for split, files in dataset.items()}
        return ", ".join(f"{split}: {' '.join(files)}" for split, files in listed.items())
    return dataset if isinstance(dataset, str) else ", ".join(dataset)


def how(recipe: Recipe, repo: str | None) -> str:
    """The command that makes the model again."""
    if repo is None:
        return (
            "The whole recipe, with the revisions that were loaded, is `recipe.yaml` beside this file. Run it with\n\n"
            "```\naccelerate launch hf_finetune/run.py recipe=recipe.yaml output_dir=another_folder\n```\n\n"
            "(or `hf-finetune train recipe=recipe.yaml ...` where hf_finetune is installed). Every test prediction is "
            "in\n`predictions.parquet`, every score in `metrics.json`."
        )
    needs = _not_public(recipe)
    told = [
        "The whole recipe, with the revisions that were loaded, is `recipe.yaml` beside this file. This trains it "
        "again and says whether the new score lies within the interval above:",
        f"```\nhf-finetune reproduce {repo}{needs}\n```",
        "And this trains it with changes:",
        f"```\nhf-finetune train recipe=hub:{repo}{needs} strategy=lora\n```",
    ]
    if needs:
        told.append("The data (or the checkpoint) is not on the Hub: the command names where yours lies.")
    return "\n\n".join(told)


def machine(metrics: dict[str, dict[str, Any]], about: dict[str, Any]) -> str:
    """Versions, hardware, time and energy."""
    train = metrics.get("train", {})
    lines = []
    if about.get("machine"):
        processes = train.get("processes") or 1
        lines.append(f"- Hardware: {about['machine']}" + (f", {processes} processes" if processes > 1 else ""))
    if about.get("number_format"):
        lines.append(f"- Number format: {'fp32' if about['number_format'] == 'no' else about['number_format']}")
    if train.get("seconds") is not None:
        in_all = f", {_time(train['total_seconds'])} in all" if train.get("total_seconds") else ""
        lines.append(f"- Time: {_time(train['seconds'])} of training{in_all}")
    if train.get("energy_kwh") is not None:
        lines.append(f"- Energy: about {_energy(train['energy_kwh'])} (estimated by codecarbon)")
    if found := about.get("versions"):
        lines.append(f"- Versions: {', '.join(f'{name} {version}' for name, version in found.items())}")
    return "\n".join(lines)


def limits(recipe: Recipe, metrics: dict[str, dict[str, Any]], about: dict[str, Any]) -> str:
    """What the scores do not say."""
    samples = metrics.get("test", {}).get("samples")
    lines = []
    if samples:
        lines.append(
            f"- The scores hold for data like the {samples:,} test samples, drawn as the training data was; elsewhere "
            "expect less. `hf-finetune evaluate` measures it on yours."
        )
    else:
        lines.append("- There was no test split: the validation scores chose the model, and flatter it.")
    if len(metrics.get("seeds", {}).get("seeds", ())) < 2:
        lines.append(
            f"- One run with one seed ({recipe.seed}). The intervals tell the chance of the test samples alone."
        )
    if rows := about.get("rows", {}).get("train"):
        lines.append(f"- It learned from {rows:,} samples, with the errors of their labels and what they leave out.")
    if recipe.task == "text-classification":
        lines.append("- It answers for any text, also in a language or on a subject that it never saw.")
    else:
        lines.append("- It answers for any image, also for one that shows none of its labels.")
    lines.append("- Nobody has checked it for fairness between groups of people.")
    return "\n".join(lines)


def _dataset(recipe: Recipe) -> str:
    dataset, revision = recipe.data.dataset, recipe.data.revision
    if not (isinstance(dataset, str) and is_hub_id(dataset)):
        return code(source(recipe))
    config = f", configuration {code(recipe.data.config)}" if recipe.data.config else ""
    commit = f" at {code(revision)}" if revision else ""
    return f"[{code(dataset)}](https://huggingface.co/datasets/{dataset}){config}{commit}"


def _not_public(recipe: Recipe) -> str:
    dataset = recipe.data.dataset
    data = not (isinstance(dataset, str) and (is_hub_id(dataset) or dataset.startswith(("package:", "hf:", "http"))))
    return " data.dataset=YOURS" * data + " model.checkpoint=YOURS" * recipe.model.checkpoint.startswith("./")


def _share(value: object, train: str | None) -> str:
    return f"{value:.0%} of {code(train or 'train')}" if isinstance(value, float) else code(value) if value else ""


def _energy(kilowatt_hours: float) -> str:
    return f"{kilowatt_hours:.2g} kWh" if kilowatt_hours >= 0.1 else f"{1000 * kilowatt_hours:.2g} Wh"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
