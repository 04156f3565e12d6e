"""The cases of every op as data: what is tested and what is timed.

A case has `op`, an id (`str(case)`), `make(seed, device)` -> the op's flat arguments (what
`registry.OPS[case.op].overload` takes), `flops` and `bytes`. Tests parametrize over `CASES[op]`,
`lowbit check` runs the same list, `lowbit bench` builds its own from shapes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import zlib

import torch

from lowbit.bench.weight_specs import WeightSpec, in_layout
from lowbit.errors import dtype_name
from lowbit.formats.numerics import MODES
from lowbit.formats.tables import TABLE_NAMES
from lowbit.formats.weight_format import LAYOUTS, SCALE_DTYPES, ZERO_DTYPES, ZERO_KINDS
from lowbit.formats.weights import QuantizedWeight
from lowbit.ops.weight_only_linear import X_DTYPES

LINEAR, BACKWARD = "weight_only_linear", "weight_only_linear_backward"
DEQUANTIZE, PREPACK, UNPACK = "dequantize_weight", "prepack_weight", "unpack_weight"
# Ops on the packed codes alone, and all that take a weight and no x.
PACKING = (PREPACK, UNPACK)
WITHOUT_X = (DEQUANTIZE, *PACKING)
# What an op takes besides a weight and a dtype; for the other ops a Case ignores it.
AXES = {LINEAR: ("rows", "mode"), BACKWARD: ("rows",)} | dict.fromkeys(WITHOUT_X, ())
VIEWS = ("contiguous", "offset", "padded", "strided", "transposed", "expanded")
ADDENDS = ("none", "x", "float32", "strided")
RANKS = (0, 1, 3, 16)


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of an op on a quantized weight.

    rows: the leading dimensions of x (of grad for the backward op). dtype: that of x or grad, or
    of the result of dequantize_weight; packing has none. bias, low_rank: "none", or of x's dtype,
    float32 or strided. rank: of the low-rank pair. view: how x lies in memory; what lies around it
    is NaN. Packing is into, and unpacking from, the weight's layout: panels unless it has another.
    """

    op: str
    weight: WeightSpec = WeightSpec()
    rows: tuple[int, ...] = (5,)
    dtype: torch.dtype = torch.float32
    mode: str = "exact"
    bias: str = "none"
    low_rank: str = "none"
    rank: int = 3
    view: str = "contiguous"
    nonfinite: bool = False

    def __str__(self) -> str:
        parts = [str(self.weight)]
        parts += [dtype_name(self.dtype)] if self.op not in PACKING else []
        if self.op not in WITHOUT_X:
            parts.append("M" + "x".join(map(str, self.rows)))
            parts += [part for part in (self.mode,) if part != "exact"]
            parts += [f"bias.{self.bias}"] if self.bias != "none" else []
            parts += [f"r{self.rank}.{self.low_rank}"] if self.low_rank != "none" else []
            parts += [self.view] if self.view != "contiguous" else []
            parts += ["nonfinite"] if self.nonfinite else []
        return "-".join(parts)

    def make(self, seed: int = 0, device: str | torch.device = "cpu") -> tuple:
        """The flat arguments of the op; the same for the same seed."""
        seed = zlib.crc32(f"{seed} {self}".encode())
        spec = self._spec("canonical") if self.op in PACKING else self.weight
        return self.arguments(spec.make(seed, device), seed + 1)

    def arguments(self, weight: QuantizedWeight, seed: int) -> tuple:
        """The flat arguments of the op on a weight that is there already.

        The format is a plain tuple: in a NamedTuple torch would look for __torch_function__ in
        every call, which is no part of what is timed.
        """
        if self.op == UNPACK:
            weight = in_layout(weight, self._packed_layout)
        fmt = tuple(weight.format)
        if self.op == DEQUANTIZE:
            return (*weight.tensors, fmt, self.dtype)
        if self.op == PREPACK:
            return weight.qweight, fmt, LAYOUTS.index(self._packed_layout)
        if self.op == UNPACK:
            return weight.qweight, fmt
        generator = torch.Generator().manual_seed(seed)
        x = self._input(generator, weight.device)
        if self.op == BACKWARD:
            return (x, *weight.tensors, fmt)
        bias = self._addend(self.bias, (self.weight.n,), generator, weight.device)
        pair = [
            self._addend(self.low_rank, shape, generator, weight.device)
            for shape in ((self.rank, self.weight.k), (self.weight.n, self.rank))
        ]
        return (x, *weight.parts, bias, *pair, fmt, MODES.index(self.mode))

    def _input(self, generator, device) -> torch.Tensor:
        width = self.weight.n if self.op == BACKWARD else self.weight.k
        x = torch.randn(*self.rows, width, generator=generator)
        if self.nonfinite:
            for spot, value in enumerate((math.nan, math.inf, -math.inf)):
                x.view(-1, width)[2 * spot, (spot * 37) % width] = value
        return place(x.to(device, self.dtype), self.view)

    def _addend(self, kind: str, shape, generator, device) -> torch.Tensor | None:
        if kind == "none":
            return None
        values = torch.randn(*shape, generator=generator).to(device)
        values = values if kind == "float32" else values.to(self.dtype)
        return place(values, "strided") if kind == "strided" else values

    @property
    def m(self) -> int:
        """Rows of x."""
        return math.prod(self.rows)

    @property
    def flops(self) -> int:
        """Multiplications and additions of the matrix products; else one operation a weight."""
        n, k = self.weight.n, self.weight.k
        size = n * k + self._rank * (n + k)
        return n * k if self.op in WITHOUT_X else 2 * self.m * size

    @property
    def bytes(self) -> int:
        """Bytes that must move: weight, low-rank pair, input and result, each once."""
        layout = self._packed_layout if self.op == UNPACK else "canonical"
        weight = self._spec(layout).code_bytes if self.op in PACKING else self.weight.nbytes
        return weight + self.bytes_beside_weight

    @property
    def bytes_beside_weight(self) -> int:
        """Those of `bytes` that are not the weight: entries have weights of other sizes."""
        n, k = self.weight.n, self.weight.k
        if self.op in PACKING:
            layout = self._packed_layout if self.op == PREPACK else "canonical"
            return self._spec(layout).code_bytes
        elements = n * k if self.op == DEQUANTIZE else self.m * (n + k)
        pair = self._rank * (n + k) * (4 if self.low_rank == "float32" else self.dtype.itemsize)
        return elements * self.dtype.itemsize + pair

    def _spec(self, layout: str) -> WeightSpec:
        return dataclasses.replace(self.weight, layout=layout)

    @property
    def _packed_layout(self) -> str:
        return "panels" if self.weight.layout == "canonical" else self.weight.layout

    @property
    def _rank(self) -> int:
        return 0 if self.low_rank == "none" else self.rank


