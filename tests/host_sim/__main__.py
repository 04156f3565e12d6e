"""python -m tests.host_sim: builds the CUDA texts for the host model and prints the library's path.

lowbit check --cuda-model "$(python -m tests.host_sim)"
"""

import argparse

from tests.host_sim.builder import build_library

if __name__ == "__main__":
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(
        prog="python -m tests.host_sim", description=__doc__, formatter_class=formatter
    ).parse_args()
    print(build_library())
