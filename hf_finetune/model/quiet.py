"""Keeps the libraries' load reports and progress bars off the screen: the run prints what the user needs to know."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# peft's BOFT looks for a compiler of CUDA code, and torch complains where there is none.
_NOISY = ("timm", "torch.utils.cpp_extension")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers, timm and peft in the block, below errors; what was set before is set again after it."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    levels = {logger: logger.level for logger in map(logging.getLogger, _NOISY)}
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for logger, level in levels.items():
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
