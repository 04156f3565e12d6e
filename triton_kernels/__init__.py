"""Triton kernels: one file an op, each a kernel and its launcher on raw tensors and ints."""

# A checkout root on sys.path would otherwise offer this folder to everyone who probes for the
# Triton project's own `triton_kernels` package.
if __name__ != "lowbit.triton_kernels":
    raise ImportError(
        f"this folder must be imported as lowbit.triton_kernels, got {__name__}; for another "
        "project's triton_kernels start Python outside lowbit's checkout, or with `python -P`"
    )
