"""`hf-finetune demo --space`: the folder of a Space of the Hub, which needs hf_finetune no more."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.publish.local_places import is_hub_id
from hf_finetune.publish.parcel import pack
from hf_finetune.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from hf_finetune.publish.demo_page import Page

_PACKAGE = Path(__file__).resolve().parent.parent
# Files of ours that stand beside app.py, under names of their own.
_OWN = (
    "data/images.py",
    "data/long_texts.py",
    "evaluation/attribution.py",
    "evaluation/attribution_images.py",
    "evaluation/attribution_texts.py",
    "publish/demo_page.py",
    "publish/demo_picture.py",
    "publish/demo_shown.py",
    "publish/serve_images.py",
)
_APP = _PACKAGE / "publish" / "templates" / "space_app.py"
_PIXELS = '''"""How samples come together: here one at a time, already normalized by the processor."""

import torch


def collate_images(samples):
    return {"pixel_values": torch.stack([sample["pixel_values"] for sample in samples])}


def normalized(inputs):
    return inputs
'''
_ROOMS = ("hf_finetune.data.", "hf_finetune.evaluation.", "hf_finetune.publish.")
_NEEDS = ("accelerate", "gradio", "numpy", "pillow", "torch", "torchvision", "transformers")
_GRADIO = "6.31.0"  # where none is installed
_MODEL = "space/model"  # what configs call a model that lies beside the app


def write_space(
    model: str, folder: str, repo: str | None = None, examples: int = 8, *, trust_remote_code: bool = False
) -> Path:
    """Write app.py, requirements.txt, README.md and what they need.

    Args:
        model: the output_dir of a finished run.
        folder: to be made.
        repo: owner/name[@commit] of the model on the Hub; without one the model's files are copied.
        examples: of the test split; they are in the folder, so the Space shows them to all.
        trust_remote_code: run code from the Hub that the checkpoint brings, while its test split is read.

    Raises:
        UserError: there is no finished run, the folder is not empty, or the repository's code is not pinned.
    """
    from hf_finetune.model import load_finished
    from hf_finetune.publish.serve import need

    need("demo", "gradio")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--space {folder}: it exists and is not empty. Name a new folder.")
    name, _, commit = (repo or "").partition("@")
    if repo and not is_hub_id(name):
        raise UserError(f"--repo {repo}: must be OWNER/NAME or OWNER/NAME@COMMIT.")
    run = Path(model)
    parcel = pack(run, name or _MODEL)
    recipe = load_recipe(str(run / "recipe.yaml"))
    own_code = any(file.endswith(".py") for file in parcel)
    if repo and own_code and not commit:
        raise UserError(
            f"The model brings code of its own, which a Space runs: name the commit, --repo {name}@COMMIT, or leave "
            "--repo out to copy the model into the Space."
        )
    from hf_finetune.evaluation.commands import predictor_of
    from hf_finetune.publish.demo_answers import examples_of, page_of

    predictor = predictor_of(load_finished(model, trust_remote_code=trust_remote_code), model)
    target.mkdir(parents=True, exist_ok=True)
    rows = examples_of(predictor, recipe, target / "examples", examples) if examples else []
    page = page_of(predictor, recipe, run.name, rows)
    settings = _settings(page, recipe, name, commit, own_code, predictor.loaded.processor)
    _write_app(target, settings)
    if not repo:
        _copy_model(parcel, target / "model")
    (target / "requirements.txt").write_text(requirements(recipe, parcel), encoding="utf-8")
    (target / "README.md").write_text(_readme(page, recipe, name), encoding="utf-8")
    say(f"{target}: python {target / 'app.py'} shows it here; hf upload YOU/NAME {target} --repo-type space sends it.")
    return target


def _settings(page: Page, recipe: Recipe, name: str, commit: str, own_code: bool, processor: Any) -> dict[str, Any]:
    from hf_finetune.data.bands import channels_of
    from hf_finetune.publish.card_usage import reads_otherwise

    return {
        "title": page.title,
        "note": "The page reads inputs as pipelines do: one view, cut." if reads_otherwise(recipe) else "",
        "image": page.image,
        "pair": page.pair,
        "model": name or None,
        "revision": commit or None,
        "own_code": own_code,
        "channels": channels_of(processor) if page.image else None,
        "max_length": None if page.image else recipe.data.max_length,
        "tasks": [{"name": t.name, "problem": t.problem, "labels": list(t.labels)} for t in page.tasks],
        "examples": [Path(one).name if page.image else list(one) for one in page.examples],
    }


def _write_app(target: Path, settings: dict[str, Any]) -> None:
    for file in [*(_PACKAGE / name for name in _OWN), _APP]:
        text = file.read_text(encoding="utf-8")
        for room in _ROOMS:
            text = text.replace(f"from {room}", "from ")
        text = text.replace("from hf_finetune.data import", "from pixels import")
        (target / ("app.py" if file == _APP else file.name)).write_text(text, encoding="utf-8")
    (target / "pixels.py").write_text(_PIXELS, encoding="utf-8")
    words = json.dumps(settings, indent=2, ensure_ascii=False)
    (target / "settings.json").write_text(words + "\n", encoding="utf-8")


def _copy_model(parcel: dict[str, Path | bytes], folder: Path) -> None:
    """What a model is made of; its card, scores and report stay where they are."""
    folder.mkdir()
    for name, content in parcel.items():
        if "/" in name or name.endswith((".md", ".yaml", ".html")) or name == "metrics.json":
            continue
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)


def requirements(recipe: Recipe, parcel: dict[str, Path | bytes]) -> str:
    """The packages that are installed here, up to their next major version."""
    names = [*_NEEDS, *["peft"] * ("adapter_config.json" in parcel)]
    config = parcel["config.json"]
    text = config.decode() if isinstance(config, bytes) else config.read_text(encoding="utf-8")
    names += ["timm"] * ("timm" in text) + ["sentencepiece"] * any(name.endswith(".model") for name in parcel)
    return "".join(f"{name}{_bounds(name)}\n" for name in names)


def _bounds(package: str) -> str:
    try:
        major, minor = version(package).split("+")[0].split(".")[:2]
    except PackageNotFoundError:
        return ""
    return f">={major}.{minor},<{int(major) + 1}"


def _readme(page: Page, recipe: Recipe, name: str) -> str:
    from huggingface_hub import SpaceCardData

    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        gradio = _GRADIO
    dataset = recipe.data.dataset
    data = SpaceCardData(
        title=page.title,
        emoji="🖼️" if page.image else "📝",
        colorFrom="indigo",
        colorTo="yellow",
        sdk="gradio",
        sdk_version=gradio,
        app_file="app.py",
        pinned=False,
        models=[name] if name else None,
        datasets=[dataset] if isinstance(dataset, str) and is_hub_id(dataset) else None,
    )
    told = "the model of `" + name + "`" if name else "the model in `model/`"
    return f"---\n{data.to_yaml().strip()}\n---\n\nA page to try {told} on. Made with hf_finetune.\n"
