"""The entry points as a user meets them: pages, faults, exit codes, one rank, nothing written, and quick.

What they say is tested in this process, and in `slow` by starting them as a user does.
"""

import json
import signal
import statistics
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

from hf_finetune import cli as cli_module
from hf_finetune.errors import UserError
from hf_finetune.recipes import list_recipes, load_recipe

RUN = str(REPOSITORY / "hf_finetune" / "run.py")
ENTRY_POINTS = {
    "file": ("python", RUN),
    "module": ("python", "-m", "hf_finetune.run"),
    "command": ("python", "-m", "hf_finetune.cli", "train"),
}


def started(request, *command):
    """`run_in` as a function of the arguments alone."""
    run_in = request.getfixturevalue("run_in")

    def run(*arguments, **environment):
        return run_in(*command, *arguments, **environment)

    run.folder = run_in.folder
    return run


@pytest.fixture(params=["called", pytest.param("started", marks=pytest.mark.slow)])
def cli(request):
    """cli(VERB, *arguments) -> CompletedProcess, in the empty folder `cli.folder`."""
    if request.param == "called":
        return request.getfixturevalue("call")
    return started(request, "python", "-m", "hf_finetune.cli")


@pytest.fixture(params=["called", *(pytest.param(entry, marks=pytest.mark.slow) for entry in ENTRY_POINTS)])
def train(request):
    """train(*arguments) -> CompletedProcess, by each way to start a training."""
    if request.param != "called":
        return started(request, *ENTRY_POINTS[request.param])
    call = request.getfixturevalue("call")
    # What an end is held back by, so that the rank that speaks comes first: nothing waits for it here.
    request.getfixturevalue("monkeypatch").setattr("hf_finetune.cli._LET_SPEAK", 0.0)

    def run(*arguments, **environment):
        return call("train", *arguments, **environment)

    run.folder = call.folder
    return run


def test_a_typo_is_answered_with_the_nearest_name_and_nothing_is_written(train):
    result = train("recipe=cifar10", "traning.learning_rate=1", "strategy=lroa")
    assert result.returncode == 2 and not result.stdout
    assert "training.learning_rate" in result.stderr and "lora" in result.stderr and "command line" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(train.folder.iterdir()) == []


def test_without_a_recipe_the_page_helps(train):
    missing = train("strategy=lora")
    assert missing.returncode == 2 and not missing.stdout and "recipe= is missing" in missing.stderr
    asked = train("--help")
    assert asked.returncode == 0 and not asked.stderr
    for page in (missing.stderr, asked.stdout):
        assert all(name in page and title in page for name, title in list_recipes().items())
        assert "recipe=cifar10 strategy=lora" in page
    assert list(train.folder.iterdir()) == []


def test_one_rank_speaks(train):
    for rank in ("1", "7"):
        result = train("recipe=cifar10", "sed=1", RANK=rank, WORLD_SIZE="8")
        assert (result.returncode, result.stdout, result.stderr) == (2, "", "")
    assert "did you mean seed?" in train("recipe=cifar10", "sed=1", RANK="0", WORLD_SIZE="8").stderr


def test_options_of_the_start_are_faults_like_the_recipes_own(train):
    result = train("recipe=cifar10", "precision=int4", "resume=nowhere", "sed=1", "--trust-remote-cod")
    assert result.returncode == 2
    for words in ("precision (command line)", "bf16", "resume (command line)", "never", "seed", "--trust-remote-cod"):
        assert words in result.stderr


@pytest.mark.slow
def test_running_the_file_does_not_put_its_folder_on_the_path(run_in):
    """hf_finetune/data would hide a `data` of somebody else, and the other way round."""
    code = f"import runpy, sys; sys.path[0] = {str(REPOSITORY / 'hf_finetune')!r}; sys.argv = ['run.py', '--help']\n"
    code += f"try: runpy.run_path({RUN!r}, run_name='__main__')\nexcept SystemExit: pass\nprint(sys.path)"
    result = run_in("python", "-c", code)
    path = result.stdout.splitlines()[-1]
    assert str(REPOSITORY) in path and repr(str(REPOSITORY / "hf_finetune")) not in path


def test_recipes_lists_and_prints(cli):
    listed = cli("recipes")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(list_recipes())
    shown = cli("recipes", "cifar10", "strategy=lora", "--origin", "seed=4")
    assert shown.returncode == 0 and shown.stdout.startswith("# note: the recipe's learning rate")
    assert "# command line" in shown.stdout and "# cifar10.yaml line" in shown.stdout
    (cli.folder / "mine.yaml").write_text(shown.stdout)
    assert load_recipe(str(cli.folder / "mine.yaml")) == load_recipe("cifar10", "strategy=lora", "seed=4")


def test_schema_is_json(cli):
    result = cli("schema")
    assert result.returncode == 0 and json.loads(result.stdout)["title"] == "hf_finetune recipe"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frobnicate",), "there is no verb 'frobnicate'"),
        ((), "a verb is missing"),
        (("recipes", "cifar1"), "did you mean cifar10"),
        (("recipes", "cifar10", "--orign"), "unrecognized arguments: --orign"),
        (("evaluate",), "RUN_OR_MODEL"),
        (("predict", "model", "--batch-size", "0"), "at least 1"),
        (("predict", "model", "--batch-size", "many"), "invalid int value"),
    ],
)
def test_misuse_ends_with_two_and_words(cli, arguments, words):
    result = cli(*arguments)
    assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr
    assert list(cli.folder.iterdir()) == []


