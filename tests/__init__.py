"""A package, so that no other of this name on a machine is imported in its place."""

import os

# Read when torch is loaded. Compilers run beside the tests (tests/ahead.py): threads of torch that
# spin while they wait for one without a core make tests of kernels take up to 20 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
