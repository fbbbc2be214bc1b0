"""`engine=ray`: the trials of a search on the machines of a Ray cluster, by Ray Tune.

Ray Tune decides where and when trials run; which values they get and which are given up is the study's, as in one
process, so that space, rule and result files are the same. Trials run at once, so that a search by Ray is not
repeatable to the bit: what has ended before a trial starts depends on the machines. All of them must see `out=DIR`, the
data and HF_HOME under the same paths.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.advice.search_study import Asked, Study, Tried
from hf_finetune.advice.search_words import trial_in_words
from hf_finetune.console import say
from hf_finetune.errors import RecipeError, UserError

if TYPE_CHECKING:
    from hf_finetune.advice.search_folder import SearchFolder
    from hf_finetune.advice.trials import Runner
    from hf_finetune.recipes import Recipe

_FAILURES = 3


def check_ray() -> None:
    """Raise a UserError where Ray Tune is missing, or where a launcher has started several processes."""
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"engine=ray needs Ray Tune ({error}): pip install 'hf_finetune[ray]', or leave engine= out to search in "
            "this process"
        ) from error
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("engine=ray starts its own processes: start it with hf-finetune, without accelerate launch")


def run_on_ray(study: Study, folder: SearchFolder, recipe: Recipe, trials: int, finetune: Runner) -> None:
    """Run trials on the Ray cluster that RAY_ADDRESS names or this process is connected to, else on this machine.

    Each takes one GPU where the cluster has any, else the CPUs of its smallest machine.

    Raises:
        UserError: the recipe as it was given fails, or nearly all trials do.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    connected = ray.is_initialized()
    if not connected:
        ray.init(log_to_driver=False, logging_level="error")
    try:
        while lacking := _lacking(study, trials):
            _fit(study, folder, recipe, trials, lacking, finetune)
    finally:
        if not connected:
            ray.shutdown()


def _lacking(study: Study, trials: int) -> int:
    tried = study.tried()
    failed = [each for each in tried if each.state == "failed"]
    if len(failed) > trials + _FAILURES:
        raise UserError(f"{len(failed)} trials have failed, the last of them: {failed[-1].reason}")
    return max(0, trials - len(tried) + len(failed))


def _fit(study: Study, folder: SearchFolder, recipe: Recipe, trials: int, lacking: int, finetune: Runner) -> None:
    from ray import tune

    driver = _Driver(study, folder, trials)
    searcher, scheduler = _asking(driver)
    fixed = {
        "recipe": recipe.to_yaml(),
        "folder": str(folder.path.resolve()),
        "here": str(Path.cwd()),
        "finetune": finetune,
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, fixed=fixed), _resources()),
        tune_config=tune.TuneConfig(
            search_alg=searcher, scheduler=scheduler, metric="score", mode="max", num_samples=lacking
        ),
        run_config=tune.RunConfig(name="search", storage_path=str(folder.path.resolve() / "ray"), verbose=0),
    )
    tuner.fit()
    folder.clear(each.number for each in study.tried())
    if driver.fault is not None:
        raise UserError(f"The recipe as it was given cannot be run: {driver.fault}")


def _resources() -> dict[str, float]:
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(each.get("GPU", 0) for each in alive):
        return {"cpu": 1, "gpu": 1}
    return {"cpu": max(1, min((each["CPU"] for each in alive if each.get("CPU")), default=1))}


