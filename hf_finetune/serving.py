"""The verbs of `hf-finetune` with which others use a finished model: serve and demo."""

from __future__ import annotations

from hf_finetune.command_words import amount, count, number, parser_of, take_address, take_model, take_trust


def serve(arguments: list[str]) -> int:
    """Answer over HTTP until told to stop."""
    parser = parser_of(
        "serve",
        "Answer POST /predict as the Hub's Inference API does, and GET /health. Images: raw bytes, a form, or base64 "
        'in JSON; texts: {"inputs": "a text"}. Needs the extra: pip install "hf_finetune[serve]".',
    )
    take_model(parser)
    take_address(parser, 8000)
    parser.add_argument("--max-batch", type=count, default=16, metavar="N", help="inputs answered together (16)")
    parser.add_argument("--wait-ms", type=amount, default=5.0, metavar="MS", help="that an input waits for others (5)")
    parser.add_argument("--max-mb", type=amount, default=10.0, metavar="MB", help="of a request (10)")
    parser.add_argument("--max-megapixels", type=amount, default=40.0, metavar="N", help="of an image (40)")
    parser.add_argument("--max-pending", type=count, default=64, metavar="N", help="requests at a time (64)")
    parser.add_argument("--timeout", type=amount, default=30.0, metavar="S", help="seconds for a request (30)")
    take_trust(parser)
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
    parser = parser_of(
        "demo",
        "A page to try a finished model on: examples of the test split, probabilities, and what mattered. Needs the "
        'extra: pip install "hf_finetune[demo]". With --space, a folder for a Space of the Hub instead.',
    )
    take_model(parser)
    take_address(parser, 7860)
    parser.add_argument("--examples", type=number, default=8, metavar="N", help="of the test split; 0 for none (8)")
    parser.add_argument("--max-mb", type=amount, default=10.0, metavar="MB", help="of an upload (10)")
    parser.add_argument("--space", metavar="DIR", help="write a Space: app.py, requirements.txt, README.md")
    parser.add_argument(
        "--repo", metavar="OWNER/NAME[@COMMIT]", help="of --space: load the model from the Hub; else it is copied"
    )
    take_trust(parser)
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