@pytest.mark.parametrize("verb", ["evaluate", "predict", "recipes", "schema"])
def test_every_verb_explains_itself(cli, verb):
    result = cli(verb, "--help")
    assert result.returncode == 0 and f"hf-finetune {verb}" in result.stdout


@pytest.mark.parametrize(("fault", "code", "waits"), [(UserError("no"), 2, [3.0]), (KeyboardInterrupt(), 130, [])])
def test_a_rank_that_does_not_speak_lets_the_other_speak_unless_interrupted(monkeypatch, fault, code, waits):
    waited = []

    def fails(arguments):
        raise fault

    monkeypatch.setitem(cli_module._VERBS, "train", fails)
    monkeypatch.setattr(cli_module.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli_module.main(["train"]) == code
    assert waited == waits


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, RUN, "recipe=digits", "training.num_train_epochs=1000", f"output_dir={tmp_path / 'run'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert first.startswith("data: ") and process.returncode == 75
    assert "resume=auto" in stderr and "Traceback" not in stderr


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_fault(run_in):
    result = run_in("bash", "-c", f"set -o pipefail; {sys.executable} -m hf_finetune.cli schema | head -1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "{\n", "")


@pytest.mark.slow
def test_public_names_are_there_and_the_function_is_not_hidden_by_its_module(run_in):
    code = "import hf_finetune, hf_finetune.finetune\nfrom hf_finetune import Recipe, finetune, load_recipe\n"
    code += (
        "print(callable(finetune), callable(hf_finetune.finetune), hf_finetune.__version__, 'Run' in dir(hf_finetune))"
    )
    assert run_in("python", "-c", code).stdout.split() == ["True", "True", "0.1.0", "True"]
    missing = run_in("python", "-c", "from hf_finetune import nothing")
    assert "cannot import name 'nothing'" in missing.stderr


@pytest.mark.slow
def test_the_start_is_quick(run_in):
    def median(*command):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run_in(*command)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    assert median("python", "-c", "import hf_finetune") < 1
    assert median("python", "-m", "hf_finetune.cli", "recipes") < 1
    assert median("python", RUN, "recipe=cifar10", "traning.learning_rate=1") < 1


HEAVY = {"torch", "transformers", "datasets", "peft", "timm", "sklearn", "pandas", "numpy", "accelerate", "evaluate"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "most"),
    [
        (("-c", "import hf_finetune"), 40),
        (("-m", "hf_finetune.cli", "recipes"), 150),
        ((RUN, "recipe=cifar10", "traning.learning_rate=1"), 400),
    ],
)
def test_the_start_imports_little(run_in, command, most):
    """What makes a start slow, whatever else the machine does."""

    def imported(*command):
        result = run_in("python", "-X", "importtime", *command)
        lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
        return result, {line.rpartition("|")[2].strip() for line in lines}

    result, modules = imported(*command)
    modules -= imported("-c", "pass")[1]  # what this Python brings along
    assert "hf_finetune" in modules and not HEAVY & modules and len(modules) < most
    assert (result.returncode, "training.learning_rate" in result.stderr) == (
        (2, True) if RUN in command else (0, False)
    )


@pytest.mark.slow
def test_building_the_schema_is_little_work(run_in):
    """Calls of functions are counted (370,000 with Python 3.11), which other work on the machine does not change."""
    code = (
        "import sys\nfrom itertools import count\ncalls = count()\n"
        "sys.setprofile(lambda frame, event, argument: event.endswith('call') and next(calls) and None)\n"
        "from hf_finetune.recipes import load_recipe\nload_recipe('digits')\nsys.setprofile(None)\nprint(next(calls))"
    )
    assert 10_000 < int(run_in("python", "-c", code).stdout) < 450_000, sys.version


def test_predict_hands_on_its_exit_code(cli):
    """1 where an input could not be read: a script must be able to notice."""
    digits = str(REPOSITORY / "hf_finetune" / "assets" / "digits-vit")
    result = cli("predict", digits, "nothing.png")
    assert result.returncode == 1 and "nothing.png" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("at_work", [False, True])
def test_leaving_runs_what_was_registered_flushes_and_keeps_the_exit_code(at_work):
    program = f"""
import atexit, sys, threading, time, types
from hf_finetune.console import leave
sys.modules["torch"] = types.ModuleType("torch")
atexit.register(lambda: sys.stdout.write("registered "))
if {at_work}:
    threading.Thread(target=lambda: (time.sleep(0.2), sys.stdout.write("thread "))).start()
sys.stdout.write("before ")
leave(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 3
    assert ended.stdout == ("before thread registered " if at_work else "before registered ")


@pytest.mark.parametrize(
    "to",
    ["2>/dev/full", ">/dev/full 2>&1", *(pytest.param(to, marks=pytest.mark.slow) for to in ("2>&-", "2> >(exit)"))],
)
def test_where_the_words_cannot_be_written_the_exit_code_stays(to):
    """A scheduler's script asks for it: a full disk under the log made 1 of it, or Python's own 120."""
    program = """
from hf_finetune import cli, stopping
def stop(words):
    raise stopping.Stopped("SIGTERM", "after step 7 of 9")
cli._VERBS["train"] = stop
cli.start(["train"])
"""
    ended = subprocess.run(["bash", "-c", f'"$0" -c "$1" {to}', sys.executable, program], check=False)
    assert ended.returncode == 75
