"""From a name, a file or a Hub id and its overrides to a typed Recipe, with the origin of every value."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from pydantic import ValidationError

from hf_finetune.console import say
from hf_finetune.errors import Fault, RecipeError, UserError, unreachable
from hf_finetune.recipes import overrides as over
from hf_finetune.recipes.faults import field_faults, with_origin
from hf_finetune.recipes.overrides import Tree
from hf_finetune.recipes.pairs import PairsError
from hf_finetune.recipes.rates import default_learning_rate, rate_in_words
from hf_finetune.recipes.schema import Recipe
from hf_finetune.recipes.shipped import shipped_file
from hf_finetune.recipes.strangers import faults_of_strangers, leave_out_what_is_the_users
from hf_finetune.recipes.yaml_text import LARGEST, Path, read_yaml

HUB = "hub:"
_WITHOUT_RATE = {"features": "features is fitted without one", "auto": "auto chooses one with the strategy"}
_MENDED = 100  # wrong fields without which a recipe is looked at again


@dataclass(frozen=True)
class Resolved:
    """A recipe and how it came about.

    Args:
        recipe: the typed recipe.
        origins: where each key was given, by its path; a path that is not here has its default.
        notes: what went because something else changed, for the user to know.
    """

    recipe: Recipe
    origins: dict[Path, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_recipe(name_or_path: str, *pairs: str) -> Recipe:
    """Load a recipe and lay `dotted.path=value` pairs over it.

    Args:
        name_or_path: a shipped recipe's name, a YAML file, a run's folder, or `hub:owner/name[@revision]`.
        pairs: for example `"strategy=lora"`, `"strategy.r=4"`, `"training.num_train_epochs=1"`.

    Raises:
        RecipeError: everything wrong with the recipe and the pairs at once.
        UserError: there is no such recipe.
    """
    return _told(resolve(name_or_path, pairs, origin="override"))


def from_text(text: str) -> Recipe:
    """The recipe that `Recipe.to_yaml` has written.

    Raises:
        RecipeError: it is none.
    """
    tree, faults = _read(text, "recipe")
    return _resolved(tree, [], "override", faults).recipe


def changed(recipe: Recipe, pairs: Sequence[str]) -> Recipe:
    """The recipe with pairs laid over it; see `Recipe.with_overrides`."""
    tree = Tree({})
    for name, value in recipe.written().items():
        tree.set((name,), value, "the recipe")
    return _told(_resolved(tree, pairs, "override", []))


def _told(resolved: Resolved) -> Recipe:
    for note in resolved.notes:
        say(f"note: {note}")
    return resolved.recipe


def resolve(name_or_path: str, pairs: Sequence[str] = (), *, origin: str = "command line") -> Resolved:
    """Like `load_recipe`, with the origin of each value and the notes beside the recipe."""
    if name_or_path.startswith(HUB):
        tree, faults = _read(*_from_hub(name_or_path.removeprefix(HUB)))
        leave_out_what_is_the_users(tree, _own_folder(name_or_path))
        return _resolved(tree, pairs, origin, faults, stranger=name_or_path)
    file = _file(name_or_path)
    tree, faults = _read(_text(file), file.name)
    return _resolved(tree, pairs, origin, faults)


def _file(name_or_path: str) -> File:
    path = File(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return path
    if (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if len(path.parts) > 1:
        raise UserError(f"recipe={name_or_path}: neither a .yaml file nor a run's folder with a recipe.yaml in it")
    return shipped_file(name_or_path)


def _text(file: File) -> str:
    if file.exists() and not file.is_file():
        raise UserError(f"recipe={file}: no file")  # a pipe or a device, which may never end
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(LARGEST + 1)  # what is longer is refused
    except UnicodeDecodeError as error:
        raise UserError(f"recipe={file}: not a text file ({error})") from error
    except OSError as error:
        raise UserError(f"recipe={file}: cannot be read: {error.strerror}") from error


def _read(text: str, source: str) -> tuple[Tree, list[Fault]]:
    reading = read_yaml(text)
    faults = [Fault(".".join(p) or "recipe", message, f"{source} line {line}") for p, line, message in reading.faults]
    if reading.value is not None and not isinstance(reading.value, dict) and not faults:
        faults.append(Fault("recipe", "must be keys and values, such as `task: image-classification`", source))
    values = reading.value if isinstance(reading.value, dict) else {}
    origins: dict[Path, str] = {(): source}
    origins |= {path: f"{source} line {line}" for path, line in reading.lines.items()}
    tree = Tree(values, origins)
    over.spell_out_kinds(tree)
    return tree, faults


def _from_hub(where: str) -> tuple[str, str]:
    """Text and name of a recipe on the Hub, which is data: reading it runs nothing."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = where.partition("@")
    try:
        file = hf_hub_download(repository, "recipe.yaml", revision=revision or None)
    except HFValidationError as error:
        raise UserError(f"recipe={HUB}{where}: write {HUB}owner/name or {HUB}owner/name@revision") from error
    except LocalEntryNotFoundError as error:
        raise unreachable(
            f"recipe={HUB}{where}: the Hub cannot be reached (or HF_HUB_OFFLINE is set) and the recipe is not in the "
            "local cache; give a .yaml file or the name of a shipped recipe instead"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(f"recipe={HUB}{where}: no recipe.yaml there, or no access to it ({_status(error)})") from None
    return _text(File(file)), f"{HUB}{where}"


def _status(error: Any) -> str:
    """What the Hub answered, without its words: a server may repeat the token that it refuses."""
    return f"{type(error).__name__}, status {error.response.status_code}"


def _own_folder(where: str) -> str:
    """The output_dir of a stranger's recipe."""
    name = where.partition("@")[0].rpartition("/")[2].removeprefix(HUB).lstrip(".")
    return f"runs/{name or 'finetune'}"


def _resolved(
    tree: Tree, pairs: Sequence[str], origin: str, faults: list[Fault], stranger: str | None = None
) -> Resolved:
    values, malformed = over.parse(pairs, origin)
    tree = over.apply(tree, values, origin)
    theirs = faults_of_strangers(tree, stranger) if stranger else []
    recipe = _typed(tree, [*faults, *malformed, *theirs])
    notes = list(tree.notes)
    if tree.rate_dropped:
        rate, kind = default_learning_rate(recipe), recipe.strategy.kind
        notes.append(
            f"{tree.rate_dropped}; {_WITHOUT_RATE[kind]}"
            if kind in _WITHOUT_RATE
            else f"{tree.rate_dropped}; {kind} takes its own default {rate_in_words(recipe, rate)}"
            + ("" if kind == "stages" else " (training.learning_rate=... chooses another)")
        )
    return Resolved(recipe, tree.origins, tuple(notes))


def _typed(tree: Tree, faults: list[Fault]) -> Recipe:
    """The typed recipe, or every fault at once: those known already, those of single fields, those of pairs."""
    if not tree.values and faults:
        raise RecipeError(faults)  # nothing could be read: to say that everything is missing would not help
    recipe, found, wrong = _attempt(tree)
    if 0 < len(wrong) <= _MENDED:
        # Pairs are looked for among the fields that are right, so that no fault waits for a second round.
        rest = Tree(copy.deepcopy(tree.values), dict(tree.origins))
        for path in wrong:
            rest.remove(path)
        _, more, still_wrong = _attempt(rest)
        found += [] if still_wrong else more
    faults = [*faults, *found]
    if recipe is None or faults:
        raise RecipeError(faults)
    return recipe


def _attempt(tree: Tree) -> tuple[Recipe | None, list[Fault], list[Path]]:
    """A recipe, or its faults and the paths of the fields that are wrong (none when only pairs are)."""
    try:
        return Recipe.model_validate(tree.values), [], []
    except ValidationError as error:
        for item in error.errors(include_url=False):
            cause: Any = item.get("ctx", {}).get("error")
            if isinstance(cause, PairsError):
                return None, [with_origin(fault, tree.origins) for fault in cause.faults], []
        faults = field_faults(error, tree.origins)
        return None, faults, [tuple(fault.path.split(".")) for fault in faults]
