"""The plan of the house holds: imports point one way, names do not clash, nothing heavy on the start-up path."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "hf_finetune"
# A room may import rooms of its own floor's row only within itself, and everything below.
FLOORS = [
    {"errors", "orphans", "collector"},
    {"console", "files", "disk", "outputs", "cache_home", "stopping"},
    {"recipes", "prefix_store", "remembered"},
    {"data", "model"},
    {"strategy", "evaluation"},
    {"publish"},
    {"runs"},
    {"training"},
    {"finished", "choice"},
    {"advice"},  # what it runs, it is given
    {"finetune"},
    {"command_words"},
    {"commands", "run_commands", "many_runs", "serving"},
    {"cli"},
    {"run", "__init__"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "hf_finetune" else [f"hf_finetune.{a.name}" for a in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("hf_finetune.")}
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    room = room_of(path)
    if room == "assets":
        return
    for other in imported_rooms(path) - {room, "__init__"}:
        assert other in LEVEL, f"{other} has no floor yet: give it one here and in CONTRIBUTING.md"
        assert LEVEL[other] < LEVEL[room], f"{room} imports {other}, which is not below it"


def test_no_module_is_named_like_another_package():
    """`python hf_finetune/run.py` would put these names first on sys.path."""
    top = {path.name.removesuffix(".py") for path in ROOT.iterdir() if not path.name.startswith("_")}
    assert not top & set(sys.stdlib_module_names)
    installed = {
        "datasets",
        "evaluate",
        "peft",
        "timm",
        "torch",
        "transformers",
        "accelerate",
        "numpy",
        "pandas",
        "yaml",
    }
    assert not top & installed


@pytest.mark.slow
def test_import_of_the_package_is_light(run_in):
    heavy = "torch transformers datasets peft timm sklearn pandas numpy accelerate evaluate"
    code = f"import sys, hf_finetune, hf_finetune.cli; print([m for m in '{heavy}'.split() if m in sys.modules])"
    result = run_in("python", "-c", code)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_samples_are_taken_together_in_one_place():
    asking = [str(path.relative_to(ROOT)) for path in MODULES if 'hasattr(samples, "__getitems__")' in path.read_text()]
    assert asking == ["evaluation/predict.py"]
    by_hand = [str(path.relative_to(ROOT)) for path in MODULES if ', "__getitems__")' in path.read_text()]
    assert by_hand == asking


def test_modules_stay_short():
    too_long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := len(path.read_text().splitlines())) > 250}
    assert not too_long
