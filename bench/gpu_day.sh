#!/usr/bin/env bash
# All that needs a GPU, in one command and under ten minutes, offline: build, wrappers, tests,
# sanitizers, figures. docs/gpu_log.md tells what it leaves behind.
#
#   bench/gpu_day.sh             results in $OUT, or in bench/results/<gpu>/
#   bench/gpu_day.sh --dry-run   every step without a GPU: what it needs is there, and it runs in small
#
# PYTHON (.venv/bin/python if it is there, else python3) must have torch, pytest and ninja; nvcc is
# found by CUDA_HOME or PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
default=python3
[ -x .venv/bin/python ] && default=.venv/bin/python
python=${PYTHON:-$default}
"$python" -c 'import torch' 2>/dev/null || {
  echo "gpu_day: $python must have torch; set PYTHON to one that does" >&2
  exit 2
}
exec "$python" -m bench.gpu_day "$@"
