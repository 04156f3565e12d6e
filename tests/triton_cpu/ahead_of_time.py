"""Compiles Triton kernels for GPUs that are not there, as their launches would.

With a stand-in for Triton's driver the launcher of a kernel is called with CPU tensors; instead of
running, the kernel is compiled for the GPU that the stand-in names, specialised by the alignment
and the values of the arguments as always.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from unittest import mock

from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from lowbit.triton_kernels import tiles
from tests.facts.sass import KernelFacts, kernel_facts

MULTIPROCESSORS = 132


class StandIn:
    """What of a driver is asked for before a kernel runs."""

    def __init__(self, arch: str):
        self.capability = int(arch.rstrip("a"))  # Triton knows where it must append the a

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # kernels are remembered by device

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling_for(arch: str) -> Iterator[list[CompiledKernel]]:
    """Within the block launches compile for sm_<arch>; the list gets each kernel."""
    kernels = []
    run = JITFunction.run

    def compile_only(self, *args, warmup, **options):
        kernels.append(run(self, *args, warmup=True, **options))

    stand_in = StandIn(arch)
    kind = tiles.Device(stand_in.capability, MULTIPROCESSORS)
    driver.set_active(stand_in)
    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(tiles, "device_kind", lambda tensor: kind),
    ):
        yield kernels


def facts_of(kernel: CompiledKernel) -> KernelFacts:
    """Facts of the binary; shared memory is what the launch asks for."""
    (facts,) = kernel_facts(kernel.asm["cubin"]).values()
    return dataclasses.replace(facts, shared=kernel.metadata.shared)
