"""Every environment variable that lowbit reads at run time (docs/architecture.md has the table)."""

import os

_TRUE = frozenset({"1", "true", "yes", "on"})


def strict() -> bool:
    """LOWBIT_STRICT=1: a call that would take a slower path than its device offers raises."""
    return os.environ.get("LOWBIT_STRICT", "").lower() in _TRUE


def isa() -> str | None:
    """LOWBIT_ISA, one of native.ISAS: the level of the CPU kernels; None: the best one."""
    return os.environ.get("LOWBIT_ISA", "").strip().lower() or None


def in_force() -> dict[str, str]:
    """The variables that change how lowbit or torch runs, as they are set; for reports."""
    prefixes = ("LOWBIT_", "OMP_", "KMP_", "MKL_", "CUDA_", "TORCH_", "TRITON_")
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(prefixes)}