def _trial(config: dict[str, Any], fixed: dict[str, Any]) -> None:
    """One trial, on some machine of the cluster."""
    import ray
    from ray import tune

    from hf_finetune.advice.search_answers import Candidate, read_answers
    from hf_finetune.advice.search_folder import SearchFolder
    from hf_finetune.advice.search_trial import recipe_of
    from hf_finetune.advice.trials import run_trials
    from hf_finetune.recipes.load import from_text
    from hf_finetune.training.onlooker import looked_on_by

    if Path(fixed["here"]).is_dir():
        os.chdir(fixed["here"])  # where paths of the recipe begin
    folder, number = SearchFolder(fixed["folder"]), int(config["number"])
    started = time.monotonic()
    end: dict[str, Any] = {"state": "failed", "score": float("nan"), "node": ray.get_runtime_context().get_node_id()}

    def report(share: float, score: float, greater_is_better: bool) -> bool:
        tune.report({"score": score, "share": share, "greater_is_better": greater_is_better, "node": end["node"]})
        return False  # Ray ends the process where the study gives the trial up

    try:
        recipe = recipe_of(from_text(fixed["recipe"]), dict(config["values"]), folder, number)
    except RecipeError as error:
        tune.report({**end, "reason": str(error), "seconds": 0.0})
        return
    with looked_on_by(Candidate(report, folder.answers_of(number))):
        done = run_trials({"trial": recipe}, fixed["finetune"], ended=lambda trial, place: None)["trial"]
    if done.run is None:
        end["reason"] = done.reason or "no reason given"
    else:
        answers = read_answers(folder.answers_of(number))
        end |= {"state": "complete", "score": answers.score, "greater_is_better": answers.greater_is_better}
    tune.report({**end, "seconds": round(time.monotonic() - started, 1)})


class _Driver:
    """Between Ray Tune, which asks by its own names of trials, and the study.

    Args:
        study: whose values are tried.
        folder: of the search.
        trials: that are wanted.
    """

    def __init__(self, study: Study, folder: SearchFolder, trials: int) -> None:
        self.study, self.folder, self.trials = study, folder, trials
        self.asked: dict[str, Asked] = {}
        self.fault: str | None = None  # of the recipe as it was given

    def __reduce__(self) -> tuple[Any, ...]:
        return (_nobody, ())  # Ray keeps copies of what it is given, and study and lock are of this process

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Values of the next trial."""
        one = self.asked[trial_id] = self.study.ask()
        return {"number": one.number, "values": one.values}

    def gives_up(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial that has reported a validation is to end."""
        if trial_id not in self.asked or "state" in result:
            return False
        number = self.asked[trial_id].number
        ends = self.study.report(number, result["share"], result["score"], result["greater_is_better"])
        return ends and result["share"] < 1

    def completed(self, trial_id: str, result: dict[str, Any], error: bool) -> None:
        """A trial has ended, by itself or not."""
        ended = _ended(self.asked.pop(trial_id), result, error)
        if ended.number == 0 and ended.state == "failed":  # untold: mended, it begins anew
            self.fault = ended.reason
        if self.fault is not None and ended.state == "failed":  # others fail of the same
            return
        told = self.study.tell(ended, bool(result.get("greater_is_better", True)))
        if ended.state != "pruned":  # a process that was ended may still be about to write
            self.folder.clear([ended.number])
        say(trial_in_words(told, self.study.tried(), self.study.best(), self.trials))


def _nobody() -> None:
    return None


def _asking(driver: _Driver) -> tuple[Any, Any]:
    """A searcher and a scheduler of Ray Tune's that ask the driver."""
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import Searcher

    class Asks(Searcher):  # type: ignore[misc]
        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            return Searcher.FINISHED if driver.fault is not None else driver.suggest(trial_id)

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            driver.completed(trial_id, result or {}, error)

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).write_text("the study is in study.db")

        def restore(self, checkpoint_path: str) -> None:
            pass

    class Halves(FIFOScheduler):  # type: ignore[misc]
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            ends = driver.gives_up(trial.trial_id, result)
            return str(FIFOScheduler.STOP if ends else FIFOScheduler.CONTINUE)

    return Asks(metric="score", mode="max"), Halves()


def _ended(one: Asked, result: dict[str, Any], error: bool) -> Tried:
    state, seconds = result.get("state"), float(result.get("seconds", result.get("time_total_s", 0.0)))
    node = str(result.get("node", ""))
    if state is None and not error:
        return Tried(one.number, "pruned", one.values, None, seconds, node=node)
    score = float(result.get("score", float("nan")))
    if state == "complete" and score == score and not error:
        return Tried(one.number, "complete", one.values, score, seconds, node=node)
    lost = "its process was lost; the folder ray/ of the search tells more"
    reason = lost if error else str(result.get("reason", "its validation score has no value"))
    return Tried(one.number, "failed", one.values, None, seconds, reason=reason, node=node)
