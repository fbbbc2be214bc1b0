"""The verbs of `hf-finetune` beside train: each takes its words of the command line and gives the exit code."""

from __future__ import annotations

import argparse
from typing import NoReturn

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.recipes import list_recipes


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints end like all others: one message, one rank, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint as a UserError."""
        raise UserError(f"{message}\n{self.format_usage().strip()}\n{self.prog} --help tells more")


def _parser(verb: str, description: str) -> _Parser:
    return _Parser(prog=f"hf-finetune {verb}", description=description, allow_abbrev=False)


def _trust_flag(parser: _Parser) -> None:
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code from the Hub that a checkpoint or a metric brings"
    )


def doctor(arguments: list[str]) -> int:
    """What is the matter with a recipe's data."""
    parser = _parser(
        "doctor", "Report on the data of a recipe: balance, broken rows, copies, likely label errors, leaks."
    )
    parser.add_argument("pairs", nargs="+", metavar="recipe=NAME|key=value", help="as for train")
    parser.add_argument("--json", metavar="FILE", help="write all that was found, every suspect, as JSON")
    parser.add_argument("--max-samples", type=int, default=5000, metavar="N", help="rows for the checkpoint to look at")
    _trust_flag(parser)
    given = parser.parse_intermixed_args(arguments)
    names = [pair.removeprefix("recipe=") for pair in given.pairs if pair.startswith("recipe=")]
    if len(names) != 1 or given.max_samples < 1:
        parser.error("--max-samples must be at least 1" if names else "recipe= is missing: which of them?")

    from hf_finetune.recipes.load import resolve

    recipe = resolve(names[0], [pair for pair in given.pairs if not pair.startswith("recipe=")]).recipe

    from hf_finetune.advice import examine
    from hf_finetune.files import write_whole

    report = examine(recipe, max_samples=given.max_samples, trust_remote_code=given.trust_remote_code)
    say(report.in_words())
    if given.json:
        write_whole(given.json, report.as_json())
    return 0


def evaluate(arguments: list[str]) -> int:
    """Score a finished model on a data set."""
    parser = _parser("evaluate", "Score a finished run, or any classification model, on a data set.")
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's output_dir, a folder, or a Hub id")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="such as data.dataset=... data.test_split=...")
    _trust_flag(parser)
    given = parser.parse_intermixed_args(arguments)
    from hf_finetune.evaluation.commands import evaluate_command

    evaluate_command(given.model, given.pairs, trust_remote_code=given.trust_remote_code)
    return 0


def predict(arguments: list[str]) -> int:
    """Label files, folders, tables or text."""
    parser = _parser("predict", "Label images or text with a finished run, or any classification model.")
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's output_dir, a folder, or a Hub id")
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image files, folders, globs, csv/tsv/jsonl/parquet tables; text from standard input where left out or -",
    )
    parser.add_argument("--out", metavar="FILE", help="csv, jsonl or parquet by its ending; else standard output")
    parser.add_argument("--column", metavar="NAME", help="the column of a table to label")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples at a time (default 32)")
    _trust_flag(parser)
    given = parser.parse_intermixed_args(arguments)
    if given.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    from hf_finetune.evaluation.commands import predict_command

    return predict_command(
        given.model,
        given.inputs,
        out=given.out,
        column=given.column,
        batch_size=given.batch_size,
        trust_remote_code=given.trust_remote_code,
    )


def push(arguments: list[str]) -> int:
    """Push a finished run to the Hub."""
    parser = _parser("push", "Push a finished run to the Hub in one commit: model, card, recipe, scores, report.")
    parser.add_argument("run", metavar="RUN", help="the output_dir of a finished run")
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
    parser = _parser(
        "reproduce",
        "Train a published run again, with its pinned revisions, and say whether the new score lies within the "
        "published interval. Exit code 0: it does; 1: it does not; 2: it cannot be tried.",
    )
    parser.add_argument("where", metavar="OWNER/NAME[@REVISION]")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="laid over its recipe, such as output_dir=...")
    _trust_flag(parser)
    given = parser.parse_intermixed_args(arguments)
    from functools import partial

    from hf_finetune.finetune import finetune
    from hf_finetune.publish.reproduced import reproduced

    verdict = reproduced(given.where, given.pairs, partial(finetune, trust_remote_code=given.trust_remote_code))
    say(verdict.words)
    return 0 if verdict.inside else 1


