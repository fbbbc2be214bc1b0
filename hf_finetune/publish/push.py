"""A finished run to the Hub in one commit, again and again until it is there or cannot be."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.console import is_main_process, say, warn
from hf_finetune.errors import TransientError, UserError
from hf_finetune.publish.licence import licence_of, with_licence
from hf_finetune.publish.own_part import files_of, merge, recorded, with_metadata, words_of_a_person
from hf_finetune.publish.parcel import Parcel, is_loaded, pack, recipe_for_others
from hf_finetune.publish.retry import GivenUp, again, may_pass, refused, status_of, told

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hf_finetune.recipes.hub_section import Hub

# Seconds between attempts. The client waits by itself too, up to 23 s, for each single request that it may repeat.
WAITS = (1.0, 4.0, 15.0)


class PushError(UserError):
    """The run is whole in its folder, and is not on the Hub; the message ends with the command that pushes it."""


class PassingPushError(TransientError, PushError):
    """It may be there a little later: the network, or a Hub that is busy. Training again pushes what is finished."""


def check_hub(hub: Hub) -> None:
    """Before a run that is to be pushed: is there a token, and does the Hub take it? Asked by the process that pushes.

    Raises:
        UserError: there is no token, the Hub refuses it, or the network is switched off.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    if not is_main_process():  # the others push nothing, and may lie on machines without a token
        return
    if is_offline_mode():
        raise UserError(
            "hub.push=true, and HF_HUB_OFFLINE is set: unset it, or train without and `hf-finetune push` later."
        )
    if get_token() is None:
        raise UserError("hub.push=true, and there is no token of the Hub: `hf auth login`, or set HF_TOKEN.")
    try:
        HfApi().whoami()
    except HfHubHTTPError as error:
        if status_of(error) in (401, 403):
            raise UserError(f"hub.push=true: {refused(error)}") from None
        warn(f"the Hub does not answer now ({told(error)}); the run is pushed when it is finished.")
    except Exception as error:
        if not may_pass(error):
            raise
        warn(f"the Hub cannot be reached now ({told(error)}); the run is pushed when it is finished.")


def push_run(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    waits: tuple[float, ...] = WAITS,
) -> str:
    """Push a finished run, and return the address of what is there then.

    One commit holds weights, configuration, processor or tokenizer, adapter, model card, recipe.yaml, metrics.json,
    report.html and pictures, and nothing else of the folder; files that an earlier push listed and this run has not
    go away. What a person wrote in the README, there or here, stays. The token comes from the Hub's usual places.

    Args:
        folder: of a finished run; nothing in it is changed.
        repo: owner/name; made if it does not exist.
        private: whether it is made private.
        revision: the branch, made if it does not exist; main if left out.
        waits: seconds between attempts.

    Raises:
        PushError: the Hub refuses, or did not answer in all attempts.
        UserError: the folder holds no finished run, or there is no token.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.utils import disable_progress_bars

    folder = Path(folder)
    command = push_command(folder, repo, private, revision)
    parcel = pack(folder, repo)
    if is_offline_mode():
        raise PushError(f"HF_HUB_OFFLINE is set: nothing was pushed. Unset it, then:\n  {command}")
    if get_token() is None:
        raise PushError(f"There is no token of the Hub: `hf auth login`, or set HF_TOKEN. Then:\n  {command}")
    # Its warnings hold addresses of the storage, which are signed, and its bars would fill a log.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    disable_progress_bars()
    api = HfApi()

    def attempt() -> str:
        return _attempt(api, folder, parcel, repo, private, revision)

    try:
        address = again(attempt, waits)
    except GivenUp as given:
        kind = PassingPushError if given.passing else PushError
        raise kind(
            f"Not pushed to {repo}: {given.words}\nNothing is lost: the run is whole in {folder}. This finishes it:\n"
            f"  {command}"
        ) from None
    say(f"Pushed to {address}")
    return address


def push_command(folder: Path, repo: str, private: bool, revision: str | None) -> str:
    """The command that pushes a run."""
    words = ["hf-finetune", "push", str(folder), "--repo", repo, *["--private"] * private]
    return shlex.join([*words, *(["--revision", revision] if revision else [])])


def _attempt(api: HfApi, folder: Path, parcel: Parcel, repo: str, private: bool, revision: str | None) -> str:
    """Everything from the beginning; what is there already is not sent again."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(repo, private=private or None, exist_ok=True)
    info = api.model_info(repo)
    if private and info.private is False:
        raise UserError(f"{repo} exists and is public, and a private push was asked for: nothing was pushed.")
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)
        info = api.model_info(repo, revision=revision)
    there = {entry.rfilename for entry in info.siblings or []}
    old = _remote_readme(api, repo, info.sha) if "README.md" in there else ""
    files = parcel | {"README.md": _readme(api, folder, parcel, repo, old)}
    pushed_before = files_of(old)
    if strange := sorted(name for name in there - pushed_before - set(files) if is_loaded(name)):
        warn(f"{repo} also holds {', '.join(strange)}, of no push of ours: left there, and loaded with the model.")
    operations: list[Any] = [
        CommitOperationDelete(path_in_repo=name) for name in sorted(there & pushed_before) if name not in files
    ]
    operations += [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content))
        for name, content in files.items()
    ]
    made = api.create_commit(
        repo,
        operations,
        commit_message=_message(parcel),
        revision=revision,
        parent_commit=info.sha,  # nobody's change of the README is lost between reading and writing it
    )
    return f"{api.endpoint}/{repo}/tree/{revision or 'main'} (commit {made.oid[:12]})"


def _readme(api: HfApi, folder: Path, parcel: Parcel, repo: str, there: str) -> bytes:
    """Our card with what a person wrote: on the Hub, else in the run's folder."""
    new = parcel["README.md"]
    assert isinstance(new, bytes)
    text = with_licence(new.decode(), licence_of(api, recipe_for_others(folder, repo)))
    text = recorded(text, parcel)
    file = folder / "README.md"
    here = file.read_text(encoding="utf-8") if file.is_file() else ""
    text = with_metadata(text, here)
    merged = merge(text, here if words_of_a_person(here) and not words_of_a_person(there) else there)
    if merged.edited:
        say("note: the written part of README.md had been changed by hand; what it became stays above the new one.")
    return with_metadata(merged.text, there).encode()


def _remote_readme(api: HfApi, repo: str, commit: str | None) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:  # into a folder: a cache could give an older one
        file = api.hf_hub_download(repo, "README.md", revision=commit, local_dir=scratch)
        return Path(file).read_text(encoding="utf-8")


def _message(parcel: Parcel) -> str:
    """The commit's first line: the score."""
    metrics = json.loads(parcel["metrics.json"]) if isinstance(parcel["metrics.json"], bytes) else {}
    test = metrics.get("test", {})
    scored = [f"{name} {value:.4f}" for name, value in test.items() if f"{name}_ci95" in test and value is not None]
    return f"hf_finetune run: {scored[0]}" if scored else "hf_finetune run"
