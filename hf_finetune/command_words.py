"""What the verbs of `hf-finetune` have in common: a parser that complains as we do, and the words that several take."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from hf_finetune.errors import UserError

PRECISIONS = ("auto", "no", "bf16", "fp16")


class Parser(argparse.ArgumentParser):
    """argparse whose complaints end like all others: one message, one rank, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint as a UserError."""
        raise UserError(f"{message}\n{self.format_usage().strip()}\n{self.prog} --help tells more")


def parser_of(verb: str, description: str) -> Parser:
    """The parser of a verb; options are written out in full."""
    return Parser(prog=f"hf-finetune {verb}", description=description, allow_abbrev=False)


def take_model(parser: Parser) -> None:
    """RUN_OR_MODEL, as `model`."""
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's output_dir, a folder, or a Hub id")


def take_run(parser: Parser) -> None:
    """RUN, as `run`."""
    parser.add_argument("run", metavar="RUN", help="the output_dir of a finished run")


def take_pairs(parser: Parser, help: str | None = None) -> None:
    """Any number of key=value, as `pairs`."""
    parser.add_argument("pairs", nargs="*", metavar="key=value", help=help)


def take_trust(parser: Parser) -> None:
    """--trust-remote-code."""
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code from the Hub that a checkpoint or a metric brings"
    )


def take_address(parser: Parser, port: int) -> None:
    """--host and --port; `port` is the default one."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)"
    )
    parser.add_argument("--port", type=port_number, default=port, help=f"default {port}; 0 takes any that is free")


def writable(text: str) -> str:
    """A file that can be written: found before what takes its time."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: this user may not")
    return text


def number(text: str) -> int:
    """A whole number from 0 on."""
    return _within(int(text), int(text) >= 0, text, "a whole number from 0 on")


def count(text: str) -> int:
    """A whole number from 1 on."""
    return _within(int(text), int(text) >= 1, text, "a whole number from 1 on")


def port_number(text: str) -> int:
    """A port, 0 for any."""
    return _within(int(text), 0 <= int(text) < 65536, text, "a port is 0 to 65535")


def amount(text: str) -> float:
    """A number above 0."""
    return _within(float(text), 0 < float(text) < 1e6, text, "a number above 0")


def _within(value: Any, fits: bool, text: str, allowed: str) -> Any:
    if not fits:
        raise argparse.ArgumentTypeError(f"{text}: {allowed}")
    return value
