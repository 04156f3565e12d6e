"""python -m tests.oracle.triton_layouts: what Triton's Gluon says of layouts, as JSON.

Fragments are bases of linear layouts. Operands of wgmma in shared memory are PTX of a kernel that
writes whole numbers where they lie and multiplies. In a process of its own: layouts that Triton
does not like end it.
"""

import json

import triton
from triton._C.libtriton import gluon_ir, ir
from triton.backends.compiler import GPUTarget
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)

K, N = 64, 64
# Bytes of the swizzle of a and of b, whether M and whether K is contiguous in memory.
PRODUCTS = {
    f"{a}{'m' if a_m else 'k'}_{b}{'k' if b_k else 'n'}": (a, b, a_m, b_k)
    for a, b, a_m, b_k in (
        (128, 128, False, False), (128, 128, True, True), (64, 64, False, True),
        (64, 64, True, False), (32, 32, True, False), (32, 32, False, True),
        (128, 32, True, False), (64, 128, True, True),
    )
}  # fmt: skip


@gluon.jit
def numbers(rows: gl.constexpr, columns: gl.constexpr, first: gl.constexpr):
    """first + row * columns + column as bits of float16."""
    layout: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [4, 1], [1, 0])
    row = gl.arange(0, rows, layout=gl.SliceLayout(1, layout))
    column = gl.arange(0, columns, layout=gl.SliceLayout(0, layout))
    number = first + row[:, None] * columns + column[None, :]
    return number.to(gl.int16).to(gl.float16, bitcast=True)


@gluon.jit
def product(
    out, k: gl.constexpr, n: gl.constexpr, swizzle_a: gl.constexpr, swizzle_b: gl.constexpr,
    a_m: gl.constexpr, b_k: gl.constexpr,
):  # fmt: skip
    a = gl.allocate_shared_memory(
        gl.float16, [64, k], gl.NVMMASharedLayout(swizzle_a, 16, 2, transposed=a_m),
        numbers(64, k, 0),
    )  # fmt: skip
    b = gl.allocate_shared_memory(
        gl.float16, [k, n], gl.NVMMASharedLayout(swizzle_b, 16, 2, transposed=b_k),
        numbers(k, n, 64 * k),
    )  # fmt: skip
    fence_async_shared()
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, n, 16])
    sums = warpgroup_mma(a, b, gl.zeros([64, n], gl.float32, layout), is_async=True)
    sums = warpgroup_mma_wait(0, [sums])
    row = gl.arange(0, 64, layout=gl.SliceLayout(1, layout))
    column = gl.arange(0, n, layout=gl.SliceLayout(0, layout))
    gl.store(out + row[:, None] * n + column[None, :], sums)


def product_ptx(swizzle_a: int, swizzle_b: int, a_m: bool, b_k: bool) -> str:
    names = product.arg_names
    constants = dict(zip(names[1:], (K, N, swizzle_a, swizzle_b, a_m, b_k), strict=True))
    source = GluonASTSource(
        product,
        signature={"out": "*fp32", **dict.fromkeys(constants, "constexpr")},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={},
    )
    options = {"num_warps": 4}
    return triton.compile(source, GPUTarget("cuda", 90, 32), options).asm["ptx"]


def fragments() -> dict[str, dict[str, list]]:
    context = ir.context()
    ir.load_dialects(context)
    builder = gluon_ir.GluonOpBuilder(context)
    warp = gl.NVMMADistributedLayout([2, 0], [1, 1], [16, 8])
    found = {"mma_c": (warp, [16, 8])}
    for size in (1, 2):
        depth = 32 // size
        group = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, depth])
        found[f"mma_a_{size}"] = (gl.DotOperandLayout(0, warp, 4 // size), [16, depth])
        found[f"mma_b_{size}"] = (gl.DotOperandLayout(1, warp, 4 // size), [depth, 8])
        found[f"wgmma_a_{size}"] = (gl.DotOperandLayout(0, group, 4 // size), [64, depth])
    for n in (8, 16, 64, 256):
        group = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, n, 16])
        found[f"wgmma_d_{n}"] = (group, [64, n])
    bases = {}
    for name, (layout, shape) in found.items():
        linear = builder.to_linear_layout(layout._to_ir(builder), shape)
        bases[name] = {"registers": linear.reg_bases, "lanes": linear.lane_bases,
                       "warps": linear.warp_bases}  # fmt: skip
    return bases


def main() -> None:
    products = {name: product_ptx(*given) for name, given in PRODUCTS.items()}
    print(json.dumps({"fragments": fragments(), "products": products}))


if __name__ == "__main__":
    main()