def place(values: torch.Tensor, view: str) -> torch.Tensor:
    """The values as a view of a larger buffer of NaN, laid out as `view` says."""
    if view == "contiguous":
        return values
    shape = values.shape
    if view == "expanded":
        return values[:1].expand(shape)
    if view == "offset":
        out = values.new_full((values.numel() + 2,), math.nan)[1:-1].view(shape)
    elif view == "padded":
        out = values.new_full((*shape[:-1], shape[-1] + 3), math.nan)[..., : shape[-1]]
    elif view == "strided":
        out = values.new_full((*shape[:-1], 2 * shape[-1] + 1), math.nan)[..., 1::2]
    else:  # transposed
        out = values.new_full((shape[-1], *shape[:-1]), math.nan).movedim(0, -1)
    return out.copy_(values)


def _formats() -> list[WeightSpec]:
    """Every element, zero kind, scale and zero dtype and second-level scale."""
    specs = [WeightSpec(bits=b, zeros=z) for b in range(1, 9) for z in ZERO_KINDS]
    specs += [
        WeightSpec(bits=4, zeros=z, zero_dtype=d)
        for z in ("code", "value")
        for d in ZERO_DTYPES[1:]
    ]
    specs += [
        WeightSpec(bits=8, zeros="code"),
        WeightSpec(bits=3, zeros="code", zero_dtype=torch.float16),
    ]
    specs += [WeightSpec(scales=d, zeros="midpoint") for d in SCALE_DTYPES]
    specs += [
        WeightSpec(scales=torch.float8_e4m3fn, s0=s, bits=b)
        for s in ("tensor", "rows")
        for b in (3, 4, 8)
    ]
    specs += [WeightSpec(table=t, zeros=z) for t in TABLE_NAMES for z in ("none", "value")]
    specs += [WeightSpec(table="random", bits=b) for b in range(1, 5)]
    specs += [WeightSpec(table="random", bits=3, zeros="code", zero_dtype=torch.float32)]
    return specs


