"""What of a run's folder is pushed: a list of what is allowed, each file without what belongs to this machine."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path, PurePath
from typing import Any

from hf_finetune.errors import UserError
from hf_finetune.publish.about import labels_of, read_about
from hf_finetune.publish.card import model_card
from hf_finetune.publish.card_pictures import FOLDER
from hf_finetune.publish.local_places import as_written, local_places, own_places, public_recipe, without
from hf_finetune.publish.public_report import public_page
from hf_finetune.recipes import Recipe, load_recipe

_WEIGHTS = re.compile(r"(model|adapter_model)(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
_CONFIGS = frozenset({"config.json", "adapter_config.json", "preprocessor_config.json", "processor_config.json"})
_TOKENIZER = frozenset(
    (
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja"),
        *("spiece.model", "sentencepiece.bpe.model", "spm.model"),
    )
)
_REPORT = "report.html"
_PICTURE = re.compile(rf"{FOLDER}/[\w.-]+\.png")
# Keys in which transformers, tokenizers and peft write the place that something was loaded from.
_PLACES = ("_name_or_path", "name_or_path", "base_model_name_or_path", "tokenizer_file", "special_tokens_map_file")

Parcel = dict[str, Path | bytes]


def is_loaded(name: str) -> bool:
    """Whether libraries look for a file of this name when they load a model."""
    return name in _CONFIGS | _TOKENIZER or _WEIGHTS.fullmatch(name) is not None


def recipe_for_others(folder: Path, repo: str) -> Recipe:
    """The recipe of a finished run as it is pushed.

    Raises:
        UserError: the run is not finished.
    """
    recipe = _finished(folder)
    return public_recipe(recipe, repo.partition("/")[2], _local(recipe, read_about(folder)))


def pack(folder: Path, repo: str) -> Parcel:
    """The files of a push by their names in the repository, README.md and recipe.yaml as strangers may see them.

    Args:
        folder: of a finished run.
        repo: owner/name.

    Raises:
        UserError: the run is not finished, has no safetensors, or a file still names a place on this machine.
    """
    recipe = _finished(folder)
    about = read_about(folder)
    local = _local(recipe, about)
    name = repo.partition("/")[2]
    public = public_recipe(recipe, name, local)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))

    parcel: Parcel = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.is_symlink():
            continue
        if _WEIGHTS.fullmatch(path.name) or path.name in _TOKENIZER:
            parcel[path.name] = path
        if path.suffix == ".json" and (path.name in _CONFIGS or path.name.endswith("tokenizer_config.json")):
            parcel[path.name] = _without_places(path, repo)
    if not any(name.endswith(".safetensors") for name in parcel):
        raise UserError(f"{folder} has no weights in safetensors: only these are pushed.")
    parcel |= {name: folder / name for name in _own_code(folder)}
    pictures = sorted((folder / FOLDER).glob("*.png")) if (folder / FOLDER).is_dir() else []
    parcel |= {f"{FOLDER}/{path.name}": path for path in pictures if _PICTURE.fullmatch(f"{FOLDER}/{path.name}")}
    parcel["metrics.json"] = _json(metrics)
    parcel["recipe.yaml"] = public.to_yaml().encode()
    card = model_card(
        public,
        labels_of(about, folder),
        metrics,
        about.get("strategy_table", ""),
        own_code=any(name.endswith(".py") for name in parcel),
        repo=repo,
        about=about,
        pictures=[path.name for path in pictures],
        adapter="adapter_config.json" in parcel,
    )
    parcel["README.md"] = card.encode()
    replacements = _replacements(folder, local, _elsewhere(recipe, about))
    if (folder / _REPORT).is_file():
        page = public_page(folder, name, public, lambda text: without(text, replacements))
        if page is not None:
            parcel[_REPORT] = page
    for name in ("metrics.json", "recipe.yaml", "README.md"):
        content = parcel[name]
        if isinstance(content, bytes):
            parcel[name] = without(content.decode(), replacements).encode()
    return parcel


def _finished(folder: Path) -> Recipe:
    lacking = [name for name in ("recipe.yaml", "config.json", "metrics.json") if not (folder / name).is_file()]
    if lacking:
        raise UserError(
            f"{folder} holds no finished run: {', '.join(lacking)} is missing. Give the output_dir of a finished run."
        )
    return load_recipe(str(folder / "recipe.yaml"))


def _local(recipe: Recipe, about: dict[str, Any]) -> tuple[str, ...]:
    return tuple(about["local"]) if "local" in about else local_places(recipe)


def _elsewhere(recipe: Recipe, about: dict[str, Any]) -> dict[str, str]:
    """Home, working directory and output_dir of the machine that trained, and what stands in their stead."""
    trained = about.get("trained", {})
    output = PurePath(trained.get("cwd", ""), recipe.output_dir)
    return {trained.get("home", ""): "~", trained.get("cwd", ""): ".", str(output): "."}


def _without_places(path: Path, repo: str) -> bytes:
    """A JSON file without the places on this machine that libraries write into it.

    An adapter whose base was no checkpoint of the Hub has the complete base beside it, so it names the repository.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    for key in _PLACES:
        named = value.get(key)
        if isinstance(named, str) and (Path(named).is_absolute() or Path(named).exists() or "\\" in named):
            value[key] = repo
    return _json(value)


def _own_code(folder: Path) -> list[str]:
    """The Python files that the configs name for `trust_remote_code`, and what these import beside them."""
    names: set[str] = set()
    for config in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if (folder / config).is_file():
            named = json.loads((folder / config).read_text(encoding="utf-8")).get("auto_map", {})
            names |= {each.partition(".")[0] for each in _texts(named)}
    found: list[str] = []
    waiting = sorted(names)
    while waiting:
        file = folder / f"{waiting.pop()}.py"
        if file.name in found or not file.is_file():
            continue
        found.append(file.name)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                waiting += [node.module] if node.module else [alias.name for alias in node.names]
    return sorted(found)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [text for each in inner for text in _texts(each)]


def _replacements(folder: Path, local: tuple[str, ...], elsewhere: dict[str, str]) -> dict[str, str]:
    """Every way in which a machine's places may be written, and what stands in their stead."""
    places = {str(Path(each).expanduser().absolute()): f"./{Path(each).name}" for each in local}
    places |= {each: f"./{Path(each).name}" for each in local if len(Path(each).parts) > 1}
    places |= {**elsewhere, str(folder.resolve()): ".", str(folder.absolute()): "."}
    return as_written({**places, **own_places()})


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
