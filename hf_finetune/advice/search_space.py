"""What a search may change: recipe keys, each with its values, and how a trial of Optuna's chooses among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hf_finetune.console import muted
from hf_finetune.errors import RecipeError
from hf_finetune.recipes.keys import known_keys
from hf_finetune.recipes.overrides import KINDS_AT
from hf_finetune.recipes.rates import default_learning_rate, default_rate
from hf_finetune.recipes.yaml_text import Plain, as_yaml, read_value

if TYPE_CHECKING:
    from hf_finetune.recipes import Recipe

HOLDERS = tuple(".".join(path) for path in KINDS_AT)  # sections that come in kinds
_DIGITS = 4  # of a number that is tried: a recipe is read by people


@dataclass(frozen=True)
class Parameter:
    """One key of a recipe and the values that are tried.

    Args:
        key: its dotted path.
        kind: how values are drawn.
        low, high: bounds of numbers, both included.
        log: whether the logarithm is drawn evenly.
        step: numbers are `low` plus a multiple of it.
        choices: the values as they would be written on the command line.
        only: the kinds of the section that have the key; of others it is left out. Empty where all have it.
    """

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def suggested(self, trial: Any) -> str:
        """The value that a trial of Optuna's takes, as on the command line."""
        if self.kind == "choice":
            return str(trial.suggest_categorical(self.key, self.choices))
        if self.kind == "int":
            step = int(self.step or 1)
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), step=step, log=self.log))
        value = trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)
        return repr(min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high))

    def holds(self, value: Any, recipe: Recipe) -> str | float | int | None:
        """The value of a recipe as Optuna knows it; None where it is not among those that are tried."""
        if self.kind == "choice":
            return next((text for text in self.choices if typed(recipe, self.key, text) == value), None)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return None
        if self.kind == "int" and value != int(value):
            return None
        steps = (value - self.low) / self.step if self.step else 0.0
        return None if abs(steps - round(steps)) > 1e-9 else (int(value) if self.kind == "int" else float(value))

    def in_words(self) -> str:
        """One line."""
        if self.kind == "choice":
            return f"{self.key}: one of {', '.join(self.choices)}"
        how = " (by its logarithm)" if self.log else f" in steps of {self.step:g}" if self.step else ""
        return f"{self.key}: {self.low:g} to {self.high:g}{how}"

    def written(self) -> Any:
        """As a space's YAML has it."""
        if self.kind == "choice":
            return [leaves(value) if isinstance(value := read_value(t), (dict, list)) else value for t in self.choices]
        number = int if self.kind == "int" else float
        bounds: dict[str, Any] = {"low": number(self.low), "high": number(self.high)}
        return bounds | ({"log": True} if self.log else {}) | ({"step": self.step} if self.step else {})


@dataclass(frozen=True)
class Space:
    """The parameters, those that choose a section's kind first.

    Args:
        parameters: no two of the same key.
    """

    parameters: tuple[Parameter, ...]

    def chosen(self, trial: Any, recipe: Recipe) -> dict[str, str]:
        """The values of a trial of Optuna's, by key, as on the command line."""
        values: dict[str, str] = {}
        for parameter in self._in_order():
            if not parameter.only or kind_in(values, recipe, parameter.key) in parameter.only:
                values[parameter.key] = parameter.suggested(trial)
        return values

    def shipped(self, recipe: Recipe) -> dict[str, Any]:
        """The recipe's own values as Optuna knows them, of the keys whose value is one that is tried."""
        found = {}
        for parameter in self._in_order():
            if parameter.only and kind_in({}, recipe, parameter.key) not in parameter.only:
                continue
            value = parameter.holds(own_value(recipe, parameter.key), recipe)
            if value is not None:
                found[parameter.key] = value
        return found

    def only(self, keys: Mapping[str, Any]) -> Space:
        """The parameters of these keys."""
        return Space(tuple(each for each in self.parameters if each.key in keys))

    def in_words(self) -> str:
        """A line each."""
        return "\n".join(f"  {parameter.in_words()}" for parameter in self.parameters)

    def written(self) -> dict[str, Any]:
        """As YAML has it."""
        return {parameter.key: parameter.written() for parameter in self.parameters}

    def _in_order(self) -> Iterator[Parameter]:
        yield from (each for each in self.parameters if chooses_kind(each.key))
        yield from (each for each in self.parameters if not chooses_kind(each.key))


def chooses_kind(key: str) -> bool:
    """Whether a key says which kind a section is."""
    return key.removesuffix(".kind") in HOLDERS


def kinds_with(key: str) -> tuple[str, ...]:
    """The kinds of its section that have a key; none where all have it."""
    return () if chooses_kind(key) else known_keys().get(key, ())


def kind_of_text(text: str) -> str:
    """The kind that a value of `strategy` or `model.head` says, of its two forms."""
    value = read_value(text)
    return str(value.get("kind", "")) if isinstance(value, dict) else str(value)


def kind_in(values: Mapping[str, str], recipe: Recipe, key: str) -> str:
    """The kind of the section that a key belongs to, as chosen in `values`, else as in the recipe."""
    holder = key.rpartition(".")[0]
    for name in (holder, f"{holder}.kind"):
        if name in values:
            return kind_of_text(values[name])
    return str(_at(recipe.written(), f"{holder}.kind"))


def with_values(recipe: Recipe, values: Mapping[str, str]) -> Recipe:
    """The recipe with values laid over it, and nothing said about what went because of them.

    Raises:
        RecipeError: they do not go together.
    """
    with muted(set()):
        return recipe.with_overrides(*(f"{key}={text}" for key, text in values.items()))


def typed(recipe: Recipe, key: str, text: str) -> Any:
    """The value that a recipe takes a text for.

    Raises:
        RecipeError: it does not take it.
    """
    return _at(with_values(recipe, {key: text}).written(), key)


def own_value(recipe: Recipe, key: str) -> Any:
    """A recipe's value, or the one that stands in where it says none; None where nobody knows that."""
    value = _at(recipe.written(), key)
    if value is not None:
        return value
    if key == "training.learning_rate":
        return default_learning_rate(recipe)
    if key == "strategy.head_learning_rate":
        return default_rate("head", recipe)
    section, _, name = key.partition(".")
    if section != "training":
        return None
    from hf_finetune.training.arguments import defaults

    return defaults(recipe.task).get(name)


def are_own(values: Mapping[str, str], recipe: Recipe) -> bool:
    """Whether these are a recipe's own values, or those that stand in where it says none."""
    try:
        return all(typed(recipe, key, text) == own_value(recipe, key) for key, text in values.items())
    except RecipeError:  # a key of another strategy than its own
        return False


def leaves(value: Any) -> Any:
    """A value of YAML whose unquoted text is what any reader of YAML takes it for."""
    if isinstance(value, dict):
        return {str(key): leaves(item) for key, item in value.items()}
    if isinstance(value, list):
        return [leaves(item) for item in value]
    return as_yaml(value) if isinstance(value, Plain) else value


def _at(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values
