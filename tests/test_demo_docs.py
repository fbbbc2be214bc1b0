"""The commands of docs/demo.md, and the README's of demo and serve: each is run as it stands, on a tiny model."""

import re
import shlex
import shutil

import pytest
from conftest import REPOSITORY
from report_samples import run_of
from serving_samples import Server

pytest.importorskip("gradio", reason='needs the extra: pip install "hf_finetune[demo]"')
pytest.importorskip("fastapi", reason='needs the extra: pip install "hf_finetune[serve]"')
PAGES = ("docs/demo.md", "README.md")
LINES = [line for page in PAGES for line in (REPOSITORY / page).read_text().splitlines()]
COMMANDS = [
    shlex.split(line.strip(), comments=True)[1:]
    for line in LINES
    if re.match(r"(    )?hf-finetune (demo|serve) ", line)
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    made = run_of(folder, "vit", save_data=True)
    for name in ("digits", "cifar10"):
        shutil.copytree(made.path, folder / "runs" / name)
    return folder


def test_the_pages_show_such_commands():
    assert {words[0] for words in COMMANDS} == {"demo", "serve"} and any("--space" in words for words in COMMANDS)


def test_every_option_of_the_page_is_one(call):
    said = "".join(call(verb, "--help").stdout for verb in ("demo", "serve"))
    for option in set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", (REPOSITORY / "docs/demo.md").read_text())):
        assert option in (said + "--repo-type --data-binary"), option


@pytest.mark.long
@pytest.mark.parametrize("words", [words for words in COMMANDS if "--space" in words], ids=" ".join)
def test_a_space_is_written(runs, words, call):
    shutil.copytree(runs / "runs", call.folder / "runs")
    result = call(*words)
    assert result.returncode == 0, result.stderr
    assert (call.folder / "my-space" / "app.py").is_file()


@pytest.mark.long
@pytest.mark.parametrize("words", [words for words in COMMANDS if "--space" not in words], ids=" ".join)
def test_a_server_is_started(runs, words):
    server = Server(*words, "--port", "0", folder=runs)
    assert server.stop() == 0, server.log.read_text()
