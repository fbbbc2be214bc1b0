"""The exit code tells a scheduler whether the same command goes on: 75, or whether somebody must mend it: 2."""

from __future__ import annotations

import errno
import faulthandler
import re
import textwrap
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hf_finetune import cli, stopping
from hf_finetune.disk import disk_error
from hf_finetune.errors import DataError, Fault, RecipeError, TransientError, UserError, unreachable
from hf_finetune.publish.push import PassingPushError, PushError
from hf_finetune.training import watchdog
from hf_finetune.training.agreement import _in_words
from hf_finetune.training.out_of_memory import OutOfMemory
from hf_finetune.training.told import LostProcess

HERE = Path()
ENDS = [
    (UserError("x"), 2),
    (DataError("x"), 2),
    (RecipeError([Fault("seed", "x")]), 2),
    (OutOfMemory("x"), 2),
    (PushError("x"), 2),
    (disk_error("x", errno.EACCES, HERE), 2),  # that would end alike
    (TransientError("x"), 75),
    (LostProcess("x"), 75),
    (PassingPushError("x"), 75),
    *((disk_error("x", number, HERE), 75) for number in (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT)),
    (OSError(errno.ENOSPC, "x", "x"), 75),
    (stopping.Stopped("SIGTERM"), 75),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("fault", "code"), ENDS, ids=lambda value: repr(value)[:40])
def test_what_stands_in_the_way_is_not_what_must_be_mended(monkeypatch, fault, code):
    """All of them but a stopped run ended with 2, at which the documented job of Kubernetes fails for good."""

    def end(words):
        raise fault

    monkeypatch.setitem(cli._VERBS, "train", end)
    assert cli.main(["train"]) == code


def test_the_other_processes_end_with_the_same_kind():
    assert [_in_words(fault)[0].exit_code for fault, code in ENDS if isinstance(fault, LostProcess | DataError)] == [
        2,
        75,
    ]


@pytest.mark.parametrize(("offline", "code"), [(True, 2), (False, 75)])
def test_a_hub_that_the_user_has_switched_off_does_not_come_back(monkeypatch, offline, code):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    assert unreachable("x").exit_code == code


@pytest.mark.slow
def test_a_hub_that_is_not_there_now(run_in):
    """At a port at which nobody listens: a recipe, a checkpoint and a data set of the Hub."""
    script = textwrap.dedent(
        """
        import time
        time.sleep = lambda seconds: None  # the client waits 23 s for each request
        from hf_finetune.cli import main
        more = ("data.max_train_samples=60", "output_dir=run", "precision=no")
        print(main(["train", "recipe=hub:nobody/nothing"]))
        print(main(["train", "recipe=digits", "model.checkpoint=nobody/nothing", *more]))
        print(main(["train", "recipe=digits", "data.dataset=nobody/nothing", *more]))
        """
    )
    away = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(run_in.folder / "home")}
    result = run_in("python", "-c", script, **away)
    assert re.findall(r"^\d+$", result.stdout, re.MULTILINE) == ["75"] * 3, result.stdout + result.stderr
    assert result.stderr.count("the Hub cannot be reached") == 3 and "Traceback" not in result.stderr


def test_the_table_of_the_documentation_has_them_all():
    page = (REPOSITORY / "docs" / "interruptions.md").read_text()
    codes = re.findall(r"^\| (\d+)\b", page, re.MULTILINE)
    assert {"0", "1", "2", str(stopping.EXIT_STOPPED), str(watchdog.EXIT_HANGING), "130"} <= set(codes)


# --- of a process that hangs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [60, 600, 1800, 7200])
@pytest.mark.parametrize("since", [0.0, 0.5, 0.99])
def test_a_hang_ends_with_its_own_code_wherever_it_began(monkeypatch, timeout, since):
    """faulthandler, which ends with 1, was armed for too short a time where the last beat did not arm it again."""
    now, armed = [1000.0], []
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: armed.append(now[0] + seconds))
    dog = watchdog.Watchdog(timeout, 0, 2)
    dog.beat()
    now[0] += since * dog.limit / 20
    dog.beat()
    assert len(armed) == 1
    looks_again, tells = 1.0, 1.0
    assert armed[-1] > now[0] + dog.limit + looks_again + tells + dog.grace


def test_a_hang_ends_also_where_nothing_can_be_written(monkeypatch):
    ended = []
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(watchdog, "_stream", lambda: full)
        monkeypatch.setattr(watchdog.os, "_exit", lambda code: (ended.append(code), dog._done.set()))
        dog = watchdog.Watchdog(0.02, 0, 2)
        dog._thread.start()  # without `beat`, which would arm faulthandler for this process
        dog._thread.join(10)
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.close()
    assert ended == [watchdog.EXIT_HANGING]
