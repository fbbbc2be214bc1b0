"""One run, from a recipe to a folder: the table of contents."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from hf_finetune import stopping
from hf_finetune.choice import settled
from hf_finetune.console import say, warn
from hf_finetune.finished import check_hub, finished_run, pushed
from hf_finetune.recipes import Recipe
from hf_finetune.recipes.rates import default_learning_rate

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import TrainingArguments

    from hf_finetune.data import TaskData
    from hf_finetune.model import LoadedModel
    from hf_finetune.runs import Run
    from hf_finetune.training import RunFolder
    from hf_finetune.training.precision import NumberFormat


def finetune(
    recipe: Recipe,
    *,
    data: Dataset | DatasetDict | None = None,
    resume: str = "auto",
    precision: str = "auto",
    trust_remote_code: bool = False,
    accept_changes: bool = False,
) -> Run:
    """Fine-tune a checkpoint as a recipe says; leave model, scores and predictions in `recipe.output_dir`.

    Args:
        recipe: what to do.
        data: a data set in memory, in place of `recipe.data.dataset`.
        resume: `auto` continues an interrupted run of this recipe in its folder (and returns a finished one as it is),
            `never` insists on a fresh folder, a path names a checkpoint.
        precision: `auto`, `no`, `bf16` or `fp16`, for the training steps; an accelerate config that names one wins.
        trust_remote_code: run code from the Hub that a checkpoint or a metric brings. Never set by a recipe.
        accept_changes: go on with an interrupted run though its recipe, data, versions or number of processes are not
            those that it was started with. The result is then no longer that of an uninterrupted run.

    SIGTERM and Ctrl-C end a run behind the step that is being taken, with a checkpoint; the second Ctrl-C at once.

    Raises:
        Stopped: by such a signal; it is a KeyboardInterrupt.
        UserError: something to mend in the recipe, the data or the folder, found before training starts; or what has
            befallen the run: a loss that is no number, a disk (DiskError), memory, another process. Its message says
            what is kept.
        PushError: the run is finished and saved, and could not be pushed (`hub.push=true`).
    """
    from hf_finetune.data import MEMORY

    if data is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"dataset": MEMORY})})
    recipe = settled(recipe, data, resume, accept_changes, trust_remote_code)
    one = partial(_one_run, data=data, precision=precision, trust_remote_code=trust_remote_code)
    run = one(recipe, resume=resume, accept_changes=accept_changes)
    if recipe.seeds > 1:
        from hf_finetune.advice.seeds import with_more_seeds

        run = with_more_seeds(recipe, run, one)
    if recipe.evaluation.cross_validation is not None:
        from hf_finetune.advice.folds import with_folds

        run = with_folds(recipe, run, one, trust_remote_code)
    return pushed(recipe, run)


def _one_run(
    recipe: Recipe,
    *,
    data: Dataset | DatasetDict | None,
    precision: str,
    trust_remote_code: bool,
    resume: str = "auto",
    accept_changes: bool = False,
) -> Run:
    """One training in its folder; one that is finished as it is."""
    from hf_finetune.training.folder import RunFolder

    folder = RunFolder(recipe, resume, accept_changes)
    if folder.finished:
        check_hub(recipe)
        return finished_run(recipe, folder, data, trust_remote_code)
    folder.open()
    try:
        return _run_that_fits(recipe, folder, data, precision, trust_remote_code)
    finally:
        folder.close()


def _run_that_fits(
    recipe: Recipe, folder: RunFolder, data: Dataset | DatasetDict | None, precision: str, trust_remote_code: bool
) -> Run:
    """The run; again from its last checkpoint where it asks for a batch that fits and has turned out not to."""
    from hf_finetune import training
    from hf_finetune.training.precision import launcher_settings

    try:
        with (
            stopping.listening(),
            launcher_settings(),
            ExitStack() as kernels,
            training.told(recipe, folder.checkpoints),
        ):
            return _run(recipe, folder, data, precision, trust_remote_code, kernels)
    except training.OutOfMemory as fault:
        if not training.fewer_at_once(recipe, folder, fault):
            raise
    return _run_that_fits(recipe, folder, data, precision, trust_remote_code)


def _run(
    recipe: Recipe,
    folder: RunFolder,
    source: Dataset | DatasetDict | None,
    precision: str,
    trust_remote_code: bool,
    kernels: ExitStack,
) -> Run:
    from hf_finetune import training
    from hf_finetune.runs import Run
    from hf_finetune.strategy import apply_strategy

    started = time.perf_counter()
    arguments, number_format, rate = _settings(recipe, folder, precision)

    task = _read_data(recipe, source)
    training.fit_to_data(arguments, recipe, task, trust_remote_code)

    with training.loaded_whole(arguments):
        loaded = _load_model(recipe, task, trust_remote_code)
        applied = apply_strategy(loaded, recipe)
    training.refuse_batch_norm(applied.model, number_format.name)
    training.check_head(recipe, applied, arguments.world_size, folder.recorded)
    kernels.enter_context(training.fast_kernels(applied.model, folder.recorded, arguments.train_batch_size))
    table = applied.table(rate)
    say(table)

    samples = training.make_samples(recipe, task, loaded, arguments.device)
    trainer = training.build_trainer(
        recipe, task, loaded, applied, arguments, samples, number_format.name, trust_remote_code
    )
    if recipe.strategy.kind != "features":
        number_format = training.settle_format(trainer, number_format, folder.recorded)
        training.settle_batch(trainer, folder.recorded, folder.most_at_once)
    say(training.plan_in_words(recipe, task, arguments, number_format, rate))

    facts = training.facts(task, applied, trainer, number_format)
    checkpoint = folder.checkpoint(facts)
    training.together(folder.claim, facts, checkpoint)  # from here on the folder is this run's
    begun = folder.recorded
    training.warn_of_little_room(folder.path, applied.model, arguments.save_total_limit)
    with training.watching(trainer):
        samples = training.cache_prefix(recipe, task, loaded, trainer, samples, begun.get("prefix"))
    folder.record(prefix=training.kept_facts(trainer))

    energy = kernels.enter_context(training.Energy())  # stopped whatever happens
    outcome = training.learn(
        recipe, folder, task, loaded, applied, trainer, samples, checkpoint=checkpoint, swept=begun.get("sweep")
    )
    used = energy.stop()

    with training.watching(trainer):
        report = training.score(recipe, task, trainer, samples, outcome, trust_remote_code)
    if checkpoint is None:  # else it is the last leg's alone
        report.metrics["train"] |= used
    report.metrics["train"]["total_seconds"] = round(
        training.account_of(trainer).earlier + time.perf_counter() - started, 1
    )
    report.metrics["train"] |= folder.accepted
    training.save(recipe, folder, task, loaded, applied, trainer, report, table, number_format.name)
    say(report.in_words(folder.path, recipe.expected))
    return Run.load(folder.path, trust_remote_code=trust_remote_code)


def _settings(recipe: Recipe, folder: RunFolder, precision: str) -> tuple[TrainingArguments, NumberFormat, float]:
    """The process made ready; the Trainer's arguments, the number format to begin with, the learning rate."""
    from hf_finetune import training

    training.quiet_libraries()
    training.use_every_core()
    training.keep_freed_memory()
    training.meet_anew()
    training.keep_token_from_workers()
    training.refuse_sharding(recipe)
    number_format = training.choose_precision(precision)
    rate = recipe.training.values().get("learning_rate") or default_learning_rate(recipe)
    arguments = training.build_arguments(recipe, rate, folder.checkpoints, number_format.name)
    training.check_schedules(recipe, rate)
    training.together(check_hub, recipe)  # only now do the processes know of each other
    return arguments, number_format, rate


def _read_data(recipe: Recipe, source: Dataset | DatasetDict | None) -> TaskData:
    from hf_finetune import training
    from hf_finetune.data import load_data

    task = training.together(load_data, recipe, source)
    say(training.data_in_words(task))
    if task.cleaning is not None:
        say(task.cleaning.in_words())
    for warning in task.warnings:
        warn(warning)
    return task


def _load_model(recipe: Recipe, task: TaskData, trust_remote_code: bool) -> LoadedModel:
    from hf_finetune import training
    from hf_finetune.model import load_pretrained

    loaded = training.together(
        load_pretrained,
        recipe.model,
        recipe.task,
        num_labels=task.labels.num_labels,
        label_names=task.labels.names,
        problem_type=task.labels.problem_type,
        seed=recipe.seed,
        scratch=recipe.strategy.kind == "scratch",
        layer=recipe.strategy.layer if recipe.strategy.kind == "features" else "last",
        tasks=task.labels.for_the_model(),
        trust_remote_code=trust_remote_code,
    )
    say(training.head_in_words(recipe, loaded))
    if loaded.changes:
        say(f"model: {'; '.join((recipe.model.checkpoint, *loaded.changes))}")
    return loaded
