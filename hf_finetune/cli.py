"""The console command: `hf-finetune VERB ...`; the verb train, and where the others are."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from hf_finetune import commands, many_runs, run_commands, serving, stopping
from hf_finetune.collector import look_seldom
from hf_finetune.command_words import PRECISIONS
from hf_finetune.console import complain, is_main_process, leave, say
from hf_finetune.disk import of_a_disk
from hf_finetune.errors import Fault, RecipeError, UserError
from hf_finetune.recipes import list_recipes

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
  --accept-changes                go on with an interrupted run though recipe, data or versions are others now

Other verbs (--help tells more):
  hf-finetune recipes [NAME key=value ...] [--origin]     list them, or print one as it would run
  hf-finetune advise recipe=NAME [key=value ...]          which strategy, rate and epochs; what it will likely score
  hf-finetune doctor recipe=NAME [key=value ...]          what is the matter with the data, before you train
  hf-finetune search recipe=NAME [space=FILE.yaml] ...    which values score best on validation; --help tells more
  hf-finetune compare recipe=NAME strategy=head,lora      several ways at equal budgets: scores, tests, which to take
  hf-finetune evaluate RUN_OR_MODEL data.dataset=...      score a finished model on other data
  hf-finetune predict RUN_OR_MODEL INPUT... [--out FILE]  label files, folders, tables or text
  hf-finetune push RUN --repo OWNER/NAME [--private]      a finished run to the Hub: model, card, recipe, scores
  hf-finetune reproduce OWNER/NAME [key=value ...]        train a published run again: is the score in its interval?
  hf-finetune report RUN [RUN2 ...] [--out FILE]          draw report.html again; several runs side by side
  hf-finetune demo RUN_OR_MODEL [--space DIR]             a page to try it on, or the folder of a Space of the Hub
  hf-finetune serve RUN_OR_MODEL [--port N]               answer over HTTP, as the Hub's Inference API does
  hf-finetune export RUN --format onnx [--quantize int8]  a model for other programs, checked on real samples
  hf-finetune cache [clear [KEY] [--older-than DAYS]]     kept features of frozen blocks: list or delete them
  hf-finetune schema                                      JSON schema of a recipe, for editors"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code: 0, 2 for what the user can mend, 75 where the same command goes on: a stopped run, a
    full disk, no network; 130 when interrupted."""
    verb, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    try:
        if verb in ("-h", "--help", "help"):
            return _page()
        if verb not in _VERBS:
            return _page(f"there is no verb '{verb}'" if verb else "a verb is missing")
        return _VERBS[verb](rest)
    except RecipeError as error:
        _complain(str(error), alike=True)
        return error.exit_code
    except UserError as error:
        _complain(str(error))
        return error.exit_code
    except stopping.Stopped as stopped:
        # On all machines at once, as an interrupt.
        _complain(f"\n{stopped}: the same command goes on (resume=auto)", wait=False)
        return stopping.EXIT_STOPPED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stdout = None
        return 0
    except Exception as fault:
        from pathlib import Path

        disk = of_a_disk(fault, [Path.cwd()])
        if disk is None:
            raise
        _complain(str(disk))
        return disk.exit_code
    except KeyboardInterrupt:
        # A newline first: a progress bar may stand unfinished on the line.
        goes_on = verb in ("train", "compare")
        again = ": the same command continues from the last checkpoint (resume=auto)" if goes_on else ""
        _complain(f"\ninterrupted{again}", wait=False)  # by the user, who has ended all processes at once
        return 130
    finally:
        _leave_process_group()  # only now: it lets the other processes notice, and the launcher end this one


def start(argv: Sequence[str] | None = None) -> NoReturn:
    """What the console command and hf_finetune/run.py start: `main`, and out."""
    look_seldom()
    code = main(argv)
    if code == stopping.EXIT_STOPPED:
        stopping.deaf()  # a scheduler that repeats itself would change the code on the way out
    leave(code)


# A launcher ends all processes when one has failed: the one that speaks for all comes first. A process that is still
# there after that has a fault of its own.
_LET_SPEAK = 3.0  # seconds


def _complain(text: str, *, wait: bool = True, alike: bool = False) -> None:
    """Say why the command ends.

    Args:
        text: for the user.
        wait: let the process that speaks for all come first; not where all end at once.
        alike: whether it is the same on every process of a machine.
    """
    # Once on every machine: a recipe that is missing on the second one is not missing on the first.
    if is_main_process() or os.environ.get("LOCAL_RANK") == "0":
        complain(text)
    elif wait:
        time.sleep(_LET_SPEAK)
        if not alike:
            complain(f"process {os.environ.get('RANK')}: {text}")


def _page(complaint: str | None = None) -> int:
    """The page of help: to standard output when asked for; else to standard error with the complaint, exit code 2."""
    titles = list_recipes()
    width = max(map(len, titles), default=0)
    page = _USAGE.format(recipes="\n".join(f"  {name:{width}}  {title}" for name, title in titles.items()))
    if complaint is None:
        say(page)
        return 0
    _complain(f"{page}\n\n{complaint}", alike=True)
    return 2


def _train_until_stopped(arguments: list[str]) -> int:
    """From the first moment on, so that a scheduler gets the same answer while libraries are still being imported."""
    with stopping.listening():
        return _train(arguments)


def _train(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        return _page()
    flags = {word for word in arguments if word in ("--trust-remote-code", "--accept-changes")}
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
    from hf_finetune.finetune import finetune

    finetune(
        resolved.recipe,
        resume=options["resume"],
        precision=options["precision"],
        trust_remote_code="--trust-remote-code" in flags,
        accept_changes="--accept-changes" in flags,
    )
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


_VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": _train_until_stopped,
    "advise": many_runs.advise,
    "doctor": commands.doctor,
    "search": many_runs.search,
    "compare": many_runs.compare,
    "evaluate": commands.evaluate,
    "predict": commands.predict,
    "push": run_commands.push,
    "reproduce": run_commands.reproduce,
    "report": run_commands.report,
    "export": run_commands.export,
    "demo": serving.demo,
    "serve": serving.serve,
    "recipes": commands.recipes,
    "schema": commands.schema,
    "cache": commands.cache,
}

if __name__ == "__main__":
    start()