def _shapes() -> list[WeightSpec]:
    """Groups, blocks and tails."""
    groups = [(160, 16), (256, 128), (200, 48), (100, 7), (96, 0), (64, 64), (1, 0), (40, 100)]
    specs = [WeightSpec(k=k, block_k=g, bits=b, zeros="code") for k, g in groups for b in (3, 4)]
    specs += [
        WeightSpec(block_n=r, block_k=g, zeros=z)
        for r, g in ((4, 32), (0, 0), (0, 32))
        for z in ("none", "code")
    ]
    specs += [WeightSpec(n=n, zeros="midpoint") for n in (0, 1, 2, 15, 16, 17, 64, 129)]
    specs += [
        WeightSpec(k=k, bits=b, zeros="value", zero_dtype=torch.float16)
        for k in (3, 31, 33, 63, 515)
        for b in (1, 4, 7)
    ]
    return specs


def _cuts() -> list[WeightSpec]:
    """Weights that are views of a larger one: other strides, offsets and padding bits."""
    specs = [
        WeightSpec(bits=b, cut=c, zeros="code") for b in range(1, 9) for c in ("rows", "columns")
    ]
    specs += [WeightSpec(cut="rows", s0="rows", scales=torch.float8_e4m3fn)]
    specs += [WeightSpec(cut="rows", block_n=4, zeros="value", zero_dtype=torch.float16)]
    specs += [WeightSpec(cut="rows", block_n=0, block_k=0), WeightSpec(cut="columns", block_n=8)]
    return specs


def _extremes() -> list[WeightSpec]:
    """Scales at the ends of their range, and one that is NaN."""
    ends = (
        (torch.float32, 90),
        (torch.float32, -130),
        (torch.float32, -147),
        (torch.bfloat16, 90),
        (torch.bfloat16, -120),
        (torch.float16, 15),
        (torch.float16, -22),
        (torch.float8_e8m0fnu, 100),
        (torch.float8_e8m0fnu, -126),
        (torch.float8_e4m3fn, -8),
    )
    specs = [WeightSpec(scales=d, exponent=e, zeros="midpoint") for d, e in ends]
    nans = (torch.float16, torch.float8_e4m3fn, torch.float8_e8m0fnu)
    return specs + [WeightSpec(scales=d, scale_nan=True) for d in nans]


WEIGHTS = tuple(dict.fromkeys(_formats() + _shapes() + _cuts() + _extremes()))


def _inputs(op: str) -> list[Case]:
    """Rows, dtypes, modes, biases, layouts of x and values that are not finite."""
    base = Case(op, WeightSpec(zeros="code"))
    change = dataclasses.replace
    rows = [(), (0,), (1,), (2, 3), (0, 4), (2, 1, 3), *((m,) for m in (2, 4, 8, 16, 17, 64, 131))]
    cases = [change(base, rows=r) for r in rows]
    cases += [change(base, dtype=d) for d in X_DTYPES]
    cases += [
        change(base, view=v, rows=r, dtype=d)
        for v in VIEWS
        for r in ((5,), (2, 3))
        for d in (torch.float32, torch.bfloat16)
    ]
    cases += [
        change(base, nonfinite=True, dtype=d, weight=w)
        for d in X_DTYPES
        for w in (base.weight, WeightSpec(bits=3, zeros="midpoint", k=77))
    ]
    return cases


