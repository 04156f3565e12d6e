"""A quantized weight as ordinary matrices, some rows at a time, which bounds the memory."""

from collections.abc import Iterator

import torch

from lowbit.formats.numerics import matmul_float32
from lowbit.formats.weight_format import WeightFormat
from lowbit.ops.dequantize_weight import OP
from lowbit.ops.unpack_weight import unpack_parts

Parts = tuple[torch.Tensor | None, ...]
CHUNK_BYTES = 128 << 20
# With more rows of x reading a dense weight costs less than decoding it for every tile of x.
LIBRARY_ROWS = 128


def dense_chunks(
    tensors: Parts, fmt: WeightFormat, dtype: torch.dtype, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, those rows of the weight in dtype), by the op dequantize_weight.

    Codes in another layout are unpacked first, which takes as much memory again as they have.
    """
    tensors, fmt = unpack_parts(tensors, fmt)
    rows = max(1, chunk_bytes // (fmt.k * dtype.itemsize))
    for start, stop in row_runs(fmt, rows):
        chunk, chunk_format = weight_rows(tensors, fmt, start, stop)
        yield slice(start, stop), OP.overload(*chunk, chunk_format, dtype)


def row_runs(fmt: WeightFormat, rows: int) -> Iterator[tuple[int, int]]:
    """Rows [start, stop), at most `rows`: whole scale blocks, or a part of one if it is taller."""
    step = max(rows // fmt.block_n, 1) * fmt.block_n
    for block in range(0, fmt.n, step):
        end = min(block + step, fmt.n)
        for start in range(block, end, rows):
            yield start, min(start + rows, end)


def weight_rows(
    tensors: Parts, fmt: WeightFormat, start: int, stop: int
) -> tuple[Parts, WeightFormat]:
    """The parts and format of rows [start, stop) of a canonical weight, which row_runs gave."""
    qweight, scales, zeros, table, s0 = tensors
    blocks = slice(start // fmt.block_n, -(-stop // fmt.block_n))
    chunk = (
        qweight[start:stop],
        scales[blocks],
        None if zeros is None else zeros[blocks],
        table,
        s0 if s0 is None or s0.dim() == 0 else s0[start:stop],
    )
    return chunk, fmt._replace(n=stop - start)


def multiply_chunks(x, tensors: Parts, permutation, bias, fmt: WeightFormat, out) -> None:
    """out [m, n] = x [m, k] @ weight.T + bias, all of x's dtype, by torch's library."""
    x = x if permutation is None else x.index_select(1, permutation)
    for rows, w in dense_chunks(tensors, fmt, x.dtype):
        if x.dtype == torch.float32:
            y = matmul_float32(x, w.t())
            out[:, rows] = y if bias is None else y + bias[rows]
        elif bias is None:
            torch.mm(x, w.t(), out=out[:, rows])
        else:
            torch.addmm(bias[rows], x, w.t(), out=out[:, rows])  # rounds once, as mm
