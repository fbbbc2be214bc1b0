"""Recipes of strangers: as a file, which is a person's own and may name paths, and from the Hub, which may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from faults.hostile import HUB_REPO, Case, on_hub, payload

GOOD = "task: text-classification\nmodel: {checkpoint: them/model}\ndata: {dataset: them/data}\n"


def file_of(text: str | bytes | Callable[[Path], str]) -> Callable[[Path], list[str]]:
    """`hf-finetune recipes FILE`: the recipe is read and printed as it would run."""

    def make(folder: Path) -> list[str]:
        content = text(folder) if callable(text) else text
        file = folder / "evil.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["recipes", str(file)]

    return make


def hub_of(text: str | Callable[[Path], str], *pairs: str) -> Callable[[Path], list[str]]:
    """`hf-finetune recipes hub:them/evil`."""

    def make(folder: Path) -> list[str]:
        on_hub(folder, {"recipe.yaml": text(folder) if callable(text) else text})
        return ["recipes", f"hub:{HUB_REPO}", *pairs]

    return make


def _bomb(folder: Path) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


def _pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "pipe.yaml")
    return ["recipes", str(folder / "pipe.yaml")]


def _shadowed(folder: Path) -> list[str]:
    (folder / "elsewhere").mkdir()
    (folder / "them").mkdir()
    (folder / "them" / "model").symlink_to(folder / "elsewhere")
    return hub_of(GOOD)(folder)


def _reproduce(metrics: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        on_hub(folder, {"recipe.yaml": GOOD, "metrics.json": metrics})
        return ["reproduce", HUB_REPO]

    return make


def _tag(tag: str) -> Callable[[Path], str]:
    return lambda folder: f'{GOOD}expected: !!python/{tag} ["{payload(folder)}"]\n'


_NOT_YAML = ("not YAML", "not part of a recipe")
_ELSEWHERE = ("machine of whoever made the recipe",)
_HUB_DATA = "task: text-classification\nmodel: {checkpoint: them/model}\ndata: {dataset: %s}\n"
_HUB_MODEL = "task: text-classification\nmodel: {checkpoint: %s}\ndata: {dataset: them/data}\n"

_FILES = [
    ("aliases that grow to 9^12 values", file_of(_bomb), ("not part of a recipe",)),
    ("a merge key", file_of("a: &a {b: 1}\nc: {<<: *a}\n"), ("not part of a recipe",)),
    ("!!python/object/apply", file_of(_tag("object/apply:builtins.exec")), ("not part of a recipe",)),
    ("!!python/object/new", file_of(_tag("object/new:builtins.exec")), ("not part of a recipe",)),
    ("!!python/name", file_of(f"{GOOD}seed: !!python/name:os.system ''\n"), ("not part of a recipe",)),
    ("!!binary", file_of(f"{GOOD}output_dir: !!binary aGk=\n"), ("not part of a recipe",)),
    ("a tag of its own", file_of(f"{GOOD}seed: !include /etc/passwd\n"), ("not part of a recipe",)),
    ("a key given twice", file_of(f"{GOOD}output_dir: a\noutput_dir: b\n"), ("given twice",)),
    ("nested 100,000 deep in brackets", file_of("a: " + "[" * 100_000), ("deep",)),
    ("nested 2,000 deep by indentation", file_of("".join(f"{' ' * n}a:\n" for n in range(1, 1000))), ("deep",)),
    ("three million characters", file_of("a: " + "x" * 3_000_000), ("at most 1,000,000",)),
    ("100,000 keys", file_of("".join(f"k{n}: {n}\n" for n in range(70_000))), ("more than 20,000 values",)),
    ("15,000 unknown keys", file_of("".join(f"trainin{n}: {n}\n" for n in range(15_000))), ("unknown key",)),
    ("a key of 100,000 letters", file_of(f"{'k' * 100_000}: 1\n"), _NOT_YAML),
    ("several documents", file_of(f"{GOOD}---\n{GOOD}"), ("not several",)),
    ("an escape beyond Unicode", file_of(f'{GOOD}output_dir: "\\UFFFFFFFF"\n'), ("not YAML",)),
    ("half a character", file_of(f'{GOOD}output_dir: "\\ud800"\n'), ("half a character",)),
    ("NULs", file_of(b"task: \x00\x00\n"), ("not YAML",)),
    ("no text at all", file_of(bytes(range(256))), ("not a text file",)),
    ("a YAML of version 10^5000", file_of(f"%YAML {'9' * 5000}.1\n---\n{GOOD}"), ("not YAML",)),
    ("a key that is a list", file_of("? [a, b]\n: c\n"), ("a key must be text",)),
    ("a seed of 5,000 digits", file_of(f"{GOOD}seed: {'9' * 5000}\n"), ("seed",)),
    ("a split called by 5,000 digits", file_of(_HUB_DATA % f"x, train_split: {'9' * 5000}"), (), None),
    ("a number that is not finite", file_of(f"{GOOD}training: {{learning_rate: 1e999}}\n"), ("finite",)),
    ("it deep inside a mapping", file_of(f"{GOOD}training: {{lr_scheduler_kwargs: {{a: [1e999]}}}}\n"), ("finite",)),
    ("a head of 10^18 weights", file_of(_HUB_MODEL % "x, head: {kind: mlp, hidden: [1000000000]}"), ("head",)),
    ("10^15 resamples", file_of(f"{GOOD}evaluation: {{bootstrap: 1000000000000000}}\n"), ("at most 1,000,000",)),
    ("a million workers", file_of(f"{GOOD}training: {{dataloader_num_workers: 1000000}}\n"), ("at most 1,024",)),
    ("remote code", file_of(f"{GOOD}trust_remote_code: true\n"), ("unknown key",)),
    ("remote code of the model", file_of(_HUB_MODEL % "x, trust_remote_code: true"), ("unknown key",)),
    ("a token", file_of(f"{GOOD}training: {{hub_token: x}}\n"), ("not a recipe's to set",)),
    ("a configuration of DeepSpeed", file_of(f"{GOOD}training: {{deepspeed: /tmp/x}}\n"), ("not a recipe's to set",)),
    ("a pipe that never ends", _pipe, ("no file",)),
    ("a device that never ends", lambda folder: ["recipes", "/dev/zero", "seed=1"], ("neither a .yaml file",)),
    ("an environment variable", file_of(f"{GOOD}output_dir: $HOME/${{HOME}}\n"), ("output_dir: $HOME/${HOME}",), 0),
]

_HUB = [
    ("of the Hub: a file of this machine", hub_of(_HUB_DATA % "/etc/passwd"), _ELSEWHERE),
    ("of the Hub: a file of the home", hub_of(_HUB_DATA % "~/notes.csv"), _ELSEWHERE),
    ("of the Hub: a file further up", hub_of(_HUB_DATA % "../../notes.csv"), _ELSEWHERE),
    ("of the Hub: further up behind a name", hub_of(_HUB_DATA % "them/../../../notes.csv"), _ELSEWHERE),
    ("of the Hub: a pattern", hub_of(_HUB_DATA % "'*.csv'"), _ELSEWHERE),
    ("of the Hub: files by split", hub_of(_HUB_DATA % "{train: them/x, test: /etc/passwd}"), _ELSEWHERE),
    ("of the Hub: a list of files", hub_of(_HUB_DATA % "[/etc/passwd]"), _ELSEWHERE),
    ("of the Hub: an address", hub_of(_HUB_DATA % "http://169.254.169.254/latest"), _ELSEWHERE),
    ("of the Hub: every text of this folder", hub_of(_HUB_DATA % "text"), _ELSEWHERE),
    ("of the Hub: a model of this machine", hub_of(_HUB_MODEL % "/home/me/model"), _ELSEWHERE),
    ("of the Hub: a model further up", hub_of(_HUB_MODEL % "../model"), _ELSEWHERE),
    ("of the Hub: a packaged model further up", hub_of(_HUB_MODEL % "'package:../../x'"), _ELSEWHERE),
    ("of the Hub: a teacher of this machine", hub_of(f"{GOOD}distill: {{teacher: ./runs/mine}}\n"), _ELSEWHERE),
    ("of the Hub: a task's data of this machine",
     hub_of(f"{GOOD}tasks: {{a: {{label: a, data: {{dataset: /etc/passwd}}}}}}\n"), _ELSEWHERE),
    ("of the Hub: a metric of this machine",
     hub_of(f"{GOOD}evaluation: {{metrics: ['evaluate:./evil']}}\n"), _ELSEWHERE),
    ("of the Hub: a link of the same name lies here", _shadowed, ("means the Hub's",)),
    ("of the Hub: an output_dir of the system", hub_of(f"{GOOD}output_dir: /etc/cron.d\n"), ("runs/evil",), 0),
    ("of the Hub: an output_dir further up", hub_of(f"{GOOD}output_dir: ../../up\n"), ("runs/evil",), 0),
    ("of the Hub: a push", hub_of(f"{GOOD}hub: {{push: true, repo: them/stolen}}\n"), ("hub=",), 0),
    ("of the Hub: a report to others", hub_of(f"{GOOD}training: {{report_to: wandb}}\n"), ("training.report_to",), 0),
    ("of the Hub: scores nested 100,000 deep", _reproduce('{"test":' * 100_000), ("is not one of a run",)),
    ("of the Hub: scores of twelve megabytes", _reproduce('{"test": {"x": "' + "y" * 12_000_000 + '"}}'),
     ("is not one of a run",)),
    ("of the Hub: scores that are code", _reproduce('{"test": {"accuracy": 1, "accuracy_ci95": "__import__(0)"}}'),
     ("must be two finite numbers",)),
    ("of the Hub: aliases", hub_of(_bomb), ("not part of a recipe",)),
]  # fmt: skip

RECIPES = [Case(f"recipe: {name}", make, words, *code) for name, make, words, *code in (*_FILES, *_HUB)]