def _modes() -> list[Case]:
    """Every format in the modes of integer codes and in panels; rows, ragged sizes, not finite."""
    pairs = (("int8x2", torch.float32), ("bf16", torch.bfloat16))
    cases = [
        Case(LINEAR, dataclasses.replace(weight, layout=layout), dtype=dtype, mode=mode)
        for every, layout in ((1, "panels"), (3, "canonical"))
        for mode, dtype in pairs
        for weight in _formats()[::every]
    ]
    cases += [Case(LINEAR, dataclasses.replace(w, layout="panels")) for w in _formats()[::3]]
    turns = itertools.cycle(itertools.product(pairs, ("panels", "canonical")))
    cases += [
        Case(LINEAR, dataclasses.replace(weight, layout=layout), dtype=dtype, mode=mode)
        for weight, ((mode, dtype), layout) in zip(WEIGHTS[len(_formats()) :], turns, strict=False)
    ]
    ragged = WeightSpec(n=131, k=211, bits=5, block_k=48, zeros="code")
    cases += [
        Case(LINEAR, dataclasses.replace(ragged, layout=layout), (rows,), dtype, mode)
        for mode, dtype in pairs
        for layout in LAYOUTS
        for rows in (0, 1, 2, 5, 8, 17, 33, 100)
    ]
    cases += [
        Case(LINEAR, WeightSpec(zeros="code"), (rows,), dtype, mode)
        for mode in MODES
        for dtype in X_DTYPES
        for rows in (1, 5, 20)
    ]
    cases += [
        Case(LINEAR, WeightSpec(zeros=z, k=300, block_k=0), (9,), d, mode, nonfinite=True)
        for mode, _ in pairs
        for d in X_DTYPES
        for z in ("code", "value")
    ]
    return cases


def _dense() -> list[Case]:
    """Formats in the mode dense, and in fragments in the modes of 16-bit operands."""
    halves = (torch.float16, torch.bfloat16)
    cases = [
        Case(LINEAR, weight, dtype=dtype, mode="dense")
        for weight, dtype in zip(_formats()[::2], itertools.cycle(halves), strict=False)
    ]
    cases += [
        Case(LINEAR, dataclasses.replace(weight, layout="panels"), dtype=dtype, mode="dense")
        for weight, dtype in zip(_formats()[1::3], itertools.cycle(X_DTYPES), strict=False)
    ]
    cases += [
        Case(LINEAR, WeightSpec(table=table, zeros="midpoint"), dtype=dtype, mode=mode)
        for table in ("nf4", "e2m1")
        for mode, dtype in (("fp16", torch.float32), *(("dense", dtype) for dtype in halves))
    ]
    modes = itertools.cycle(itertools.product(("dense", "fp16", "bf16"), halves))
    fragments = _formats() + _shapes() + _cuts()
    cases += [
        Case(LINEAR, dataclasses.replace(weight, layout="fragments"), dtype=dtype, mode=mode)
        for weight, (mode, dtype) in zip(fragments, modes, strict=False)
    ]
    spread = [WeightSpec(zeros=z, k=300) for z in ("code", "midpoint")] + [WeightSpec(table="e2m1")]
    cases += [
        Case(LINEAR, dataclasses.replace(weight, layout="fragments"), (9,), d, m, nonfinite=True)
        for weight in spread
        for d in X_DTYPES
        for m in ("dense", "exact")
    ]
    return cases


def _gradients() -> list[Case]:
    """Every weight in panels; weights of several panels with many rows of grad; tall blocks."""
    change = dataclasses.replace
    cases = [Case(BACKWARD, change(weight, layout="panels")) for weight in WEIGHTS]
    several = [
        WeightSpec(n=131, k=211, bits=5, block_k=48, zeros="code"),
        WeightSpec(n=128, k=150, bits=2, block_k=7, zeros="value", zero_dtype=torch.float16),
        WeightSpec(n=65, k=300, block_k=200, table="random", zeros="midpoint"),
    ]
    cases += [
        Case(BACKWARD, change(weight, layout=layout), (rows,), dtype)
        for weight, dtype in zip(several, X_DTYPES, strict=True)
        for layout in LAYOUTS
        for rows in (0, 1, 5, 17, 40, 97, 210)
    ]
    tall = [WeightSpec(n=1100, k=40, block_n=block, zeros="code") for block in (0, 600, 300)]
    cases += [
        Case(BACKWARD, change(weight, layout=layout), (3,)) for weight in tall for layout in LAYOUTS
    ]
    return cases


