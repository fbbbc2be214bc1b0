"""Keep the libraries' chatter off the console: what a run has to say, it says itself."""

from __future__ import annotations

import logging
import sys
import warnings

from hf_finetune.console import is_muted


def quiet_libraries() -> None:
    """Silence the notes of transformers, datasets and the Hub client; their errors still come through.

    Progress bars of downloads and of the data's inspection are shown to a person at a terminal, and kept out of files.
    """
    import datasets
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty() or is_muted():
        datasets.disable_progress_bars()
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # On a machine without a GPU the Trainer pins no memory, and torch says so at every loader.
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    # Of strange images (very large, EXIF that makes no sense): those that cannot be read are told by their rows.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # accelerate chooses a number of threads for a launcher that did not, and says so as if it were a fault.
    warnings.filterwarnings("ignore", message="OMP_NUM_THREADS/MKL_NUM_THREADS unset")
