"""What `accelerate launch hf_finetune/run.py recipe=NAME key=value ...` starts."""

from __future__ import annotations

import os
import sys

# Started as a file, Python looks for modules in hf_finetune/ first; look beside the package instead.
_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (nothing may be imported before this)
if not __package__:
    sys.path[:] = [os.path.dirname(_HERE), *(p for p in sys.path if os.path.abspath(p or ".") != _HERE)]  # noqa: PTH100, PTH120

from hf_finetune.cli import start  # noqa: E402

if __name__ == "__main__":
    start(["train", *sys.argv[1:]])
