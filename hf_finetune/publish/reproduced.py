"""A published run beside the one that was made again from its recipe."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.console import say
from hf_finetune.errors import UserError, unreachable
from hf_finetune.publish.retry import told
from hf_finetune.recipes import Recipe
from hf_finetune.recipes.load import HUB, resolve

_ROUNDING = 1e-9
_LARGEST = 10_000_000  # bytes of a metrics.json


@dataclass(frozen=True)
class Published:
    """A run on the Hub.

    Args:
        repo: owner/name.
        commit: of what was read.
        metrics: as its metrics.json holds them.
    """

    repo: str
    commit: str
    metrics: dict[str, dict[str, Any]]

    @property
    def judged(self) -> str:
        """The test metric that decides: the first that has an interval.

        Raises:
            UserError: there is none, or one is no interval.
        """
        test = self.metrics.get("test", {})
        for name, value in test.items():
            # Of a metric that is undefined there is none, or one of nothing.
            if name.endswith("_ci95") and value not in (None, [None, None]) and _interval(value) is None:
                raise UserError(
                    f"{self.repo}: {name} in its metrics.json must be two finite numbers, the lower first, and is "
                    f"{str(value)[:80]}: nothing can be compared."
                )
        found = next((name for name in test if _interval(test.get(f"{name}_ci95"))), None)
        if found is None:
            raise UserError(
                f"{self.repo} publishes no test score with an interval (evaluation.bootstrap=0, or no test split), so "
                f"nothing can be compared. hf-finetune train recipe={HUB}{self.repo} trains it again."
            )
        return found

    def recipe(self, pairs: Sequence[str]) -> Recipe:
        """Its recipe at that commit, with overrides; into a folder of its own.

        Raises:
            UserError: the recipe cannot be read, or what it needs lies on somebody else's machine.
        """
        name = (
            f"{self.repo.replace('/', '--')}-{self.commit[:12]}"  # another owner's, or another commit, is another run
        )
        own = (f"output_dir=runs/{name}-reproduced", "seeds=1")  # what is judged is one run's score
        resolved = resolve(f"{HUB}{self.repo}@{self.commit}", [*own, *pairs])
        for note in resolved.notes:
            say(f"note: {note}")
        recipe = resolved.recipe
        for key, value in (("data.dataset", recipe.data.dataset), ("model.checkpoint", recipe.model.checkpoint)):
            given = any(pair.startswith(f"{key}=") for pair in pairs)
            if isinstance(value, str) and value.startswith(("./", "memory:")) and not given:
                raise UserError(
                    f"{self.repo} was made with {key}={value}, on the machine of whoever made it and not on the Hub: "
                    f"give {key}=... of your own."
                )
        if recipe.model.revision is None and "/" in recipe.model.checkpoint and recipe.model.checkpoint[0] != ".":
            say(f"note: the recipe names no commit of {recipe.model.checkpoint}: the newest is taken.")
        return recipe


def find_published(where: str) -> Published:
    """The published run, at a branch, a tag, a commit, or as it is now.

    Args:
        where: `owner/name[@revision]`, also with `hub:` before it.

    Raises:
        UserError: there is no such run on the Hub, or it cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, revision = where.removeprefix(HUB).partition("@")
    try:
        file = Path(hf_hub_download(repo, "metrics.json", revision=revision or None))
    except HFValidationError as error:
        raise UserError(f"reproduce {where}: write owner/name or owner/name@revision") from error
    except LocalEntryNotFoundError as error:
        raise unreachable(f"reproduce {where}: the Hub cannot be reached, and the run is not in the cache.") from error
    except HfHubHTTPError as error:
        raise UserError(f"reproduce {where}: no metrics.json there, or no access to it: {told(error)}") from None
    try:
        assert file.stat().st_size <= _LARGEST
        metrics = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(metrics, dict) and all(isinstance(part, dict) for part in metrics.values())
    except (ValueError, AssertionError, RecursionError) as error:
        raise UserError(f"reproduce {where}: its metrics.json is not one of a run of hf_finetune.") from error
    return Published(repo, file.parent.name, metrics)  # .../snapshots/COMMIT/metrics.json


