"""Processes forked to load samples do not get the token of the Hub in their environment: they ask it nothing."""

from __future__ import annotations

import os

from hf_finetune.console import TOKENS

_registered: list[bool] = []


def keep_token_from_workers() -> None:
    """From now on a fork of this process (a DataLoader's worker) forgets the token, before it runs anything else.

    Whatever such a worker starts or runs, the decoder of an image or a collate function of the user's own, finds none.
    Linux still shows the environment that the command itself was started with in /proc/PID/environ, to the same user
    alone; a token that `hf auth login` has put into its file is not there either.
    """
    if hasattr(os, "register_at_fork") and not _registered:
        _registered.append(True)
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for name in TOKENS:
        os.environ.pop(name, None)
