"""A run that has been finished, now or before: what is left to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_finetune.console import is_main_process, say
from hf_finetune.recipes import Recipe

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_finetune.runs import Run
    from hf_finetune.training import RunFolder


def check_hub(recipe: Recipe) -> None:
    """Hours before the push: is there a token?"""
    if recipe.hub.push:
        from hf_finetune import publish

        publish.check_hub(recipe.hub)


def pushed(recipe: Recipe, run: Run) -> Run:
    """The run, pushed where the recipe says so; the other ranks do not wait for it, since an upload takes its time."""
    if recipe.hub.push and recipe.hub.repo and is_main_process():
        from hf_finetune.publish import push_run

        push_run(run.path, recipe.hub.repo, private=recipe.hub.private, revision=recipe.hub.revision)
    return run


def finished_run(
    recipe: Recipe, folder: RunFolder, source: Dataset | DatasetDict | None, trust_remote_code: bool
) -> Run:
    """The run as it is, if it was trained on the data that there is now."""
    from hf_finetune.data import load_data
    from hf_finetune.publish.report_again import draw_missing
    from hf_finetune.runs import Run
    from hf_finetune.training import quiet_libraries

    quiet_libraries()
    folder.check_finished(load_data(recipe, source).fingerprint)
    say(f"{folder.path} holds the finished run of this recipe: nothing to do. Another output_dir starts a new one.")
    if is_main_process():
        draw_missing(folder.path, trust_remote_code=trust_remote_code)  # killed when all was done but that
    return Run.load(folder.path, trust_remote_code=trust_remote_code)
