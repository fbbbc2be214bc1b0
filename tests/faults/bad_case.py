"""One case of the corpus of bad data: how it is made, what must come of it, and what came of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What a case gives: settings of the data section; `source` is a data set in memory instead.
Given = Mapping[str, Any]
Maker = Callable[[Path], Given]

TEXT, IMAGE = "text-classification", "image-classification"
MOST_SECONDS, MOST_BYTES = 60.0, 4 * 2**30
_LONGEST_MESSAGE = 6000  # characters: more is no message
_MODELS = {TEXT: "bert", IMAGE: "vit"}


@dataclass(frozen=True)
class Case:
    """Bad data and its documented outcome.

    Args:
        name: unique.
        group: of the table of outcomes.
        make: writes the data into an empty folder.
        task: of the recipe.
        refused: what the message says (a regular expression), where the run must stop before training.
        says: what the output says, where the run must finish.
        skipped: rows that the finished run lists in skipped.jsonl.
        extra: settings of the recipe.
        heavy: large: run in a process of its own, with limits.
    """

    name: str
    group: str
    make: Maker
    task: str = TEXT
    refused: str | None = None
    says: str | None = None
    skipped: int = 0
    extra: tuple[str, ...] = ()
    heavy: bool = False

    @property
    def finishes(self) -> bool:
        """Whether the run must finish."""
        return self.refused is None


@dataclass
class Outcome:
    """What came of a case.

    Args:
        case: its name.
        kind: "refused", "finished", or what may not be: "traceback", "died", "hung".
        faults: what differs from what the case says.
        said: the message of a refusal, or the output of a run.
        seconds: of the processor that it took.
        mib: most memory while it ran, where it was measured.
    """

    case: str
    kind: str
    faults: list[str] = field(default_factory=list)
    said: str = ""
    seconds: float = 0.0
    mib: int = 0


class Corpus:
    """The cases of one file: functions made into cases by a decorator."""

    def __init__(self, group: str, task: str = TEXT) -> None:
        self.group, self.task = group, task
        self.cases: list[Case] = []

    def add(self, name: str, make: Maker, **expected: Any) -> None:
        """A case whose maker is at hand."""
        self.cases.append(Case(name, self.group, make, **{"task": self.task, **expected}))

    def __call__(self, **expected: Any) -> Callable[[Maker], Maker]:
        """A case called like the function that makes it."""

        def keep(make: Maker) -> Maker:
            self.add(make.__name__.strip("_").replace("_", " "), make, **expected)
            return make

        return keep


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said


def checkpoints(folder: Path) -> dict[str, Path]:
    """A tiny random model for each task."""
    from model_samples import save_checkpoint

    return {task: save_checkpoint(family, folder / family) for task, family in _MODELS.items()}


def recipe_of(case: Case, given: Given, models: Mapping[str, Path], out: Path) -> Any:
    """Two steps of a tiny model on the case's data."""
    from hf_finetune.recipes.schema import Recipe

    data = {name: value for name, value in given.items() if name != "source"}
    recipe = Recipe.model_validate(
        {
            "task": case.task,
            "model": {"checkpoint": str(models[case.task])},
            "data": {"dataset": "memory", "augment": "none", **data},
            "training": {"max_steps": 2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 8},
            "evaluation": {"bootstrap": 0},
            "output_dir": str(out),
        }
    )
    return recipe.with_overrides(*case.extra) if case.extra else recipe


def run(case: Case, folder: Path, models: Mapping[str, Path]) -> Outcome:
    """Make the data and train on it through the public entry point; compare what comes of it with what must."""
    place = folder / "data"
    place.mkdir(parents=True)
    given = case.make(place)
    recipe = recipe_of(case, given, models, folder / "run")
    started = time.process_time()
    with _captured() as said:
        code = _train(recipe, given.get("source"), folder)
    outcome = Outcome(case.name, "", said=said.getvalue(), seconds=round(time.process_time() - started, 2))
    outcome.kind = {0: "finished", 2: "refused"}.get(code, "traceback")
    outcome.faults += _faults(case, outcome, folder / "run")
    return outcome


def _train(recipe: Any, source: Any, folder: Path) -> int:
    """The exit code of `hf-finetune train`; of `finetune()` for a data set in memory, as the command line gives it."""
    from hf_finetune import finetune
    from hf_finetune.cli import main
    from hf_finetune.console import inert
    from hf_finetune.errors import UserError

    try:
        if source is None:
            path = folder / "recipe.yaml"
            path.write_text(recipe.to_yaml(), encoding="utf-8")
            return main(["train", f"recipe={path}", "precision=no"])
        finetune(recipe, data=source, precision="no")
        return 0
    except UserError as error:
        print(inert(str(error)))
        return 2
    except BaseException:  # whatever it is, a user would see it
        traceback.print_exc()
        return 1


def _faults(case: Case, outcome: Outcome, out: Path) -> Iterator[str]:
    from hf_finetune.console import inert

    said = outcome.said
    wanted = "finished" if case.finishes else "refused"
    if outcome.kind != wanted:
        yield f"{outcome.kind}, and must be {wanted}"
    if "Traceback (most recent call last)" in said:
        yield "a traceback is shown"
    if outcome.kind == "refused" and len(said) > _LONGEST_MESSAGE:
        yield f"a message of {len(said):,} characters"
    if inert(said.replace("\r", "")) != said.replace("\r", ""):
        yield "characters that a terminal obeys"
    if outcome.seconds > MOST_SECONDS:
        yield f"{outcome.seconds:.0f} s"
    pattern = case.says if case.finishes else case.refused
    if pattern and not re.search(pattern, said, re.DOTALL):
        yield f"does not say {pattern!r}"
    if outcome.kind == "finished":
        yield from _faults_of_run(case, out)
    elif (out / "model.safetensors").exists():
        yield "a refused run left a model"


def _faults_of_run(case: Case, out: Path) -> Iterator[str]:
    metrics = json.loads((out / "metrics.json").read_text())
    if not (out / "model.safetensors").is_file() or "validation" not in metrics:
        yield "the run left no model or no scores"
    listed = out / "skipped.jsonl"
    skipped = len(listed.read_text(encoding="utf-8").splitlines()) if listed.exists() else 0
    if skipped != case.skipped:
        yield f"{skipped} rows were skipped, and must be {case.skipped}"