@dataclass(frozen=True)
class Verdict:
    """Whether the new score lies within the published interval.

    Args:
        inside: it does.
        words: a table of all test metrics, and the verdict.
    """

    inside: bool
    words: str


def compare(published: Published, again: dict[str, dict[str, Any]], already: Path | None = None) -> Verdict:
    """Judge a run that was made again.

    Args:
        published: what it is held against.
        again: its metrics.
        already: its folder, where it had been made before and nothing was trained now.

    Raises:
        UserError: it has not the metric that decides.
    """
    then, now, judged = published.metrics["test"], again.get("test", {}), published.judged
    if not isinstance(now.get(judged), (int, float)):
        raise UserError(f"The new run has no test {judged}: leave evaluation.metrics and data.test_split as they are.")
    intervals = {name: found for name in then if name in now and (found := _interval(then.get(f"{name}_ci95")))}
    names = list(intervals)
    width = max(len(name) for name in names)
    lines = [f"{'test':{width}}  published  95% interval      again"]
    for name in names:
        low, high = intervals[name]
        mark = "inside" if _inside(now[name], low, high) else "OUTSIDE"
        shown = "undefined" if now[name] is None else f"{now[name]:.4f}"
        lines.append(f"{name:{width}}  {_shown(then[name]):>9}  {_shown(low)} - {_shown(high)}  {shown}  {mark}")
    if then.get("samples") != now.get("samples"):
        lines.append(f"The test split has {now.get('samples')} samples, and had {then.get('samples')}.")
    low, high = intervals[judged]
    inside = _inside(now[judged], low, high)
    verdict = "lies within" if inside else "does NOT lie within"
    lines.append(
        f"{judged} {now[judged]:.4f} {verdict} the published interval, {low:.4f} to {high:.4f} "
        f"({published.repo} at {published.commit[:12]})."
    )
    if already is not None:
        lines.append(f"Compared with the run already there, {already}: nothing was trained now. output_dir=... does.")
    return Verdict(inside, "\n".join(lines))


def _interval(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, the lower first; None for everything else that a stranger may have written."""
    if not (isinstance(value, list) and len(value) == 2 and all(_is_finite(end) for end in value)):
        return None
    low, high = map(float, value)
    return (low, high) if low <= high else None


def _is_finite(value: Any) -> bool:
    # So is an integer of a thousand digits none that can be shown.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _inside(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and low - _ROUNDING <= value <= high + _ROUNDING


def _shown(value: Any) -> str:
    return f"{value:.4f}" if _is_finite(value) else "undefined"


def reproduced(where: str, pairs: Sequence[str], train: Callable[[Recipe], Any]) -> Verdict:
    """Train a published run again and judge it; a run that is already there is judged as it is.

    Args:
        where: OWNER/NAME[@REVISION].
        pairs: overrides.
        train: `finetune`.

    Raises:
        UserError: it cannot be tried.
    """
    try:
        return _reproduced(where, pairs, train)
    except UserError:
        raise
    except Exception as fault:  # a crash must not end with exit code 1, which means another score
        frames = "".join(traceback.format_tb(fault.__traceback__))
        words = f"reproduce {where}: it could not be tried: {type(fault).__name__}: {told(fault)}"
        raise UserError(f"{frames}{words}") from fault


def _reproduced(where: str, pairs: Sequence[str], train: Callable[[Recipe], Any]) -> Verdict:
    published = find_published(where)
    say(f"{published.repo} at {published.commit}: {published.judged} decides")
    recipe = published.recipe(pairs)
    folder = Path(recipe.output_dir)
    already = folder if (folder / "metrics.json").is_file() else None
    return compare(published, train(recipe).metrics, already)