def report(arguments: list[str]) -> int:
    """Draw the page of a finished run, or of several side by side."""
    parser = _parser("report", "Draw report.html of a finished run again, or one page of several runs side by side.")
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
    _trust_flag(parser)
    given = parser.parse_intermixed_args(arguments)
    from hf_finetune.publish.report_again import report_command

    out = report_command(given.runs, given.out, given.by, again=given.again, trust_remote_code=given.trust_remote_code)
    say(f"{out}")
    return 0


def export(arguments: list[str]) -> int:
    """A finished run as a model for other programs; 0 where it is the same model, 1 where it is not."""
    parser = _parser(
        "export",
        "Export a finished run, and check it on samples of its test split. Exit code 0: every decision agrees and no "
        "probability differs by more than 0.001; 1: they do; 2: it cannot be exported.",
    )
    parser.add_argument("run", metavar="RUN", help="the output_dir of a finished run")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="data.* settings, where the data lies elsewhere")
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
    _trust_flag(parser)
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


def recipes(arguments: list[str]) -> int:
    """List the shipped recipes, or print one."""
    parser = _parser("recipes", "List the shipped recipes, or print one with its overrides, every value resolved.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a shipped name, a .yaml file, a run or hub:OWNER/NAME")
    parser.add_argument("pairs", nargs="*", metavar="key=value")
    parser.add_argument("--origin", action="store_true", help="say of each value where it came from")
    given = parser.parse_intermixed_args(arguments)
    if given.name is None:
        if given.origin:
            parser.error("--origin needs a recipe")
        titles = list_recipes()
        width = max(map(len, titles), default=0)
        for name, title in titles.items():
            say(f"{name:{width}}  {title}")
        return 0

    from hf_finetune.recipes.load import resolve
    from hf_finetune.recipes.origins import with_origins

    resolved = resolve(given.name.removeprefix("recipe="), given.pairs)
    text = with_origins(resolved) if given.origin else resolved.recipe.to_yaml()
    say("".join(f"# note: {note}\n" for note in resolved.notes) + text.rstrip("\n"))
    return 0


def schema(arguments: list[str]) -> int:
    """Print the JSON schema of a recipe."""
    _parser("schema", "Print the JSON schema of a recipe, for editors: hf-finetune schema > schema.json").parse_args(
        arguments
    )
    from hf_finetune.recipes.json_schema import schema_text

    say(schema_text().rstrip("\n"))
    return 0


def cache(arguments: list[str]) -> int:
    """List or delete the features of frozen blocks."""
    parser = _parser("cache", "The kept features of frozen blocks: list them, or delete all, some or one of them.")
    parser.add_argument("action", nargs="?", choices=("list", "clear"), default="list")
    parser.add_argument("key", nargs="?", metavar="KEY", help="the beginning of the key of what to clear")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="clear what was not used for so many days")
    given = parser.parse_intermixed_args(arguments)
    if given.action == "list" and (given.key is not None or given.older_than is not None):
        parser.error("KEY and --older-than belong to clear")

    from hf_finetune import prefix_store

    if given.action == "clear":
        gone, size, left = prefix_store.clear(given.key, given.older_than)
        rest = f"; {left} in use by a run, and left" if left else ""
        say(f"{gone} {'entry' if gone == 1 else 'entries'} cleared, {prefix_store.size_in_words(size)}{rest}")
        return 0
    found = prefix_store.entries()
    for entry in found:
        say(entry.in_words())
    total = prefix_store.size_in_words(sum(entry.meta.bytes for entry in found))
    say(f"{total} in {prefix_store.home()}" if found else f"no features are kept in {prefix_store.home()}")
    return 0
