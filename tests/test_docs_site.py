"""The site: built strictly, every page in its navigation, the generated reference current, no link to nowhere."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY
from docs_pages import DOCS, PAGES, text_of


class _Loader(yaml.SafeLoader):
    """mkdocs.yml may hold tags of its own."""


def navigation(entry):
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from navigation(inner)


def site():
    return yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Loader)


def test_every_page_is_in_the_navigation_and_there():
    listed = list(navigation(site()["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    assert site()["strict"] is True


def test_the_recipe_reference_is_the_schema():
    spec = importlib.util.spec_from_file_location("recipe_page", DOCS / "reference" / "recipe_page.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    made = maker.page()
    assert made == text_of("docs/reference/recipe.md"), (
        "python docs/reference/recipe_page.py > docs/reference/recipe.md"
    )
    from hf_finetune.recipes.json_schema import json_schema

    for name, definition in json_schema()["$defs"].items():
        for key in set(definition.get("properties", {})) - {"kind"}:
            assert re.search(rf"^\| `[\w.]*\b{key}` \|", made, re.M), f"{name}: {key} is not in the reference"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    here = (REPOSITORY / page).parent
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text_of(page), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http", "#", "mailto:")):
            assert (here / link.partition("#")[0]).exists(), f"{page}: {link}"


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.name for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "image.html", "recipe.html", "api.html"} <= pages
    text = (tmp_path / "site" / "reference" / "api.html").read_text(encoding="utf-8")
    for name in ("finetune", "load_recipe", "list_recipes", "with_overrides", "predict", "push"):
        assert name in text
    assert (tmp_path / "site" / "files" / "recipes" / "flowers_small.yaml").is_file()
    assert (tmp_path / "site" / "tutorials" / "digits.ipynb").is_file()


def notebook():
    return json.loads((DOCS / "tutorials" / "digits.ipynb").read_text(encoding="utf-8"))


def test_the_notebook_was_executed():
    cells = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [output for output in outputs if output["output_type"] == "error"]
    assert not re.search(r"/(root|tmp|work)/", json.dumps(outputs))


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    written = nbformat.read(DOCS / "tutorials" / "digits.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(written, timeout=300, kernel_name="python3", resources=place).execute()
    assert (tmp_path / "runs" / "notebook_full" / "report.html").is_file()
