"""Builds what the tests run on a GPU beside the package, all at once: later steps find it built."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from bench.gpu_day import machine
from bench.gpu_day.steps import UNSUPPORTED
from tests.conformance.build import device_program, model_program
from tests.cuda_build import build_examples


def main() -> int:
    """1 when one does not build, 77 where there is no nvcc."""
    if machine.program("nvcc") is None:
        print("nvcc is not on this machine")
        return UNSUPPORTED
    arch = os.environ["LOWBIT_CUDA_ARCHS"]
    with ThreadPoolExecutor() as pool:
        builds = {
            "wrappers on the host model": pool.submit(model_program),
            f"wrappers for sm_{arch}": pool.submit(device_program, arch),
            f"examples for sm_{arch}": pool.submit(build_examples, arch),
        }
    failed = {name: build.exception() for name, build in builds.items() if build.exception()}
    for name, error in failed.items():
        print(f"{name}: {error}")
    print(f"not built: {', '.join(failed)}" if failed else ", ".join(builds))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
