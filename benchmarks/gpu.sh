#!/usr/bin/env bash
# The GPU part of the benchmarks in one call; options go on to gpu.py, such as --contest NAME or --rounds 3.
#   benchmarks/gpu.sh              on a machine with a GPU: the tests that need one, then every contest
#   benchmarks/gpu.sh --toy        anywhere, in about two minutes: small models and few images
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
if [ "${1:-}" = "--toy" ]; then
    shift
    exec python benchmarks/gpu.py --scale toy --rounds 1 "$@"
fi
python -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "No GPU here: give --toy to try the script.")'
python -m pytest -m gpu -n 0 -q || [ $? -eq 5 ] # 5: there are no such tests
python benchmarks/gpu.py --rounds "${ROUNDS:-3}" "$@"
python benchmarks/tables.py
