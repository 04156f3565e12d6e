"""Every kernel text and what judges its mutants."""

from tests.mutation.programs import Program
from tests.mutation.triton_kernel import TritonKernel

_CPU = ("csrc", "csrc/cpu", "tests/host_sim")
_EXAMPLES = ("csrc", "examples/cuda")

KERNELS = {
    "dequantize_weight": Program(
        check="tests/host_sim/check_dequantize_weight.cpp",
        texts=("csrc/cuda/dequantize_weight.cuh",),
        # A plane alone in its memory, with tables; and planes of three widths.
        defines=("-DLOWBIT_HOST_MODEL", "-DLOWBIT_CHECK_BITS=4,7"),
        # Threads share nothing, so ThreadSanitizer has nothing to say.
        seeds={"plain": 512, "asan": 128},
    ),
    "vector_scale": Program(
        check="tests/host_sim/check_vector_scale.cpp",
        texts=("examples/cuda/vector_scale.cuh",),
        include=_EXAMPLES,
        seeds={"plain": 256, "asan": 64},
    ),
    "tiled_gemm": Program(
        check="tests/host_sim/check_tiled_gemm.cpp",
        texts=("examples/cuda/gemm_operands.cuh", "examples/cuda/tiled_gemm.cuh"),
        include=_EXAMPLES,
        seeds={"plain": 128, "asan": 16, "tsan": 8},
    ),
    "tiled_gemm_sm90": Program(
        check="tests/host_sim/check_tiled_gemm_sm90.cpp",
        texts=("examples/cuda/tiled_gemm_sm90.cuh",),
        include=_EXAMPLES,
        seeds={"plain": 128, "asan": 16, "tsan": 4},
    ),
    # All instruction sets share these texts: the plain loops are enough.
    "cpu_decode_weight": Program(
        check="tests/mutation/check_decode_weight.cpp",
        texts=("csrc/cpu/decode_weight.inl", "csrc/cpu/dequantize_weight.inl"),
        include=_CPU,
        defines=("-DLOWBIT_SCALAR_ONLY",),
        seeds={"plain": 256, "asan": 64},
    ),
    "cpu_prepack_weight": Program(
        check="tests/mutation/check_prepack_weight.cpp",
        texts=("csrc/cpu/prepack_weight.inl",),
        include=_CPU,
        defines=("-DLOWBIT_SCALAR_ONLY",),
        seeds={"plain": 128, "asan": 32},
    ),
    "triton_dequantize_weight": TritonKernel("dequantize_weight"),
}
