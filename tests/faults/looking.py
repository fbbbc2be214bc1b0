"""Two processes to whom their drive shows different folders: where does each go on?

    torchrun --standalone --nproc_per_node 2 tests/faults/looking.py

Each has a folder of its own, under the same name, as when a network drive shows a machine what was there some seconds
ago. Each says a line of JSON about what it would do: first where the second process sees a newer checkpoint and other
facts, then where it lacks the one of the first process.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from torch import distributed

from hf_finetune.errors import UserError
from hf_finetune.recipes import load_recipe
from hf_finetune.training.checkpoints import seal
from hf_finetune.training.folder import RunFolder

FACTS = {"data": "d", "frozen": "f", "processes": 2, "versions": {}}


def write(step: int) -> None:
    """A whole checkpoint."""
    staging = Path("run", "checkpoints", "partial", f"checkpoint-{step}")
    staging.mkdir(parents=True)
    (staging / "trainer_state.json").write_text("{}")
    seal(staging, Path("run", "checkpoints", f"checkpoint-{step}"))


def say(**found: object) -> None:
    """A line, whole also where the other one writes."""
    os.write(1, f"{json.dumps({'rank': int(os.environ['RANK']), **found})}\n".encode())


def main() -> None:
    """Look twice."""
    rank = int(os.environ["RANK"])
    place = Path(f"seen-by-{rank}")
    place.mkdir()
    os.chdir(place)
    distributed.init_process_group("gloo")
    recipe = load_recipe("digits", "output_dir=run")
    for step in (10, 20, 30)[: 2 + rank]:
        write(step)
    Path("run", "recipe.yaml").write_text(recipe.to_yaml())
    Path("run", "state.json").write_text(json.dumps({**FACTS, "micro_batch": 8 - 4 * rank}))

    folder = RunFolder(recipe)
    say(at=str(folder.checkpoint({**FACTS, "micro_batch": 8})), recorded=folder.recorded["micro_batch"])
    if rank == 1:
        shutil.rmtree(Path("run", "checkpoints", "checkpoint-20"))
    try:
        say(at=str(folder.checkpoint({**FACTS, "micro_batch": 8})))
    except UserError as fault:
        say(refused=str(fault))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
