"""Verbs of `hf-finetune` that make many runs, or say which to make: compare, search, advise.

As in `commands.py`, each takes its words of the command line and gives the exit code.
"""

from __future__ import annotations

import json
from pathlib import Path

from hf_finetune import stopping
from hf_finetune.command_words import PRECISIONS, Parser, parser_of, take_trust, writable
from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.recipes.budget import minutes_of

_SHARE, _CHECKPOINT = "share=", "model.checkpoint="


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


def search(arguments: list[str]) -> int:
    """Which values of a recipe's keys score best on validation."""
    parser = parser_of(
        "search",
        "Try values of a recipe's keys and tell which score best on validation, and whether that is more than luck. "
        "The first trial is the recipe as it is. The test split is read once, for the winner (DIR/best.yaml). The same "
        "command goes on where it was interrupted.",
    )
    parser.add_argument(
        "pairs",
        nargs="+",
        metavar="recipe=NAME|key=value",
        help="as for train, and: space=FILE.yaml or '{key: [a, b], key: {low: 1e-5, high: 1e-3, log: true}}', what may "
        "change (the strategy's own if left out); trials=N (20); budget=10min, of training a trial at most (the "
        "recipe's epochs if left out); engine=optuna|ray; out=DIR",
    )
    take_trust(parser)
    given = parser.parse_intermixed_args(arguments)
    names = ("recipe", "space", "trials", "budget", "engine", "out", "precision")
    options, rest = options_of(parser, given.pairs, names)
    if options.get("precision", "auto") not in PRECISIONS:
        parser.error(f"precision={options['precision']}: must be one of {', '.join(PRECISIONS)}")
    minutes = minutes_of(options["budget"]) if "budget" in options else None
    if minutes is None and "budget" in options:
        parser.error(f"budget={options['budget']}: must be minutes of training, such as 10min, 90s or 1.5h")
    trials = options.get("trials", "20")
    if not trials.isascii() or not trials.isdigit():
        parser.error(f"trials={trials}: must be a whole number")
    with stopping.listening():
        from functools import partial

        from hf_finetune.advice.search import search as run_search
        from hf_finetune.finetune import finetune
        from hf_finetune.recipes.load import resolve

        resolved = resolve(options["recipe"], rest)
        for note in resolved.notes:
            say(f"note: {note}")
        run_search(
            resolved.recipe,
            partial(finetune, precision=options.get("precision", "auto"), trust_remote_code=given.trust_remote_code),
            space=options.get("space"),
            trials=int(trials),
            minutes=minutes,
            engine=options.get("engine", "optuna"),
            out=options.get("out"),
        )
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


def advise(arguments: list[str]) -> int:
    """Which strategy to take, at which rate and for how long; which of several checkpoints."""
    parser = parser_of(
        "advise",
        "Look at a part of the training rows through the frozen checkpoint, and say which strategy to take, at which "
        "rate, for how long, and what it will likely score. Nothing is trained.",
    )
    parser.add_argument(
        "pairs",
        nargs="+",
        metavar="recipe=NAME|key=value",
        help="as for train; model.checkpoint=[A,B] ranks several; share=0.1 is the most time, of a full fine-tuning's",
    )
    parser.add_argument("--json", type=writable, metavar="FILE", help="write all that was found as JSON")
    take_trust(parser)
    given = parser.parse_intermixed_args(arguments)
    names = [pair.removeprefix("recipe=") for pair in given.pairs if pair.startswith("recipe=")]
    if len(names) != 1:
        parser.error("give recipe= once: which of them?" if names else "recipe= is missing: which of them?")
    share = _share(given.pairs)
    rest = [pair for pair in given.pairs if not pair.startswith(("recipe=", _SHARE))]
    checkpoints = _several(rest)

    from hf_finetune.recipes.load import resolve

    if checkpoints is None:
        recipes = {"": resolve(names[0], rest).recipe}
    else:
        others = [pair for pair in rest if not pair.startswith(_CHECKPOINT)]
        recipes = {each: resolve(names[0], [*others, f"{_CHECKPOINT}{each}"]).recipe for each in checkpoints}

    from hf_finetune.choice import words
    from hf_finetune.choice.ranking import rank, ranking_in_words
    from hf_finetune.files import write_whole
    from hf_finetune.publish.save import without_nan
    from hf_finetune.training import quiet_libraries, use_every_core

    quiet_libraries()
    use_every_core()
    if checkpoints is None:
        from hf_finetune.choice.advise import advise as ask

        found = {"": ask(recipes[""], share=share, trust_remote_code=given.trust_remote_code)}
    else:
        found = rank(recipes, share=share, trust_remote_code=given.trust_remote_code)
        say(f"\n{ranking_in_words(found)}\n")
    first = next(iter(found.values()))
    settings = "strategy=" if first.kind == first.recipe.strategy.kind else "strategy"  # those of another one go
    gone = (_CHECKPOINT, settings, "training.learning_rate=")
    also = [pair for pair in rest if not pair.startswith(gone)]
    chosen = [f"{_CHECKPOINT}{first.recipe.model.checkpoint}"] if _asked_for_checkpoint(rest) else []
    say(words.in_words(first, names[0], [*chosen, *also]))
    if given.json:
        every = [words.as_dict(each) for each in found.values()]
        found_in_json = without_nan(every if checkpoints is not None else every[0])
        write_whole(given.json, json.dumps(found_in_json, indent=1) + "\n")
    return 0


def _share(pairs: list[str]) -> float:
    text = next((pair.removeprefix(_SHARE) for pair in reversed(pairs) if pair.startswith(_SHARE)), "0.1")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"share={text}: a share of a full fine-tuning's time, above 0 and below 1, such as 0.1")
    return share


def _asked_for_checkpoint(pairs: list[str]) -> bool:
    return any(pair.startswith(_CHECKPOINT) for pair in pairs)


def _several(pairs: list[str]) -> list[str] | None:
    """The checkpoints of `model.checkpoint=[A,B]`, or A,B as compare has it; None where there is one or none."""
    text = next(
        (pair.removeprefix(_CHECKPOINT) for pair in reversed(pairs) if pair.startswith(_CHECKPOINT)), ""
    ).strip()
    is_list = text.startswith("[")
    if not is_list and ("," not in text or Path(text).exists()):
        return None
    names = [name.strip().strip("'\"") for name in text.removeprefix("[").removesuffix("]").split(",")]
    if is_list != text.endswith("]") or not all(names) or len(set(names)) < len(names):
        raise UserError(f"{_CHECKPOINT}{text}: a list of different checkpoints, such as [owner/one,owner/two]")
    return names
