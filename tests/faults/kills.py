"""Fault injection: runs that are killed or stopped at random moments, started again, and compared to the bit.

    python tests/faults/kills.py                       200 SIGKILLs and 50 SIGTERMs and Ctrl-Cs: half an hour on a core
    python tests/faults/kills.py --kills 5 --signals 3 --only "image full steps"

Every case is a fresh folder with an empty cache: a leg is struck, now and then the next leg too, and the same command
is given again until it ends. Weights, scores, log, predictions and the newest checkpoint (optimizer, schedule, random
states, average, early stopping) must be those of a run that nobody struck. Blows are aimed at the writing of a
checkpoint and at the filling of the cache by watching the folders, or fall at any moment between start and end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kills_cases import PLACES, Case, Watch
from kills_legs import QUIET, REPOSITORY, Leg, forked, import_what_a_run_imports, started

sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
os.environ.update(QUIET)
RESULTS = REPOSITORY / "benchmarks" / "results" / "faults_kills.json"
PAGE = REPOSITORY / "benchmarks" / "faults.md"
AIMS = {"write": 0.28, "cache": 0.15}  # shares of the kills; the others fall at any moment
_TRUE_STARTS = 6  # kills through the true command line
_MORE = 0.5  # chance that the next leg is struck too
_STOPPED = re.compile(r"stopped by (\w+)(?: after step (\d+) of \d+(?:, saved in (\S+))?)?: the same command")


class Faults:
    """Strikes runs and counts.

    Args:
        folder: scratch.
        only: names of variations; all if empty.
        seed: of the blows.
    """

    def __init__(self, folder: Path, only: list[str], seed: int) -> None:
        from kills_variations import variations

        self.folder, self.seed, self.draw, self.name = folder, seed, random.Random(seed), ""
        self.until = float("inf")
        inputs = folder / "inputs"
        inputs.mkdir(parents=True)
        every = variations(inputs)
        self.variations = [each for each in every if not only or any(name in each.name for name in only)]
        if not self.variations:
            raise SystemExit(f"--only: there are {', '.join(each.name for each in every)}")
        self.whole: dict[str, tuple[Path, float, int]] = {}  # folder, seconds of a leg, checkpoints
        self.cases: list[Case] = []

    def prepare(self) -> None:
        """The runs that nobody strikes."""
        first = Case(self.variations[0], self.folder / "first")
        first.folder.mkdir()
        arguments = [*first.variation.arguments, f"output_dir={first.run}"]
        cache = {"HF_FINETUNE_CACHE": str(first.folder / "cache")}
        import_what_a_run_imports(arguments, cache, first.folder)
        gc.collect()
        gc.freeze()  # shared with the children as it is
        for number, variation in enumerate(self.variations):
            case = Case(variation, self.folder / f"whole-{number}", known=first.folder / "cache" / "kernels.json")
            began = time.monotonic()
            if case.leg().wait() != 0:
                raise SystemExit(f"{variation.name}: the run that nobody struck has failed\n{case.said()}")
            seconds = time.monotonic() - began
            count = len({entry["step"] for entry in _log(case.run) if "eval_loss" in entry})
            self.whole[variation.name] = (case.run, seconds, count)
            print(f"{variation.name}: {seconds:.1f} s, {count} checkpoints", flush=True)

    def strike(self, kills: int, signals: int, jobs: int) -> None:
        """All blows, by so many processes at a time."""
        if jobs == 1:
            self.stop(signals)
            self.kill(kills)
            return
        pids = []
        for job in range(jobs):
            if (pid := os.fork()) == 0:
                self.draw, self.name = random.Random(1000 * self.seed + job), f"{job}-"
                self.strike(*(wanted // jobs + (job < wanted % jobs) for wanted in (kills, signals)), 1)
                (self.folder / f"job-{job}").write_bytes(pickle.dumps(self.cases))
                os._exit(0)
            pids.append(pid)
        for job, pid in enumerate(pids):
            if os.waitpid(pid, 0)[1]:
                raise SystemExit(f"job {job} has failed")
            self.cases += pickle.loads((self.folder / f"job-{job}").read_bytes())

    def kill(self, wanted: int) -> None:
        """Kill until so many blows have fallen, with their shares in what they were aimed at."""
        needed = {aim: round(share * wanted) for aim, share in AIMS.items()}
        number, true_starts = 0, min(_TRUE_STARTS, wanted // 30)
        while (fallen := self._fallen("SIGKILL")) < wanted or any(self._hits(aim) < needed[aim] for aim in needed):
            if time.monotonic() > self.until:
                return
            lacking = [aim for aim in needed if self._hits(aim) < needed[aim]]
            aim = self.draw.choice(lacking) if lacking and (number % 2 or fallen >= wanted) else "any"
            number += 1
            fitting = [each for each in self.variations if aim != "cache" or each.fills]
            if not fitting:
                needed.pop(aim)
                continue
            truly = fallen > wanted // 2 and true_starts > 0 and aim == "any"
            true_starts -= truly
            case = self._case(fitting[number % len(fitting)], started if truly else forked)
            self._strike(case, aim, signal.SIGKILL)
            while len(case.blows) < 4 and self.draw.random() < _MORE:
                self._strike(case, self.draw.choice(["any", "write"]), signal.SIGKILL)
            self._judge(case)

    def stop(self, wanted: int) -> None:
        """SIGTERM and SIGINT at any moment."""
        number = 0
        while self._fallen("SIGTERM") + self._fallen("SIGINT") < wanted and time.monotonic() <= self.until:
            case = self._case(self.variations[number % len(self.variations)])
            number += 1
            self._strike(case, "any", self.draw.choice([signal.SIGTERM, signal.SIGINT]))
            while len(case.blows) < 4 and self.draw.random() < _MORE:
                self._strike(case, "any", self.draw.choice([signal.SIGTERM, signal.SIGINT]))
            self._judge(case)

    def _case(self, variation: Any, launch: Callable[..., Leg] = forked) -> Case:
        known = self.folder / "first" / "cache" / "kernels.json"
        case = Case(variation, self.folder / f"case-{self.name}{len(self.cases)}", launch, known)
        self.cases.append(case)
        return case

    def _strike(self, case: Case, aim: str, number: signal.Signals) -> None:
        seconds, count = self.whole[case.variation.name][1:]
        if case.launch is started:
            seconds += 6.0  # imports
        watch = Watch(case)
        leg = case.leg()
        if aim == "any":
            first = 0.0 if number == signal.SIGKILL else 0.02  # until it listens
            moment = leg.began + self.draw.uniform(first, seconds)
            fell = leg.strike(lambda: time.monotonic() >= moment, 0.0, number)
        else:
            nth = self.draw.randint(1, count if aim == "write" else 2)
            fell = leg.strike(watch.nth(aim, nth), self.draw.uniform(0.0, 0.012), number)
        code = leg.wait()
        if fell and (code == -number or number != signal.SIGKILL):
            blow = {"signal": number.name, "aim": aim, "place": watch.place(), "code": code}
            if number != signal.SIGKILL:
                blow |= self._stopped(case, number, code)
            case.blows.append(blow)

    def _stopped(self, case: Case, number: signal.Signals, code: int) -> dict[str, Any]:
        """What a signal that asks has led to: the right code, and in training a whole checkpoint of that step."""
        from hf_finetune.stopping import EXIT_STOPPED
        from hf_finetune.training.checkpoints import damage

        if code == 0 or (code < 0 and (case.run / "metrics.json").exists()):  # it came when all was done
            return {"saved": None}
        told = list(_STOPPED.finditer(case.said()))[-1:]
        if code != EXIT_STOPPED or not told or told[0][1] != number.name:
            case.faults.append(f"{number.name}: exit code {code}, {case.said()[-500:]}")
            return {"saved": None}
        step = told[0][2]
        if step is None:
            return {"saved": None}
        checkpoint = case.run / "checkpoints" / f"checkpoint-{step}"
        if (fault := damage(checkpoint)) is not None:
            case.faults.append(f"{number.name}: {checkpoint.name}: {fault}")
        return {"saved": int(step)}

    def _judge(self, case: Case) -> None:
        """Start the command again until it ends, and compare."""
        from kills_outcome import differences

        whole = self.whole[case.variation.name][0]
        code = case.leg().wait()
        if code != 0:
            case.faults.append(f"started again, it ended with {code}: {case.said()[-500:]}")
        else:
            case.faults += differences(whole, case.run)
        places = ", ".join(f"{blow['signal']} {blow['place']}" for blow in case.blows) or "not struck"
        print(f"{len(self.cases):4} {case.variation.name}: {places}: {'; '.join(case.faults) or 'equal'}", flush=True)
        if case.faults:
            print(f"     kept: {case.folder}", flush=True)
        else:
            shutil.rmtree(case.folder)

    def _blows(self) -> list[tuple[Case, dict[str, Any]]]:
        return [(case, blow) for case in self.cases for blow in case.blows]

    def _fallen(self, name: str) -> int:
        return sum(blow["signal"] == name for _, blow in self._blows())

    def _hits(self, aim: str) -> int:
        return sum(blow["signal"] == "SIGKILL" and blow["place"] == PLACES[aim] for _, blow in self._blows())


def _log(run: Path) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = json.loads((run / "about.json").read_text())["history"]
    return history


def main() -> int:
    """Strike, print, write the figures; 1 where anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--only", nargs="*", default=[], help="variations whose names hold one of these")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no further blow after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="scratch; a temporary one if left out")
    parser.add_argument("--json", type=Path, help=f"figures; a whole run writes {RESULTS.relative_to(REPOSITORY)}")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ["HF_HOME"] = str(folder / "hf_home")
    began = time.monotonic()
    faults = Faults(folder, options.only, options.seed)
    faults.prepare()
    faults.until = began + 60 * options.minutes
    faults.strike(options.kills, options.signals, options.jobs)
    from kills_page import figures_of, write_page

    figures = {**figures_of(faults.cases), "seconds": round(time.monotonic() - began), "seed": options.seed}
    print(json.dumps(figures, indent=1))
    whole = not options.only
    target = options.json or (RESULTS if whole else None)
    if target is not None:
        target.write_text(json.dumps(figures, indent=1) + "\n")
    if whole:
        write_page(PAGE, figures)
    if not figures["faults"] and options.folder is None:
        shutil.rmtree(folder)
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
