"""The verbs of `hf-finetune` with which others use a finished model: serve and demo."""

from __future__ import annotations

import argparse

from hf_finetune.commands import _parser, _trust_flag

_LOOPBACK_HELP = "address to listen on (default 127.0.0.1: this machine alone)"


def serve(arguments: list[str]) -> int:
    """Answer over HTTP until told to stop."""
    parser = _parser(
        "serve",
        "Answer POST /predict as the Hub's Inference API does, and GET /health. Images: raw bytes, a form, or base64 "
        'in JSON; texts: {"inputs": "a text"}. Needs the extra: pip install "hf_finetune[serve]".',
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's output_dir, a folder, or a Hub id")
    parser.add_argument("--host", default="127.0.0.1", help=_LOOPBACK_HELP)
    parser.add_argument("--port", type=_port, default=8000, help="default 8000; 0 takes any that is free")
    parser.add_argument("--max-batch", type=_count, default=16, metavar="N", help="inputs answered together (16)")
    parser.add_argument("--wait-ms", type=_amount, default=5.0, metavar="MS", help="that an input waits for others (5)")
    parser.add_argument("--max-mb", type=_amount, default=10.0, metavar="MB", help="of a request (10)")
    parser.add_argument("--max-megapixels", type=_amount, default=40.0, metavar="N", help="of an image (40)")
    parser.add_argument("--max-pending", type=_count, default=64, metavar="N", help="requests at a time (64)")
    parser.add_argument("--timeout", type=_amount, default=30.0, metavar="S", help="seconds for a request (30)")
    _trust_flag(parser)
    given = parser.parse_args(arguments)
    from hf_finetune.publish.serve import serve_command
    from hf_finetune.publish.serve_limits import Limits

    serve_command(
        given.model,
        host=given.host,
        port=given.port,
        max_batch=given.max_batch,
        wait=given.wait_ms / 1000,
        limits=Limits(given.max_mb, given.timeout, given.max_pending, given.max_megapixels),
        trust_remote_code=given.trust_remote_code,
    )
    return 0


def demo(arguments: list[str]) -> int:
    """Show a page to try a model on, or write the folder of a Space."""
    parser = _parser(
        "demo",
        "A page to try a finished model on: examples of the test split, probabilities, and what mattered. Needs the "
        'extra: pip install "hf_finetune[demo]". With --space, a folder for a Space of the Hub instead.',
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's output_dir, a folder, or a Hub id")
    parser.add_argument("--host", default="127.0.0.1", help=_LOOPBACK_HELP)
    parser.add_argument("--port", type=_port, default=7860, help="default 7860; 0 takes any that is free")
    parser.add_argument("--examples", type=_number, default=8, metavar="N", help="of the test split; 0 for none (8)")
    parser.add_argument("--max-mb", type=_amount, default=10.0, metavar="MB", help="of an upload (10)")
    parser.add_argument("--space", metavar="DIR", help="write a Space: app.py, requirements.txt, README.md")
    parser.add_argument(
        "--repo", metavar="OWNER/NAME[@COMMIT]", help="of --space: load the model from the Hub; else it is copied"
    )
    _trust_flag(parser)
    given = parser.parse_args(arguments)
    if given.repo and not given.space:
        parser.error("--repo belongs to --space")
    if given.space:
        from hf_finetune.publish.space import write_space

        write_space(given.model, given.space, given.repo, given.examples, trust_remote_code=given.trust_remote_code)
        return 0
    from hf_finetune.publish.demo import demo_command

    demo_command(
        given.model,
        host=given.host,
        port=given.port,
        examples=given.examples,
        megabytes=given.max_mb,
        trust_remote_code=given.trust_remote_code,
    )
    return 0


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 on")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 on")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{text}: a port is 0 to 65535")
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return value
