"""What training used, in kilowatt hours, as codecarbon estimates it: the extra `energy`; nothing without it."""

from __future__ import annotations

import importlib.util
import logging
import os
from contextlib import suppress
from typing import Any

from hf_finetune.console import is_main_process, warn


class Energy:
    """Measures from when it is made until `stop`, on the first process.

    One process alone has its share of the processor counted; of several, the whole first machine. GPUs are counted
    whole. Only the energy is kept: what it means in carbon depends on where the machine stands, which nobody said.

    Use it in a `with`: codecarbon's threads are no daemons, and one that nobody stops keeps a failed process alive.
    """

    def __init__(self) -> None:
        self._tracker: Any = None
        if not is_main_process() or importlib.util.find_spec("codecarbon") is None:
            return
        try:
            from codecarbon import OfflineEmissionsTracker

            logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
            self._tracker = OfflineEmissionsTracker(
                country_iso_code="USA",  # it insists on one; only the carbon depends on it
                save_to_file=False,
                log_level="critical",
                allow_multiple_runs=True,
                tracking_mode="process" if os.environ.get("WORLD_SIZE", "1") == "1" else "machine",
            )
            self._tracker.start()
        except Exception as fault:  # a meter that fails is no reason not to train
            self._give_up(fault)

    def __enter__(self) -> Energy:
        return self

    def __exit__(self, *fault: object) -> None:
        self.stop()

    def stop(self) -> dict[str, float]:
        """`{"energy_kwh": ...}`; empty without codecarbon, and after the first time."""
        if self._tracker is None:
            return {}
        tracker, self._tracker = self._tracker, None
        try:
            tracker.stop()
            used = float(tracker.final_emissions_data.energy_consumed)
        except Exception as fault:
            self._give_up(fault)
            return {}
        return {"energy_kwh": used} if used > 0 else {}

    def _give_up(self, fault: Exception) -> None:
        tracker, self._tracker = self._tracker, None
        with suppress(Exception):  # what was started before it failed
            if tracker is not None:
                tracker.stop()
        warn(f"codecarbon could not measure the energy: {type(fault).__name__}: {fault}")
