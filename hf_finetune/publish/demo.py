"""`hf-finetune demo`: a page to try a finished model on, on this machine alone unless told otherwise."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.console import say, warn
from hf_finetune.errors import UserError
from hf_finetune.publish.serve import listen, need, until_told
from hf_finetune.publish.serve_limits import LOOPBACK, Limits

if TYPE_CHECKING:
    from hf_finetune.publish.demo_page import Page
    from hf_finetune.recipes import Recipe


def demo_command(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    examples: int = 8,
    megabytes: float = 10.0,
    trust_remote_code: bool = False,
) -> None:
    """Show the page until SIGTERM or Ctrl-C.

    Args:
        model: an output_dir, a folder or a Hub id.
        host: the address to listen on.
        port: 0 takes any that is free.
        examples: of the run's test split, to click on.
        megabytes: most of an upload.
        trust_remote_code: run code from the Hub that the checkpoint brings.

    Raises:
        UserError: gradio is missing, the port is taken, there is no such model, or it takes no images that a page can
            show.
    """
    need("demo", "gradio")
    from hf_finetune.publish.demo_answers import DemoAnswers, examples_of, page_of

    with listen(host, port) as tried:  # before the model is loaded, which takes longer
        port = tried.getsockname()[1]
    from hf_finetune.evaluation.commands import predictor_of, recipe_in
    from hf_finetune.model import load_finished

    recipe = recipe_in(model)
    predictor = predictor_of(load_finished(model, trust_remote_code=trust_remote_code), model)
    with tempfile.TemporaryDirectory(prefix="hf-finetune-demo-") as scratch:
        rows = examples_of(predictor, recipe, Path(scratch) / "examples", examples) if recipe and examples else []
        page = page_of(predictor, recipe, Path(model).name, rows)
        answers = DemoAnswers(predictor, page)
        _show(page, answers, host, port, megabytes, scratch)
        answers.at_work.acquire(timeout=30)  # a thread that computes while Python ends takes the process with it
    say("stopped")


def _show(page: Page, answers: Any, host: str, port: int, megabytes: float, scratch: str) -> None:
    # Read by gradio when it is imported: nothing is told to its makers, and uploads go when the page does.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = scratch
    from starlette.middleware import Middleware

    from hf_finetune.publish.demo_page import build, launch_options
    from hf_finetune.publish.serve_limits import Guard

    # An upload is a form: a little larger than its file.
    limits = Limits(megabytes=megabytes + 0.1, seconds=60, pending=32)
    guard = Middleware(Guard, limits=limits, loopback=host in LOOPBACK)
    blocks = build(page, answers)
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            app_kwargs={"middleware": [guard]},
            **launch_options(f"{max(1, int(megabytes * 2**20))}b"),
        )
    except OSError as error:
        raise UserError(f"Nothing can listen on {host}, port {port}: {error}. Name another with --port.") from None
    told = threading.Event()

    def wait() -> None:
        say(f"{page.title} can be tried at http://{host}:{port}  Ctrl-C ends it.")
        if host not in LOOPBACK:
            warn("there is no password: whoever can reach this machine can use the model.")
        while not told.wait(0.5):  # in pieces, so that signals are handled
            pass

    until_told(wait, told.set)
    blocks.close(verbose=False)


def title_of(recipe: Recipe | None, name: str) -> str:
    """What the page is called."""
    return name if recipe is None else f"{name}: {Path(recipe.model.checkpoint).name} on {_data_name(recipe)}"


def _data_name(recipe: Recipe) -> str:
    dataset = recipe.data.dataset
    return Path(dataset).name if isinstance(dataset, str) else "its data"
