"""Every bash, console and Python block of README.md and docs/ is run, page by page (tests/docs_pages.py says how).

Other tests run the README's commands (test_readme.py), those of docs/hub.md (test_hub_docs.py) and the table of
docs/techniques.md (test_techniques.py). Commands that stand in other pages without a fence and a language are resolved
here: a key that does not exist, or a recipe that is not there, is found.
"""

import ast
import re
import shlex

import docs_pages
import pytest
from conftest import REPOSITORY
from docs_pages import PAGES, blocks, needs, run_page, tutorials
from hub_process import TOKEN, CommandLine
from hub_server import LoopbackHub
from model_samples import save_checkpoint

from hf_finetune import load_recipe
from hf_finetune.advice.compare_plan import plan_of
from hf_finetune.cli import _VERBS
from hf_finetune.many_runs import _several

# Fragments about runs that the reader has, and scripts that are given arguments: not run from top to bottom.
ELSEWHERE = {
    "docs/demo.md": "tests/test_demo_docs.py and tests/test_serve_endpoint.py",
    "docs/export.md": "tests/test_export_graph.py",
    "docs/interruptions.md": "tests/test_interruptions_docs.py",
    "docs/outputs.md": "tests/test_publish_save.py and tests/test_strategy_peft.py",
    "docs/tasks.md": "tests/test_tasks_run.py",
}
RUNNABLE = [page for page in tutorials() if page not in ELSEWHERE]
TUTORIALS = {f"docs/tutorials/{name}.md" for name in (
    "image", "text_lora", "your_data", "strategy", "several_gpus", "push_and_reproduce", "notebook")}  # fmt: skip


IN_CI = ("docs/tutorials/image.md",)  # all of them take four minutes


def marked(page):
    marks = [pytest.mark.slow if page in IN_CI else pytest.mark.long]
    if needs(page) == "real":
        marks.append(pytest.mark.real)
    return pytest.param(page, marks=marks, id=page)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", [marked(page) for page in RUNNABLE if needs(page) != "hub"])
def test_a_page_runs_from_top_to_bottom(page, call, tmp_path, monkeypatch):
    call.folder.mkdir()
    monkeypatch.chdir(call.folder)
    places = {"text": str(save_checkpoint("bert", tmp_path / "text"))}
    names: dict = {"__name__": "__main__"}

    def verb(*words):
        done = call(*words)
        return done.returncode, done.stdout + done.stderr

    count = run_page(page, call.folder, places, verb, lambda code: exec(compile(code, page, "exec"), names))
    assert count


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUNNABLE if needs(page) == "hub"])
def test_a_page_of_the_hub_runs_from_top_to_bottom(page, tmp_path):
    with LoopbackHub({TOKEN: "YOU"}) as hub:
        line = CommandLine(tmp_path, hub.url)

        def verb(*words):
            answer = line(*words)
            return answer.code, answer.out + answer.err

        def python(code):
            done = line.python(code)
            assert done.code == 0, done.err

        try:
            assert run_page(page, tmp_path, {}, verb, python)
        finally:
            line.close()


def test_the_tutorials_are_there_and_are_run():
    assert set(RUNNABLE) >= TUTORIALS
    for page in TUTORIALS:
        kept = [block for block in blocks(page) if block.language in docs_pages.RUN]
        assert sum(block.skipped for block in kept) <= len(kept) / 2, f"{page}: most of it is skipped"


def test_blocks_are_of_a_known_kind():
    for page in PAGES:
        for block in blocks(page):
            assert block.language in (*docs_pages.RUN, "", "text", "yaml", "json"), f"{page}: {block.language}"
            if block.language == "python":
                ast.parse(block.body)


_LAUNCHED = r"(?:accelerate launch|torchrun|python)\b.*?hf_finetune[./]\w+(?:\.py)?"
_LINE = re.compile(rf"(?:\w+=\S+ )*(?:hf-finetune (\w+)|{_LAUNCHED}) (.*)")


def commands(page):
    """Command lines of ours anywhere in a page: fenced, indented or between back ticks, as (line, words)."""
    text = docs_pages.text_of(page).replace("\\\n", " ")
    lines = [line.strip().partition("  #")[0] for line in text.splitlines() if re.match(r"^( {4})?[a-zA-Z]", line)]
    lines += re.findall(r"`((?:hf-finetune|accelerate launch|torchrun)[^`\n]+)`", text)
    for line in lines:
        match = _LINE.match(line)
        if match and " and " not in line.partition("#")[0][:40]:
            yield line, match[1] or "train", match[2]


LINES = [(page, *found) for page in PAGES for found in commands(page)]


def test_commands_were_found():
    assert len({line for _, line, *_ in LINES}) > 40 and "docs/launching.md" in {page for page, *_ in LINES}


@pytest.mark.parametrize(("page", "line", "verb", "rest"), LINES, ids=[f"{page}: {line}" for page, line, *_ in LINES])
def test_every_command_line_is_one(page, line, verb, rest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verb in _VERBS, line
    words = shlex.split(rest, comments=True)
    recipe = next((word.partition("=")[2] for word in words if word.startswith("recipe=")), "")
    if not recipe or recipe.isupper() or recipe.startswith("hub:") or "/" in recipe or recipe.endswith(".yaml"):
        return
    launch = ("recipe=", "resume=", "precision=", "-", "[", "space=", "trials=", "budget=", "engine=", "out=")
    pairs = [word for word in words if "=" in word and not word.startswith(launch)]
    if verb == "compare":
        options = dict(pair.split("=", 1) for pair in pairs if pair.startswith("budget="))
        plan_of(recipe, [pair for pair in pairs if not pair.startswith("budget=")], options.get("budget"))
    elif verb == "advise":
        pairs = [pair for pair in pairs if not pair.startswith("share=")]
        several = [f"model.checkpoint={each}" for each in _several(pairs) or ()]
        rest_of = [pair for pair in pairs if not (several and pair.startswith("model.checkpoint="))]
        for each in several or [None]:
            load_recipe(recipe, *rest_of, *([each] if each else []))
    elif not ({"hed"} & {pair.partition("=")[2] for pair in pairs}):
        load_recipe(recipe, *pairs)


def test_fragments_of_other_pages_have_their_tests():
    for page, tests in ELSEWHERE.items():
        assert (REPOSITORY / page).is_file()
        for name in re.findall(r"tests/\w+\.py", tests):
            assert (REPOSITORY / name).is_file(), name
