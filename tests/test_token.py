"""The token of the Hub is nowhere: not in files, output, logs, command lines, nor where samples are loaded."""

import contextlib
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from hub_process import REPOSITORY, TOKEN, CommandLine, environment
from hub_server import LoopbackHub
from serving_samples import Server

WRONG = "hf_SomeOtherTokenThatIsRefused"
IN_FILE = "hf_TokenOfTheFileThatNobodySees77"
MARKERS = (TOKEN.encode(), WRONG.encode(), IN_FILE.encode())
DIGITS = REPOSITORY / "hf_finetune" / "assets" / "digits.parquet"
_SERVERS_WORDS = re.compile(rb"\(b'X-Error-Message', b'[^']*'\)")
LOUD = """
import logging
import datasets, huggingface_hub, transformers
logging.basicConfig(level=logging.DEBUG, filename="debug.log", force=True)
huggingface_hub.utils.logging.set_verbosity_debug()
datasets.utils.logging.set_verbosity_debug()
transformers.utils.logging.set_verbosity_debug()
for name in ("httpx", "httpcore", "urllib3", "huggingface_hub", "filelock", "fsspec"):
    logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger(name).propagate = True
"""
WORKERS = """
import os, runpy, sys, torch
keep_token_from_workers = runpy.run_path(sys.argv[1])["keep_token_from_workers"]

class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, row):
        return int("HF_TOKEN" in os.environ) + int("HUGGING_FACE_HUB_TOKEN" in os.environ)

def found():
    return sum(int(batch.sum()) for batch in torch.utils.data.DataLoader(Tokens(), 2, num_workers=2))

before = found()
keep_token_from_workers()
keep_token_from_workers()
print(before, found(), os.environ["HF_TOKEN"] == os.environ["HUGGING_FACE_HUB_TOKEN"])
"""


@pytest.mark.slow
def test_workers_that_load_samples_have_no_token(tmp_path):
    more = {"HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-c", WORKERS, str(REPOSITORY / "hf_finetune" / "training" / "worker_environment.py")],
        env=environment("http://127.0.0.1:9", tmp_path, **more),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.split() == ["8", "0", "True"]


class Watch(threading.Thread):
    """Reads the command lines of a process and of all that it starts, again and again."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.ended = process, threading.Event()
        self.lines: set[bytes] = set()
        self.children: set[int] = set()

    def run(self):
        import psutil

        while not self.ended.wait(0.05):
            with contextlib.suppress(psutil.Error, OSError):  # it may end while it is looked at
                own = psutil.Process(self.process)
                for each in (own, *own.children(recursive=True)):
                    self.children |= {each.pid} - {self.process}
                    self.lines |= {Path(f"/proc/{each.pid}/{name}").read_bytes() for name in ("cmdline", "comm")}


def _found_in(folder):
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "token" and any(marker in _ours(path) for marker in MARKERS)
    ]


def _ours(path: Path) -> bytes:
    """A file; the log at debug level without what the server said: this one repeats the token, and httpcore logs it."""
    content = path.read_bytes()
    return _SERVERS_WORDS.sub(b"", content) if path.name == "debug.log" else content


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads command lines from /proc")
def test_the_marker_is_nowhere(tmp_path, monkeypatch):
    """Train, push, report, predict, reproduce, doctor, at debug level, with good, refused and stored tokens."""
    with LoopbackHub({TOKEN: "me", IN_FILE: "me"}) as hub:
        hub.add("me/digits-data", {"data/train-00000-of-00001.parquet": DIGITS.read_bytes()}, "dataset")
        line = CommandLine(tmp_path, hub.url)
        watch = Watch(line._process.pid)
        watch.start()
        try:
            said = _work(line, hub) + _served(tmp_path, monkeypatch)
        finally:
            watch.ended.set()
            line.close()
        watch.join()
        assert watch.children, "no worker was seen"
        assert not [one for one in watch.lines if any(marker in one for marker in MARKERS)]
        assert not [marker for marker in MARKERS if marker in said.encode()]
        assert _found_in(tmp_path) == []
        assert (tmp_path / "debug.log").stat().st_size > 1000  # it was loud
        for repo in hub.repos.values():
            for files in repo.commits.values():
                assert not [name for name, content in files.items() if any(m in content for m in MARKERS)]


def _work(line, hub) -> str:
    """Everything that a run does with the Hub; what all of it said."""
    (line.folder / "home").mkdir(exist_ok=True)
    loud = line.python(LOUD, HF_DEBUG="1")
    assert loud.code == 0, loud.err
    said = []

    def verb(*words, code=0, **options):
        answer = line(*words, **options)
        said.append(answer.out + answer.err)
        assert answer.code == code or words[0] == "reproduce", answer.out + answer.err

    train = ("train", "recipe=digits", "data.dataset=me/digits-data", "data.test_split=0.2")
    few = ("data.max_train_samples=300", "data.max_eval_samples=200", "training.num_train_epochs=1")
    verb(*train, *few, "hub.push=true", "hub.repo=me/first", "training.dataloader_num_workers=2", "cache.prefix=off")
    verb(*train, *few, "hub.push=true", "hub.repo=me/never", "output_dir=runs/never", code=2, HF_TOKEN=WRONG)
    verb("report", "runs/digits")
    verb("report", "runs/digits", "--again")
    verb("evaluate", "runs/digits")
    verb("predict", "runs/digits", "runs/digits/pictures", "--out", "answers.csv")
    verb("push", "runs/digits", "--repo", "me/second", code=2, HF_TOKEN=WRONG)
    hub.fail("POST", "/commit/", times=1, status=500, body={"error": f"cannot do that for {TOKEN}"})
    verb("push", "runs/digits", "--repo", "me/second")
    (line.folder / "home" / "token").write_text(IN_FILE)
    verb("push", "runs/digits", "--repo", "me/third", HF_TOKEN=None)
    verb("reproduce", "me/first", "training.num_train_epochs=1")
    verb("train", "recipe=hub:me/nothing-there", code=2, HF_TOKEN=WRONG)
    verb("doctor", "recipe=digits", "--max-samples", "50", "--json", "doctor.json")
    told = yaml.safe_load((line.folder / "runs" / "digits" / "recipe.yaml").read_text())
    assert told["hub"]["push"] is True and not re.search("token", json.dumps(told["hub"]))
    return "".join(said)


def _served(folder, monkeypatch) -> str:
    """A server of the run, started with the token in its environment, and requests that it cannot answer."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server = Server("serve", str(folder / "runs" / "digits"), "--port", "0", folder=folder)
    try:
        answers = [server.post(body, kind) for body, kind in ((b"x", "image/png"), (b"{", "application/json"))]
        line = Path(f"/proc/{server.process.pid}/cmdline").read_text()
        answers.append(server.ask("GET", "/health"))
    finally:
        server.stop()
    return "".join([line, *server.said, *map(str, answers), server.log.read_text()])
