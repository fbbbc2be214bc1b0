"""Verbs of `hf-finetune` beside train: of data, of models, of recipes, and of what is kept.

As in `run_commands.py` and `serving.py`, each takes its words of the command line and gives the exit code.
"""

from __future__ import annotations

import math

from hf_finetune.command_words import parser_of, take_model, take_pairs, take_trust, writable
from hf_finetune.console import say
from hf_finetune.disk import size_in_words
from hf_finetune.recipes import list_recipes


def doctor(arguments: list[str]) -> int:
    """What is the matter with a recipe's data."""
    parser = parser_of(
        "doctor", "Report on the data of a recipe: balance, broken rows, copies, likely label errors, leaks."
    )
    parser.add_argument("pairs", nargs="+", metavar="recipe=NAME|key=value", help="as for train")
    parser.add_argument(
        "--json", type=writable, metavar="FILE", help="write all that was found, every suspect, as JSON"
    )
    parser.add_argument("--max-samples", type=int, default=5000, metavar="N", help="rows for the checkpoint to look at")
    take_trust(parser)
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
    parser = parser_of("evaluate", "Score a finished run, or any classification model, on a data set.")
    take_model(parser)
    take_pairs(parser, "such as data.dataset=... data.test_split=...")
    take_trust(parser)
    given = parser.parse_intermixed_args(arguments)
    from hf_finetune.evaluation.commands import evaluate_command

    evaluate_command(given.model, given.pairs, trust_remote_code=given.trust_remote_code)
    return 0


def predict(arguments: list[str]) -> int:
    """Label files, folders, tables or text."""
    parser = parser_of("predict", "Label images or text with a finished run, or any classification model.")
    take_model(parser)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image files, folders, globs, csv/tsv/jsonl/parquet tables; text from standard input where left out or -",
    )
    parser.add_argument("--out", metavar="FILE", help="csv, jsonl or parquet by its ending; else standard output")
    parser.add_argument("--column", metavar="NAME", help="the column of a table to label")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples at a time (default 32)")
    parser.add_argument(
        "--folds", action="store_true", help="the mean of a run's folds answers (evaluation.cross_validation)"
    )
    take_trust(parser)
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
        folds=given.folds,
        trust_remote_code=given.trust_remote_code,
    )


def recipes(arguments: list[str]) -> int:
    """List the shipped recipes, or print one."""
    parser = parser_of("recipes", "List the shipped recipes, or print one with its overrides, every value resolved.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a shipped name, a .yaml file, a run or hub:OWNER/NAME")
    take_pairs(parser)
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
    parser_of("schema", "Print the JSON schema of a recipe, for editors: hf-finetune schema > schema.json").parse_args(
        arguments
    )
    from hf_finetune.recipes.json_schema import schema_text

    say(schema_text().rstrip("\n"))
    return 0


def cache(arguments: list[str]) -> int:
    """List or delete the features of frozen blocks."""
    parser = parser_of("cache", "The kept features of frozen blocks: list them, or delete all, some or one of them.")
    parser.add_argument("action", nargs="?", choices=("list", "clear"), default="list")
    parser.add_argument("key", nargs="?", metavar="KEY", help="the beginning of the key of what to clear")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="clear what was not used for so many days")
    given = parser.parse_intermixed_args(arguments)
    if given.action == "list" and (given.key is not None or given.older_than is not None):
        parser.error("KEY and --older-than belong to clear")
    if given.older_than is not None and not 0 <= given.older_than < math.inf:
        parser.error(f"--older-than={given.older_than:g}: give days, 0 or more")

    from hf_finetune import prefix_store, remembered

    if given.action == "clear":
        if given.key is not None:
            keys = [entry.key[:12] for entry in prefix_store.entries() if given.key and entry.key.startswith(given.key)]
            if len(keys) != 1:
                which = f"begins {len(keys)} keys ({', '.join(keys)})" if keys else "begins no key"
                parser.error(f"KEY={given.key!r} {which}: `hf-finetune cache` lists them; without KEY all are cleared")
        elif given.older_than is None:
            remembered.forget()
        gone, size, left = prefix_store.clear(given.key, given.older_than)
        rest = f"; {left} in use by a run, and left" if left else ""
        say(f"{gone} {'entry' if gone == 1 else 'entries'} cleared, {size_in_words(size)}{rest}")
        return 0
    found = prefix_store.entries()
    for entry in found:
        say(entry.in_words())
    total = size_in_words(sum(entry.meta.bytes for entry in found))
    say(f"{total} in {prefix_store.home()}" if found else f"no features are kept in {prefix_store.home()}")
    return 0