def _addends() -> list[Case]:
    """Biases, low-rank pairs and permutations, alone and together."""
    base = Case(LINEAR, WeightSpec(zeros="code"))
    change = dataclasses.replace
    cases = [change(base, bias=b, dtype=d) for b in ADDENDS[1:] for d in X_DTYPES]
    cases += [change(base, low_rank=a, dtype=d) for a in ADDENDS[1:] for d in X_DTYPES]
    cases += [change(base, low_rank="x", rank=r, rows=m) for r in RANKS for m in ((), (0,), (33,))]
    permuted = [WeightSpec(permuted=True, bits=b, k=200, block_k=48) for b in (3, 4)]
    for mode, weight, layout in itertools.product(MODES, permuted, LAYOUTS):
        weight = change(weight, layout=layout)
        cases.append(Case(LINEAR, weight, mode=mode))
        cases.append(Case(LINEAR, weight, (17,), torch.float16, mode, "x", "x", view="strided"))
    cases += [change(base, mode=m, low_rank="x", bias="float32", rows=(2, 3)) for m in MODES]
    large = WeightSpec(scales=torch.float16, exponent=14, zeros="midpoint")
    cases.append(Case(LINEAR, large, dtype=torch.float16))  # overflows to infinities of both signs
    return cases


def _mixed(op: str, count: int) -> list[Case]:
    """Draws over all axes at once: what single changes of one base never combine."""
    draw = random.Random(len(op))
    cases = []
    for _ in range(count):
        bits = draw.randint(1, 8)
        weight = WeightSpec(
            n=draw.randint(1, 200),
            k=draw.randint(1, 700),
            bits=bits,
            block_k=draw.choice((0, 8, 32, 33, 64, 128)),
            block_n=draw.choice((1, 1, 1, 3, 0)),
            zeros=draw.choice(ZERO_KINDS),
            zero_dtype=draw.choice(ZERO_DTYPES),
            scales=draw.choice(SCALE_DTYPES),
            table=draw.choice(("", "random")) if bits <= 4 else "",
            s0=draw.choice(("", "tensor", "rows")),
            cut=draw.choice(("", "rows")),
        )
        if op != DEQUANTIZE:
            weight = dataclasses.replace(weight, layout=draw.choice(LAYOUTS))
        axes = {"rows": (draw.randint(1, 40),), "dtype": draw.choice(X_DTYPES)}
        axes["view"] = draw.choice(VIEWS)
        if op == LINEAR:
            axes |= {"mode": draw.choice(MODES), "bias": draw.choice(ADDENDS)}
            axes |= {"low_rank": draw.choice(ADDENDS), "rank": draw.choice(RANKS)}
            weight = dataclasses.replace(weight, permuted=draw.choice((False, True)))
        cases.append(Case(op, weight, **axes))
    return cases


def _linear_cases(op: str) -> tuple[Case, ...]:
    cases = [Case(op, w) for w in WEIGHTS]
    cases += [Case(op, w, rows=(1,), dtype=torch.bfloat16) for w in _formats()[::3]]
    cases += _modes() + _dense() + _addends() if op == LINEAR else _gradients()
    return tuple(dict.fromkeys(cases + _inputs(op) + _mixed(op, 60)))


def _dequantize_cases() -> tuple[Case, ...]:
    pairs = zip(WEIGHTS, itertools.cycle(X_DTYPES), strict=False)
    cases = [Case(DEQUANTIZE, w) for w in WEIGHTS]
    cases += [Case(DEQUANTIZE, w, dtype=d) for w, d in pairs]
    mixed = [Case(DEQUANTIZE, c.weight, dtype=c.dtype) for c in _mixed(DEQUANTIZE, 40)]
    return tuple(dict.fromkeys(cases + mixed))


def _packing_cases(op: str) -> tuple[Case, ...]:
    """Bits, groups, tails and slices in both packed layouts; scales and zeros are no part of it."""
    specs = [*_shapes(), *_cuts(), *(c.weight for c in _mixed(DEQUANTIZE, 40))]
    specs += [
        WeightSpec(n=n, k=k, bits=b, zeros="code")
        for b in range(1, 9)
        for n, k in ((64, 128), (130, 77))
    ]
    specs += [dataclasses.replace(spec, layout="fragments") for spec in specs]
    return tuple(dict.fromkeys(Case(op, spec) for spec in specs))


CASES: dict[str, tuple[Case, ...]] = {
    LINEAR: _linear_cases(LINEAR),
    BACKWARD: _linear_cases(BACKWARD),
    DEQUANTIZE: _dequantize_cases(),
    PREPACK: _packing_cases(PREPACK),
    UNPACK: _packing_cases(UNPACK),
}
