"""A published run beside the one that was made again from its recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.console import say
from hf_finetune.errors import UserError
from hf_finetune.publish.retry import told
from hf_finetune.recipes import Recipe
from hf_finetune.recipes.load import HUB, resolve

_ROUNDING = 1e-9


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
            UserError: there is none.
        """
        test = self.metrics.get("test", {})
        found = next((name for name in test if test.get(f"{name}_ci95")), None)
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
        name = self.repo.partition("/")[2]
        resolved = resolve(f"{HUB}{self.repo}@{self.commit}", [f"output_dir=runs/{name}-reproduced", *pairs])
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
        raise UserError(f"reproduce {where}: the Hub cannot be reached, and the run is not in the cache.") from error
    except HfHubHTTPError as error:
        raise UserError(f"reproduce {where}: no metrics.json there, or no access to it: {told(error)}") from None
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(metrics, dict) and all(isinstance(part, dict) for part in metrics.values())
    except (ValueError, AssertionError) as error:
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


def compare(published: Published, again: dict[str, dict[str, Any]]) -> Verdict:
    """Judge a run that was made again.

    Args:
        published: what it is held against.
        again: its metrics.

    Raises:
        UserError: it has not the metric that decides.
    """
    then, now, judged = published.metrics["test"], again.get("test", {}), published.judged
    if not isinstance(now.get(judged), (int, float)):
        raise UserError(f"The new run has no test {judged}: leave evaluation.metrics and data.test_split as they are.")
    names = [name for name in then if isinstance(then.get(f"{name}_ci95"), list) and name in now]
    width = max(len(name) for name in names)
    lines = [f"{'test':{width}}  published  95% interval      again"]
    for name in names:
        low, high = then[f"{name}_ci95"]
        mark = "inside" if _inside(now[name], low, high) else "OUTSIDE"
        shown = "undefined" if now[name] is None else f"{now[name]:.4f}"
        lines.append(f"{name:{width}}  {_shown(then[name]):>9}  {_shown(low)} - {_shown(high)}  {shown}  {mark}")
    if then.get("samples") != now.get("samples"):
        lines.append(f"The test split has {now.get('samples')} samples, and had {then.get('samples')}.")
    low, high = then[f"{judged}_ci95"]
    inside = _inside(now[judged], low, high)
    verdict = "lies within" if inside else "does NOT lie within"
    lines.append(
        f"{judged} {now[judged]:.4f} {verdict} the published interval, {low:.4f} to {high:.4f} "
        f"({published.repo} at {published.commit[:12]})."
    )
    return Verdict(inside, "\n".join(lines))


def _inside(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and low - _ROUNDING <= value <= high + _ROUNDING


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else "undefined"
