"""lowbit: low-bit kernels for PyTorch.

Low-bit matmul as torch ops, with hand-written CUDA and CPU SIMD kernels behind one contract each,
and a pure-PyTorch reference beside them.
"""

from lowbit import native, nn
from lowbit._version import __version__
from lowbit.formats.quantize import quantize_weight
from lowbit.formats.weights import QuantizedWeight
from lowbit.nn.surgery import quantize_model
from lowbit.ops.dequantize_weight import dequantize_weight
from lowbit.ops.prepack_weight import prepack
from lowbit.ops.unpack_weight import unpack
from lowbit.ops.weight_only_linear import weight_only_linear
from lowbit.registry import SlowPathWarning, explain, use_backend

native.libraries()  # after the ops: their schemas are what the libraries register kernels for

__all__ = [
    "QuantizedWeight",
    "SlowPathWarning",
    "__version__",
    "dequantize_weight",
    "explain",
    "nn",
    "prepack",
    "quantize_model",
    "quantize_weight",
    "unpack",
    "use_backend",
    "weight_only_linear",
]
