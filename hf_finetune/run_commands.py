"""Verbs of `hf-finetune` for finished runs: push, reproduce, report, export."""

from __future__ import annotations

from hf_finetune.command_words import parser_of, take_pairs, take_run, take_trust
from hf_finetune.console import say


def push(arguments: list[str]) -> int:
    """Push a finished run to the Hub."""
    parser = parser_of("push", "Push a finished run to the Hub in one commit: model, card, recipe, scores, report.")
    take_run(parser)
    parser.add_argument(
        "--repo", metavar="OWNER/NAME", help="made if it does not exist; the recipe's hub.repo if left out"
    )
    parser.add_argument("--private", action="store_true", help="make it private")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch, made if it does not exist (default main)")
    given = parser.parse_intermixed_args(arguments)
    from hf_finetune.recipes.hub_section import repository
    from hf_finetune.runs import Run

    hub = Run(given.run).recipe.hub
    repo = given.repo or hub.repo
    if repo is None:
        parser.error("--repo is missing: where to?")
    try:
        repository(repo)
    except ValueError as error:
        parser.error(f"--repo {repo}: must be {error}")
    from hf_finetune.publish.push import push_run

    push_run(given.run, repo, private=given.private or hub.private, revision=given.revision or hub.revision)
    return 0


def reproduce(arguments: list[str]) -> int:
    """Train a published run again; 0 where the new score lies within the published interval, 1 where it does not."""
    parser = parser_of(
        "reproduce",
        "Train a published run again, with its pinned revisions, and say whether the new score lies within the "
        "published interval. Exit code 0: it does; 1: it does not; 2: it cannot be tried.",
    )
    parser.add_argument("where", metavar="OWNER/NAME[@REVISION]")
    take_pairs(parser, "laid over its recipe, such as output_dir=...")
    take_trust(parser)
    given = parser.parse_intermixed_args(arguments)
    from functools import partial

    from hf_finetune.finetune import finetune
    from hf_finetune.publish.reproduced import reproduced

    verdict = reproduced(given.where, given.pairs, partial(finetune, trust_remote_code=given.trust_remote_code))
    say(verdict.words)
    return 0 if verdict.inside else 1


def report(arguments: list[str]) -> int:
    """Draw the page of a finished run, or of several side by side."""
    parser = parser_of("report", "Draw report.html of a finished run again, or one page of several runs side by side.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the output_dir of a finished run")
    parser.add_argument(
        "--out", metavar="FILE", help="default: report.html in the run; of several runs, in this folder"
    )
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="also score the values of this column of the data"
    )
    parser.add_argument(
        "--again", action="store_true", help="ask model and data anew for samples and what mattered in them"
    )
    take_trust(parser)
    given = parser.parse_intermixed_args(arguments)
    from hf_finetune.publish.report_again import report_command

    out = report_command(given.runs, given.out, given.by, again=given.again, trust_remote_code=given.trust_remote_code)
    say(f"{out}")
    return 0


def export(arguments: list[str]) -> int:
    """A finished run as a model for other programs; 0 where it is the same model, 1 where it is not."""
    parser = parser_of(
        "export",
        "Export a finished run, and check it on samples of its test split. Exit code 0: every decision agrees and no "
        "probability differs by more than 0.001; 1: they do; 2: it cannot be exported.",
    )
    take_run(parser)
    take_pairs(parser, "data.* settings, where the data lies elsewhere")
    parser.add_argument(
        "--format",
        choices=("onnx", "merged", "exported-program"),
        required=True,
        help="onnx; merged: adapters in the weights, a plain model folder; exported-program: torch.export's .pt2",
    )
    parser.add_argument(
        "--quantize",
        choices=("int8", "int8-dynamic", "int8-static"),
        help="also an int8 model, by the way that suits the architecture or by the one named",
    )
    parser.add_argument("--out", metavar="DIR", help="default: RUN/FORMAT")
    parser.add_argument("--samples", type=int, default=500, metavar="N", help="test samples to check (default 500)")
    take_trust(parser)
    given = parser.parse_intermixed_args(arguments)
    from hf_finetune.publish.export import export_command

    return export_command(
        given.run,
        given.format,
        quantize=given.quantize,
        out=given.out,
        samples=given.samples,
        overrides=given.pairs,
        trust_remote_code=given.trust_remote_code,
    )
