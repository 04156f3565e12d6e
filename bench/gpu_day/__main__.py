"""python -m bench.gpu_day, by bench/gpu_day.sh."""

import sys

from bench.gpu_day.command import main

sys.exit(main())
