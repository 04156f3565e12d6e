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
    "prepack_weight": Program(
        check="tests/host_sim/check_prepack_weight.cpp",
        texts=("csrc/cuda/prepack_weight.cuh",),
        # Planes of every width. Threads share nothing.
        defines=("-DLOWBIT_HOST_MODEL", "-DLOWBIT_CHECK_BITS=7,8"),
        seeds={"plain": 256, "asan": 64},
    ),
    "weight_only_linear": Program(
        check="tests/host_sim/check_weight_only_linear.cpp",
        texts=("csrc/cuda/fragment_codes.cuh", "csrc/cuda/weight_only_linear.cuh"),
        seeds={"plain": 256, "asan": 32, "tsan": 8},
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
    # How kernels are cut into blocks and tiles; this needs no model of CUDA.
    "cuda_config": Program(
        check="tests/mutation/check_config.cpp",
        texts=("csrc/cuda/config.h", "examples/cuda/config.h"),
        include=(*_EXAMPLES, "tests/host_sim"),
        defines=(),
        seeds={"plain": 64, "asan": 8},
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
    "cpu_low_rank": Program(
        check="tests/mutation/check_low_rank.cpp",
        texts=("csrc/cpu/low_rank.inl",),
        include=_CPU,
        defines=("-DLOWBIT_SCALAR_ONLY",),
        seeds={"plain": 256, "asan": 64},
    ),
    # Register tiles, dot products and tiles as plain loops (tests/mutation/plain.h): every machine
    # judges the texts of AVX-512 and AMX too.
    "cpu_linear_exact": Program(
        check="tests/mutation/check_linear_exact.cpp",
        texts=(
            "csrc/cpu/dot_tile.inl",
            "csrc/cpu/linear_exact.inl",
            "csrc/cpu/panel.inl",
        ),
        include=_CPU,
        defines=("-DLOWBIT_SCALAR_ONLY",),
        seeds={"plain": 32, "asan": 8},
    ),
    "cpu_linear_int8x2": Program(
        check="tests/mutation/check_linear_int8x2.cpp",
        texts=(
            "csrc/cpu/linear_int8x2.inl",
            "csrc/cpu/linear_int8x2_amx.inl",
            "csrc/cpu/linear_int8x2_pack.inl",
            "csrc/cpu/linear_int8x2_table.inl",
            "csrc/cpu/linear_panel.inl",
        ),
        include=_CPU,
        defines=("-DLOWBIT_SCALAR_ONLY",),
        seeds={"plain": 64, "asan": 8},
    ),
    "cpu_linear_bf16": Program(
        check="tests/mutation/check_linear_bf16.cpp",
        texts=(
            "csrc/cpu/linear_bf16.inl",
            "csrc/cpu/linear_bf16_amx.inl",
            "csrc/cpu/linear_tiles.inl",
        ),
        include=_CPU,
        defines=("-DLOWBIT_SCALAR_ONLY",),
        seeds={"plain": 32, "asan": 8},
    ),
    "cpu_linear_backward": Program(
        check="tests/mutation/check_linear_backward.cpp",
        texts=("csrc/cpu/weight_only_linear_backward.inl",),
        include=_CPU,
        defines=("-DLOWBIT_SCALAR_ONLY",),
        seeds={"plain": 32, "asan": 8},
    ),
    "triton_dequantize_weight": TritonKernel("dequantize_weight"),
    "triton_weight_only_linear": TritonKernel("weight_only_linear"),
}

# Texts whose mutants nothing judges, and why.
_VALUES = "numbers one by one: no order, no bounds; the kernels' values test it"
_PROBE = "measures the machine: its results are speeds"
NOT_JUDGED = {
    "csrc/cuda/conversions.cuh": _VALUES,
    "csrc/cuda/elements.cuh": _VALUES,
    "csrc/cuda/device.cuh": "includes only",
    "csrc/cuda/platform.cuh": "macros only",
    "csrc/cuda/launch.cuh": "runs on the host: tests/test_host_model.py has its refusals",
    "triton_kernels/tiles.py": "numbers for a launch: tests/test_triton_tiles.py has them",
    "csrc/cuda/tensor_map.cuh": "runs on the host: kernels only see what it made",
    **{f"csrc/cpu/{name}.inl": _PROBE for name in ("probe", "probe_bf16", "probe_tiles")},
}
