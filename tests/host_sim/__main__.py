"""python -m tests.host_sim: builds the CUDA texts for the host model and prints the library's path.

lowbit check --cuda-model "$(python -m tests.host_sim)"
"""

from tests.host_sim.builder import build_library

print(build_library())
