"""The console command: `hf-finetune train|doctor|evaluate|predict|recipes|schema`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from hf_finetune.console import is_main_process, say
from hf_finetune.errors import Fault, RecipeError, UserError
from hf_finetune.recipes import list_recipes

PRECISIONS = ("auto", "no", "bf16", "fp16")

_USAGE = """\
hf-finetune: fine-tune an image or text checkpoint of the Hugging Face Hub; a recipe says how.

  accelerate launch hf_finetune/run.py recipe=NAME|FILE.yaml|hub:OWNER/NAME [key=value ...]
  hf-finetune train recipe=NAME|FILE.yaml|hub:OWNER/NAME [key=value ...]

Examples:
  hf-finetune train recipe=digits                                   handwritten digits; needs no network
  hf-finetune train recipe=cifar10 strategy=lora strategy.r=4       another strategy
  hf-finetune train recipe=cifar10 model.checkpoint=timm/tf_efficientnet_lite0.in1k training.learning_rate=1e-4
  hf-finetune train recipe=sst2 data.max_train_samples=1000 output_dir=runs/try
  accelerate launch --config_file accelerate_configs/multi_gpu.yaml hf_finetune/run.py recipe=cifar10

Recipes:
{recipes}

Of this start, not of a recipe:
  resume=auto|never|PATH          continue an interrupted run (auto), insist on a fresh folder, or a checkpoint
  precision=auto|no|bf16|fp16     number format of the training steps
  --trust-remote-code             run code from the Hub that a checkpoint or a metric brings

Other verbs (--help tells more):
  hf-finetune recipes [NAME key=value ...] [--origin]     list them, or print one as it would run
  hf-finetune doctor recipe=NAME [key=value ...]          what is the matter with the data, before you train
  hf-finetune evaluate RUN_OR_MODEL data.dataset=...      score a finished model on other data
  hf-finetune predict RUN_OR_MODEL INPUT... [--out FILE]  label files, folders, tables or text
  hf-finetune schema                                      JSON schema of a recipe, for editors"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code: 0, 2 for what the user can mend, 130 when interrupted."""
    verb, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    try:
        if verb in ("-h", "--help", "help"):
            return _page()
        if verb not in _VERBS:
            return _page(f"there is no verb '{verb}'" if verb else "a verb is missing")
        return _VERBS[verb](rest)
    except UserError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        # A newline first: a progress bar may stand unfinished on the line.
        again = ": the same command continues from the last checkpoint (resume=auto)" if verb == "train" else ""
        _complain(f"\ninterrupted{again}")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stdout = None
        return 0


def _complain(text: str) -> None:
    # Once on every machine: a recipe that is missing on the second one is not missing on the first.
    if is_main_process() or os.environ.get("LOCAL_RANK") == "0":
        sys.stderr.write(f"{text}\n")


def _page(complaint: str | None = None) -> int:
    """The page of help: to standard output when asked for; else to standard error with the complaint, exit code 2."""
    titles = list_recipes()
    width = max(map(len, titles), default=0)
    page = _USAGE.format(recipes="\n".join(f"  {name:{width}}  {title}" for name, title in titles.items()))
    if complaint is None:
        say(page)
        return 0
    _complain(f"{page}\n\n{complaint}")
    return 2


# --- train -----------------------------------------------------------------------------------------------------------


def _train(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        return _page()
    flags = {word for word in arguments if word == "--trust-remote-code"}
    pairs = [word for word in arguments if word not in flags]
    options = {"recipe": "", "resume": "auto", "precision": "auto"}
    rest = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and key in options:
            options[key] = value
        else:
            rest.append(pair)
    if not options["recipe"]:
        return _page("recipe= is missing: which of them?")

    from hf_finetune.recipes.load import resolve

    faults = _option_faults(options)
    try:
        resolved = resolve(options["recipe"], rest)
    except RecipeError as error:
        raise RecipeError([*faults, *error.faults]) from None
    if faults:
        raise RecipeError(faults)
    for note in resolved.notes:
        say(f"note: {note}")
    try:
        from hf_finetune.finetune import finetune

        finetune(
            resolved.recipe,
            resume=options["resume"],
            precision=options["precision"],
            trust_remote_code=bool(flags),
        )
    finally:
        _leave_process_group()
    return 0


def _option_faults(options: dict[str, str]) -> list[Fault]:
    from pathlib import Path

    faults = []
    if options["precision"] not in PRECISIONS:
        message = f"'{options['precision']}' must be one of {', '.join(PRECISIONS)}"
        faults.append(Fault("precision", message, "command line"))
    resume = options["resume"]
    if resume not in ("auto", "never") and not Path(resume).is_dir():
        message = f"'{resume}' must be auto, never, or the folder of a checkpoint, and there is no such folder"
        faults.append(Fault("resume", message, "command line"))
    return faults


def _leave_process_group() -> None:
    """Without this, about one run in eight of several processes dies after it has finished."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# --- the other verbs -------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints end like all others: one message, one rank, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n{self.format_usage().strip()}\n{self.prog} --help tells more")


def _parser(verb: str, description: str) -> _Parser:
    return _Parser(prog=f"hf-finetune {verb}", description=description, allow_abbrev=False)


def _trust_flag(parser: _Parser) -> None:
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code from the Hub that a checkpoint or a metric brings"
    )


def _doctor(arguments: list[str]) -> int:
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


def _evaluate(arguments: list[str]) -> int:
    parser = _parser("evaluate", "Score a finished run, or any classification model, on a data set.")
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's output_dir, a folder, or a Hub id")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="such as data.dataset=... data.test_split=...")
    _trust_flag(parser)
    given = parser.parse_intermixed_args(arguments)
    from hf_finetune.evaluation.commands import evaluate_command

    evaluate_command(given.model, given.pairs, trust_remote_code=given.trust_remote_code)
    return 0


def _predict(arguments: list[str]) -> int:
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


def _recipes(arguments: list[str]) -> int:
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


def _schema(arguments: list[str]) -> int:
    _parser("schema", "Print the JSON schema of a recipe, for editors: hf-finetune schema > schema.json").parse_args(
        arguments
    )
    from hf_finetune.recipes.json_schema import schema_text

    say(schema_text().rstrip("\n"))
    return 0


_VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "doctor": _doctor,
    "evaluate": _evaluate,
    "predict": _predict,
    "recipes": _recipes,
    "schema": _schema,
}

if __name__ == "__main__":
    sys.exit(main())
