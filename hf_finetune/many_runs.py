"""Verbs of `hf-finetune` that make many runs: compare.

As in `commands.py`, each takes its words of the command line and gives the exit code.
"""

from __future__ import annotations

from hf_finetune import stopping
from hf_finetune.command_words import PRECISIONS, Parser, parser_of, take_trust


def compare(arguments: list[str]) -> int:
    """The same recipe several ways at equal budgets, and which of them to take."""
    parser = parser_of(
        "compare",
        "Train a recipe several ways at equal budgets, and tell how sure it is which is best: scores with intervals "
        "over seeds and test samples, paired tests, time. The same command goes on where it was interrupted.",
    )
    parser.add_argument(
        "pairs",
        nargs="+",
        metavar="recipe=NAME|key=value",
        help="as for train; a key with several values between commas (strategy=head,lora,full) is an axis; seeds=N "
        "trains each with N seeds; budget=10min gives each so many minutes of training, else each has the recipe's "
        "epochs; output_dir=... holds it all",
    )
    take_trust(parser)
    given = parser.parse_intermixed_args(arguments)
    options, rest = options_of(parser, given.pairs, ("recipe", "budget", "precision"))
    if options.get("precision", "auto") not in PRECISIONS:
        parser.error(f"precision={options['precision']}: must be one of {', '.join(PRECISIONS)}")
    with stopping.listening():
        from hf_finetune.advice.compare_plan import plan_of

        plan = plan_of(options["recipe"], rest, options.get("budget"))

        from functools import partial

        from hf_finetune.advice.compare import compare as run_comparison
        from hf_finetune.finetune import finetune

        precision = options.get("precision", "auto")
        run_comparison(plan, partial(finetune, precision=precision, trust_remote_code=given.trust_remote_code))
    return 0


def options_of(parser: Parser, pairs: list[str], names: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """The pairs that are options of the verb, and the rest, which are the recipe's; `recipe` must be there.

    Args:
        parser: that complains.
        pairs: key=value.
        names: of the options.
    """
    options: dict[str, str] = {}
    rest = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and key in names:
            options[key] = value
        else:
            rest.append(pair)
    if not options.get("recipe"):
        parser.error("recipe= is missing: which of them?")
    return options, rest
