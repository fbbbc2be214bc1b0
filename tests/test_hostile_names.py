"""Labels, columns, texts and file names of strangers are inert: on the terminal, in report.html, in the model card."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from data_samples import photo
from faults.hostile_checkpoints import _RECIPE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from model_samples import save_checkpoint

from hf_finetune.console import inert
from hf_finetune.publish.code_span import code
from hf_finetune.publish.report_page import render
from hf_finetune.publish.report_view import read_material, view_of

NAMES = {
    "script": "<script>window.evil = 1</script>",
    "handler": "\"><img src=x onerror='evil()'>",
    "end of script": "</script></style></title><svg onload=evil()>",
    "frame": "<iframe src=javascript:evil()></iframe>",
    "link": "[click](javascript:evil())",
    "image": "![x](https://them.example/track.png)",
    "backticks": "``` </code> `` <b>x</b>",
    "pipes": "a | b |\n|---|---|",
    "comment": "--><!-- hf_finetune: to here -->",
    "template": "{{ 7 * 7 }}{% raw %}${7*7}",
    "metadata": "x\n---\nlicense: mit\n---\n# y",
    "terminal": "\x1b]0;owned\x07\x1b[31mred\x1b[2J",
    "backwards": "\u202egnp.exe\u202c",
    "formula": "=cmd|' /C calc'!A0",
}
COLUMN = "<script>window.evil=2</script>\x1b[31m"


class Tags(HTMLParser):
    """What of a page a browser acts on."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.scripts, self.handlers, self.addresses, self.said = 0, [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.scripts += tag == "script"
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data")]

    def handle_data(self, data):
        self.said += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose classes, columns and texts are all of NAMES, and what it said."""
    import contextlib
    import io
    import os

    from hf_finetune.cli import main

    folder = tmp_path_factory.mktemp("names")
    save_checkpoint("bert", folder / "model", num_labels=2)
    labels = list(NAMES.values())
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([COLUMN, "label"])
        table.writerows([f"{label} w{3 + n} {n}", label] for n in range(12) for label in labels)
    recipe = yaml.safe_load(_RECIPE)
    recipe["data"]["text"] = COLUMN
    recipe["evaluation"]["bootstrap"] = 10
    (folder / "mine.yaml").write_text(yaml.safe_dump(recipe))
    before, said = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(["train", "recipe=mine.yaml", "precision=no"])
            assert code == 0, said.getvalue()
            assert main(["predict", "out", "w3 <script>", "--batch-size", "2"]) == 0
            assert main(["report", "out"]) == 0
    finally:
        os.chdir(before)
    return folder / "out", said.getvalue()


def test_the_terminal_is_told_nothing_but_text(run):
    _, said = run
    assert not set(said) & {"\x1b", "\x07", "\u202e"}
    assert inert("\x1b[31m\x07\u202e\ud800\r\tx\n") == "\\x1b[31m\\x07\\u202e\\ud800\\r\tx\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_class_name_is_text_in_the_report(run, name):
    page = Tags((run[0] / "report.html").read_text())
    first = NAMES[name].splitlines()[0]
    assert first in page.said and page.scripts == 1 and not page.handlers
    assert "iframe" not in page.tags
    assert all(str(address).startswith(("data:", "#")) for address in page.addresses)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_name_is_text_in_the_card(run, name):
    card = (run[0] / "README.md").read_text()
    header, _, body = card.removeprefix("---\n").partition("\n---\n")
    told = yaml.safe_load(header)
    assert told.get("license") != "mit" and all(isinstance(key, str) for key in told)
    page = Tags(MarkdownIt("commonmark").enable("table").render(body))
    assert not page.tags & {"script", "iframe", "svg", "style", "b"} and not page.handlers
    assert not [one for one in page.addresses if str(one).startswith("javascript") or "them.example" in str(one)]
    shown = Tags(MarkdownIt("commonmark").render(code(NAMES[name])))
    assert shown.tags == {"p", "code"} and shown.said.split() == NAMES[name].split()
    json.loads((run[0] / "config.json").read_text())


def test_a_run_leaves_no_pickle_of_its_arguments(run):
    assert not [path for path in run[0].rglob("*") if path.suffix in (".bin", ".pkl")]


def test_a_broken_file_of_a_hostile_name_is_told_inertly(tmp_path, call):
    for label in ("a", "<img src=x onerror=evil()>"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for n in range(6):
            photo(n).save(tmp_path / "data" / label / f"{n}.png")
    (tmp_path / "data" / "a" / "-rf \x1b[31m\n\u202eevil.png").write_bytes(b"no image")
    (tmp_path / "data" / "a" / "--help.png").write_bytes(b"no image")
    recipe = f"task: image-classification\nmodel: {{checkpoint: x}}\ndata: {{dataset: {tmp_path / 'data'}}}\n"
    (tmp_path / "mine.yaml").write_text(recipe)
    done = call("train", f"recipe={tmp_path / 'mine.yaml'}")
    assert done.returncode == 2 and "--help.png" in done.stderr and "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout and "\u202e" not in done.stderr


def test_what_an_error_repeats_of_a_command_line_holds_no_token(call, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_MarkerThatNobodyMayEverSee42")
    for words in (
        ("train", "recipe=digits", "hf_MarkerThatNobodyMayEverSee42"),
        ("train", "recipe=digits", "training.hub_token=hf_AnotherOneOfThirtyLettersOrSo1"),
        ("push", "hf_MarkerThatNobodyMayEverSee42"),
    ):
        done = call(*words)
        assert done.returncode == 2 and "MarkerThat" not in done.stderr + done.stdout, done.stderr
        assert "AnotherOne" not in done.stderr + done.stdout


HOSTILE = st.one_of(
    st.sampled_from(list(NAMES.values())),
    st.text(max_size=60),
    st.lists(st.sampled_from(["<", ">", '"', "'", "&", "script", "onload=", "</", "-->", "\0", "x"])).map("".join),
)


def _replaced(value, text):
    """Every name in what the page is made of, but the words by which the template chooses and the charts."""
    if isinstance(value, dict):
        kept = ("problem", "chart", "scatter", "residuals", "picture", "heat", "split")
        return {key: inner if key in kept else _replaced(inner, text) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(inner, text) for inner in value]
    return text if isinstance(value, str) else value


@pytest.fixture(scope="module")
def view(run):
    return view_of(read_material(run[0]))


@pytest.fixture(scope="module")
def plain(view):
    return Tags(render([_replaced(view, "name")], None))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE)
def test_whatever_names_are_the_page_has_no_other_parts(view, plain, text):
    hostile = Tags(render([_replaced(view, text)], None))
    assert hostile.tags <= plain.tags and hostile.scripts == 1 and not hostile.handlers
    assert all(str(address).startswith(("data:", "#")) for address in hostile.addresses)


@settings(max_examples=150, deadline=None)
@given(text=HOSTILE)
def test_whatever_a_name_is_a_code_span_holds_it(text):
    page = Tags(MarkdownIt("commonmark").render(f"before {code(text)} after"))
    assert page.tags <= {"p", "code"} and not page.handlers
