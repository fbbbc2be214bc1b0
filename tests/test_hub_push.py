"""A trained run goes to a Hub on loopback and comes back: the real client, a real server, real failures."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_process import REPOSITORY, TOKEN, CommandLine, environment
from hub_server import LoopbackHub

pytestmark = pytest.mark.slow
WRONG = "hf_SomeOtherTokenThatIsRefused"
DIGITS = REPOSITORY / "hf_finetune" / "assets" / "digits.parquet"
ALLOWED = {
    "config.json",
    "metrics.json",
    "model.safetensors",
    "pictures/confusion_matrix.png",
    "pictures/learning_curve.png",
    "preprocessor_config.json",
    "README.md",
    "recipe.yaml",
    "report.html",
}
TRAIN = (
    "train",
    "recipe=digits",
    "data.dataset=me/digits-data",
    "data.test_split=0.2",
    "training.num_train_epochs=2",
    "hub.push=true",
)


@pytest.fixture(scope="module")
def hub():
    with LoopbackHub({TOKEN: "me"}) as server:
        server.add("me/digits-data", {"data/train-00000-of-00001.parquet": DIGITS.read_bytes()}, "dataset")
        yield server


@pytest.fixture(scope="module")
def line(hub, tmp_path_factory):
    process = CommandLine(tmp_path_factory.mktemp("somebody"), hub.url)
    yield process
    process.close()


@pytest.fixture(scope="module")
def run(hub, line):
    """The folder of a run that was trained and pushed to me/digits."""
    trained = line(*TRAIN, "hub.repo=me/digits")
    assert trained.code == 0, trained.err
    assert "Pushed to" in trained.out
    return line.folder / "runs" / "digits"


@pytest.fixture
def fresh(hub, tmp_path):
    """Python in a new process with an empty cache and no token: fresh(code) -> CompletedProcess."""

    def start(code, **more):
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment(hub.url, tmp_path / "home", **more),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return start


def texts(files):
    return {name: content.decode() for name, content in files.items() if not name.endswith((".safetensors", ".png"))}


def contents(folder: Path):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_one_commit_holds_what_is_allowed_and_nothing_of_this_machine(hub, line, run):
    others = [run / name for name in ("optimizer.pt", "training_args.bin", "labels.pkl", "token", "notes.txt", "a.py")]
    for path in others:
        path.write_text(TOKEN)
    pushed = line("push", "runs/digits", "--repo", "me/full-of-things")
    for path in others:
        path.unlink()
    assert pushed.code == 0, pushed.err
    repo = hub.repo("me/full-of-things")
    assert repo.messages[1:] == [
        f"hf_finetune run: accuracy {json.loads((run / 'metrics.json').read_text())['test']['accuracy']:.4f}"
    ]
    assert set(repo.files) - {".gitattributes"} == ALLOWED
    assert hub.repo("me/digits").files.keys() == repo.files.keys()
    for name, text in texts(repo.files).items():
        for private in (str(line.folder), str(Path.home()) + "/", "somebody", TOKEN):
            assert private not in text, f"{private} in {name}"
    page = repo.files["report.html"].decode()
    assert "runs/full-of-things" in page and "repo: me/digits" not in page and "push: true" not in page
    assert "repo: me/digits" in (run / "report.html").read_text()  # the one in the folder tells it
    recipe = yaml.safe_load(repo.files["recipe.yaml"])
    assert recipe["data"]["revision"] == hub.repo("me/digits-data", "dataset").branches["main"]
    assert recipe["output_dir"] == "runs/full-of-things" and recipe["hub"]["push"] is False


def test_a_fresh_process_gets_the_runs_predictions_and_the_cards_code_runs_as_it_stands(hub, run, fresh):
    code = f"""
        import io, json, re
        import pandas as pd
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
        rows = pd.read_parquet({str(DIGITS)!r})
        saved = pd.read_parquet({str(run / "predictions.parquet")!r})
        images = [Image.open(io.BytesIO(rows["image"][id]["bytes"])) for id in saved["id"]]
        answers = pipeline("image-classification", model="me/digits")(images, top_k=1)
        told = [answer[0] for answer in answers]
        assert [each["label"] for each in told] == saved["prediction"].tolist()
        assert max(abs(each["score"] - max(p)) for each, p in zip(told, saved["probabilities"])) < 1e-5
        AutoModelForImageClassification.from_pretrained("me/digits"), AutoImageProcessor.from_pretrained("me/digits")
        from hf_finetune.recipes import load_recipe
        from hf_finetune.data import load_data
        data = load_data(load_recipe("hub:me/digits"))
        assert data.test["id"][:] == saved["id"].tolist()
        from huggingface_hub import ModelCard
        block = re.search("```python\\n(.*?)```", ModelCard.load("me/digits").text, re.DOTALL)[1]
        exec(block)
        print("all of it")
    """
    import textwrap

    done = fresh(textwrap.dedent(code))
    assert done.returncode == 0 and done.stdout.endswith("all of it\n"), done.stderr[-3000:]
    assert "'score'" in done.stdout


def test_the_card_is_valid_and_tells_the_scores_with_intervals(hub, run, fresh):
    assert hub.asked("POST", "/api/validate-yaml")
    done = fresh(
        """
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
card = ModelCard.load("me/digits")
card.validate()
name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
print(name, [(r.metric_type, r.metric_name, r.metric_value, r.dataset_revision) for r in results])
print(card.data.license, card.data.datasets, card.data.metrics, card.data.pipeline_tag, card.data.library_name)
"""
    )
    assert done.returncode == 0, done.stderr[-3000:]
    test = json.loads((run / "metrics.json").read_text())["test"]
    low, high = test["accuracy_ci95"]
    assert f"'accuracy (95% interval {low:.4f} to {high:.4f})', {test['accuracy']:.6f}" in done.stdout
    assert "apache-2.0 ['me/digits-data'] ['accuracy', 'f1'] image-classification transformers" in done.stdout
    text = hub.repo("me/digits").files["README.md"].decode()
    assert f"| accuracy | {test['accuracy']:.4f} | {low:.4f} to {high:.4f} |" in text
    for said in (
        "hf-finetune reproduce me/digits",
        "pictures/learning_curve.png",
        "pictures/confusion_matrix.png",
        "torch 2",
    ):
        assert said in text


def test_a_published_run_is_reproduced_and_judged(hub, line, run):
    again = line("reproduce", "me/digits", HF_TOKEN=None)
    assert again.code == 0, again.out + again.err
    assert "lies within the published interval" in again.out and "OUTSIDE" not in again.out
    made = f"runs/me--digits-{hub.repo('me/digits').branches['main'][:12]}-reproduced"
    assert "already there" not in again.out and (line.folder / made / "metrics.json").is_file()
    same = line("reproduce", "me/digits", HF_TOKEN=None)
    assert same.code == 0 and f"Compared with the run already there, {made}" in same.out
    files = dict(hub.repo("me/digits").files)
    metrics = json.loads(files["metrics.json"])
    metrics["test"]["accuracy_ci95"] = [0.1, 0.2]
    hub.add("me/boaster", files | {"metrics.json": json.dumps(metrics).encode()})
    outside = line("reproduce", "me/boaster", f"output_dir={made}", HF_TOKEN=None)
    assert outside.code == 1 and "does NOT lie within" in outside.out, outside.err
    del metrics["test"]
    hub.add("me/untested", files | {"metrics.json": json.dumps(metrics).encode()})
    assert line("reproduce", "me/untested").code == 2
    for verb in (("reproduce", "me/nothing-there"), ("train", "recipe=hub:me/nothing-there")):
        missing = line(*verb, HF_TOKEN=WRONG)
        assert missing.code == 2 and "me/nothing-there" in missing.err and WRONG not in missing.err


def test_a_private_data_set_is_asked_for_before_anything_runs(hub, line, run):
    files = dict(hub.repo("me/digits").files)
    for place in ("./photos", "memory:"):
        recipe = yaml.safe_load(files["recipe.yaml"]) | {"data": {"dataset": place}}
        hub.add("me/of-photos", files | {"recipe.yaml": yaml.safe_dump(recipe).encode()})
        asked = line("reproduce", "me/of-photos")
        assert asked.code == 2 and "data.dataset=..." in asked.err


@pytest.mark.parametrize("path", ["/api/repos/create", "/commit/", "/api/validate-yaml", "/preupload/"])
def test_a_server_that_answers_503_twice_is_asked_again(hub, line, run, path):
    name = f"me/after-503{path.strip('/').replace('/', '-')}"
    hub.fail("POST", path, times=2, status=503)
    pushed = line("push", "runs/digits", "--repo", name)
    assert pushed.code == 0, pushed.err
    assert set(hub.repo(name).files) >= ALLOWED and len(hub.repo(name).messages) == 2


def test_a_server_that_asks_to_wait_is_not_asked_before(hub, line, run):
    hub.fail("POST", "/api/repos/create", status=429, Retry_After="2")
    pushed = line("push", "runs/digits", "--repo", "me/patient")
    assert pushed.code == 0 and "Again in 2 s" in pushed.err


def test_a_connection_that_breaks_in_an_upload_is_resumed_and_nothing_is_sent_twice(hub, line, run):
    hub.lfs.clear()
    hub.fail("PUT", "/lfs/", times=1)  # the connection drops in the middle of a file
    hub.fail("POST", "/commit/", times=1, status=500)
    before = hub.asked("PUT", "/lfs/")
    pushed = line("push", "runs/digits", "--repo", "me/resumed")
    assert pushed.code == 0, pushed.err
    large = [name for name in hub.repo("me/resumed").files if name.endswith((".safetensors", ".png"))]
    assert hub.asked("PUT", "/lfs/") - before == len(large) + 1  # the broken one alone goes again
    assert hub.repo("me/resumed").files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert "X-Signature" not in pushed.out + pushed.err


def test_a_refused_token_loses_nothing_and_is_never_shown(hub, line, run):
    before = contents(run)
    refused = line("push", "runs/digits", "--repo", "me/refused", HF_TOKEN=WRONG)
    assert refused.code == 2 and refused.err.rstrip().endswith("hf-finetune push runs/digits --repo me/refused")
    assert "hf auth login" in refused.err and "Nothing is lost" in refused.err and WRONG not in refused.err
    assert contents(run) == before and ("model", "me/refused") not in hub.repos
    none = line("push", "runs/digits", "--repo", "me/refused", HF_TOKEN=None)
    assert none.code == 2 and "no token" in none.err
    foreign = line("push", "runs/digits", "--repo", "them/theirs")
    assert foreign.code == 2 and "write access" in foreign.err and TOKEN not in foreign.err
    command = re.search(r"hf-finetune (push .*)$", refused.err.rstrip())[1]
    assert line(*command.split()).code == 0 and set(hub.repo("me/refused").files) >= ALLOWED


def test_a_run_that_is_to_be_pushed_is_not_trained_with_a_token_that_is_refused(line):
    for token, words in ((WRONG, "refuses the token"), (None, "no token")):
        early = line(*TRAIN, "hub.repo=me/early", "output_dir=runs/early", HF_TOKEN=token)
        assert early.code == 2 and words in early.err and not (line.folder / "runs" / "early").exists()


def test_a_hub_that_stays_away_leaves_the_command_that_finishes_it(hub, line, run):
    hub.fail("POST", "/api/repos/create", times=3, status=502)
    code = "from hf_finetune.publish import push_run; push_run('runs/digits', 'me/away', waits=(0.0, 0.0))"
    away = line.python(code)
    assert away.code == 70 and "PushError" in away.err and "after 3 attempts" in away.err
    assert "hf-finetune push runs/digits --repo me/away" in away.err
    # The command that trained it finishes it too: what is finished is pushed.
    done = line(*TRAIN, "hub.repo=me/away")
    assert done.code == 0 and "nothing to do" in done.out and set(hub.repo("me/away").files) >= ALLOWED, done.err


def test_a_persons_words_stay(hub, line, run):
    assert line("push", "runs/digits", "--repo", "me/edited").code == 0
    repo = hub.repo("me/edited")
    commit = repo.branches["main"]
    assert line("push", "runs/digits", "--repo", "me/edited").code == 0
    assert repo.branches["main"] == commit  # nothing is new: no commit
    old = repo.files["README.md"].decode()
    edited = old.replace("license: apache-2.0", "license: mit\nlanguage: en", 1)
    edited = edited.replace("<!-- hf_finetune: written", "Thanks to grandmother.\n\n<!-- hf_finetune: written", 1)
    repo.commit("main", repo.files | {"README.md": f"{edited}\n## Citation\n\nMe, 2026.\n".encode()}, "by hand")
    shutil.copytree(run, line.folder / "runs" / "changed")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["accuracy"] = 0.1234
    (line.folder / "runs" / "changed" / "metrics.json").write_text(json.dumps(metrics))
    assert line("push", "runs/changed", "--repo", "me/edited").code == 0
    new = repo.files["README.md"].decode()
    assert new.index("Thanks to grandmother.") < new.index("# edited") < new.index("## Citation\n\nMe, 2026.")
    assert "| accuracy | 0.1234 |" in new and new.count("## Scores") == 1
    header = yaml.safe_load(new.split("---")[1])
    assert header["license"] == "mit" and header["language"] == "en"


def test_what_an_earlier_push_left_goes_and_what_a_person_added_stays(hub, line, run):
    theirs = {"pictures/demo.png": b"mine", "vocab.txt": b"mine", "notes.md": b"mine"}
    repo = hub.add("me/grown", theirs)
    grown = line.folder / "runs" / "grown"
    shutil.copytree(run, grown)
    (grown / "pictures" / "more.png").write_bytes((run / "pictures" / "learning_curve.png").read_bytes())
    (grown / "special_tokens_map.json").write_text("{}")
    first = line("push", "runs/grown", "--repo", "me/grown")
    assert first.code == 0 and "also holds vocab.txt" in first.err
    assert {"pictures/more.png", "special_tokens_map.json"} <= set(repo.files)
    assert line("push", "runs/digits", "--repo", "me/grown").code == 0
    assert set(repo.files) == ALLOWED | theirs.keys() and all(repo.files[name] == b"mine" for name in theirs)


def test_private_and_branches(hub, line, run):
    assert line("push", "runs/digits", "--repo", "me/hidden", "--private").code == 0
    assert hub.repo("me/hidden").private and not hub.repo("me/digits").private
    hub.add("me/open", {"a": b"b"})
    exposed = line("push", "runs/digits", "--repo", "me/open", "--private")
    assert exposed.code == 2 and "is public" in exposed.err and set(hub.repo("me/open").files) == {"a"}
    assert line("push", "runs/digits", "--repo", "me/open", "--revision", "tries/one").code == 0
    repo = hub.repo("me/open")
    assert set(repo.files) == {"a"} and set(repo.commits[repo.branches["tries/one"]]) >= ALLOWED


@pytest.mark.distributed
def test_one_of_several_processes_pushes(hub, line):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "hf_finetune.run",
    ]
    trained = subprocess.run(
        [*command, *TRAIN[1:], "hub.repo=me/by-two", "output_dir=runs/by-two", "data.max_train_samples=200"],
        cwd=line.folder,
        env=environment(hub.url, line.folder / "home", HF_TOKEN=TOKEN, ACCELERATE_USE_CPU="true"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert trained.stdout.count("Pushed to") == 1 and len(hub.repo("me/by-two").messages) == 2
    assert "2 processes" in hub.repo("me/by-two").files["README.md"].decode()
    (line.folder / "by-two.log").write_text(trained.stdout + trained.stderr)


def test_no_token_is_in_any_file_or_log(hub, line, run):
    """After all that went before: also of the token that the server refused, and repeated in its answer."""
    for path in line.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in content and WRONG.encode() not in content, path
    for repo in hub.repos.values():
        for files in repo.commits.values():
            assert not [name for name, content in files.items() if TOKEN.encode() in content]
