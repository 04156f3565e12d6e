"""What every op promises, for all ops of the registry: opcheck, fakes, refusals, layouts, fills."""

import dataclasses
import warnings

import pytest
import torch

from lowbit import registry
from lowbit.bench.cases import CASES, LINEAR, PACKING
from lowbit.bench.check import expected, same_bits
from tests.runners import covered

OPS = sorted(registry.OPS)


def sample(op):
    """A few cases that differ in kind: zero kinds, planes, table, slices, nothing to do."""
    cases = [c for c in CASES[op] if not c.weight.scale_nan and not c.nonfinite]
    picked = {}
    for case in cases:
        kind = (case.weight.zeros, case.weight.bits in (3, 5, 6, 7), case.weight.cut, case.dtype)
        picked.setdefault(kind, case)
    empty = [c for c in cases if c.weight.n == 0 or 0 in c.rows][:3]
    options = {}
    for case in cases:
        kind = (case.mode, case.weight.layout, case.weight.permuted, case.low_rank != "none")
        options.setdefault(kind, case)
    return list(dict.fromkeys([*list(picked.values())[:14], *empty, *options.values()]))


SAMPLES = [(op, case) for op in OPS for case in sample(op)]
RUNS = [run for op in OPS for run in covered(op, sample(op))]
on_every_runner = pytest.mark.parametrize(
    ("op", "case", "runner"), RUNS, indirect=["runner"], ids=str
)
FIRST = {op: sample(op)[0] for op in OPS}


def kernels_here(op):
    """Names of the backends whose kernels of the op run on this machine's CPU."""
    cpu = torch.device("cpu")
    for row in registry.OPS[op].rows:
        backend = registry.BACKENDS[row.backend]
        if backend.device in (None, "cpu") and backend.missing(cpu) is None:
            yield row.backend


KERNELS = [(op, backend) for op in OPS for backend in kernels_here(op)]


def outputs_of(op, args):
    out = registry.OPS[op].allocate(*args)
    return out if isinstance(out, tuple) else (out,)


def internal(op, backend):
    return getattr(torch.ops.lowbit, f"{op}__{backend}").default


def test_every_op_has_cases():
    assert set(CASES) == set(OPS)


# test_autograd_registration is left out: gradients come from an autograd.Function around the op.
CHECKS = ("test_schema", "test_faketensor")


# torch's schema check multiplies its inputs, which it cannot do with float8.
CHECKABLE = [s for s in SAMPLES if s[1].weight.scales.itemsize > 1]


@pytest.mark.parametrize(("op", "case"), CHECKABLE, ids=str)
def test_opcheck(op, case):
    args, definition = case.make(), registry.OPS[op]
    # No kernel of the CPU reads fragments: a slow path, which strict mode refuses.
    with registry.use_backend("reference" if case.weight.layout == "fragments" else None):
        torch.library.opcheck(definition.overload, args, test_utils=CHECKS)
        torch.library.opcheck(
            definition.out_overload, (*args, *outputs_of(op, args)), test_utils=CHECKS
        )


@pytest.mark.parametrize(("op", "backend"), KERNELS)
def test_opcheck_of_kernels(op, backend):
    args = FIRST[op].make()
    kernel = internal(op, backend)
    torch.library.opcheck(kernel, (*args, *outputs_of(op, args)), test_utils=CHECKS)


@pytest.mark.parametrize("op", OPS)
def test_opcheck_dynamic(op):
    torch.library.opcheck(
        registry.OPS[op].overload, FIRST[op].make(), test_utils="test_aot_dispatch_dynamic"
    )


@on_every_runner
def test_fake_equals_real(op, case, runner):
    definition, args = registry.OPS[op], case.make()
    real = definition.overload(*args)
    meta = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in args]
    fake = definition.overload(*meta)
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
    assert fake.is_meta


@on_every_runner
def test_nothing_of_a_poisoned_output_is_left(op, case, runner):
    """The output is filled with NaN (-1 for integers): what a kernel does not write would show."""
    definition, args = registry.OPS[op], case.make()
    plain = definition.overload(*args)
    bytes_of_ones = torch.full((plain.numel() * plain.element_size(),), 0xFF, dtype=torch.uint8)
    poisoned = bytes_of_ones.view(plain.dtype).view(plain.shape)
    definition.out_overload(*args, poisoned)
    assert same_bits(plain, poisoned).all()
    assert torch.isfinite(plain).all() or not torch.isfinite(expected(op, args).oracle).all()


@on_every_runner
def test_strides_and_offsets_do_not_matter(op, case, runner):
    definition, args = registry.OPS[op], case.make()
    dense = [t.contiguous() if isinstance(t, torch.Tensor) else t for t in args]
    format = dense[names_of(op).index("format")]
    in_panels = ("qweight", "scales", "zeros") if format[7] else ()  # they are dense always
    spread = [
        (offset(t) if name in in_panels else offset_rows(t)) if isinstance(t, torch.Tensor) else t
        for name, t in zip(names_of(op), dense, strict=True)
    ]
    assert torch.equal(definition.overload(*dense), definition.overload(*spread))


def offset(tensor):
    """The same values, dense, one element into a larger buffer."""
    return offset_rows(tensor.reshape(-1)).view(tensor.shape)


def offset_rows(tensor):
    """The same values with another row stride, one element into a larger buffer."""
    if not tensor.dim():
        return tensor
    # float8 tensors take no new_full; their bytes do
    raw = tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.element_size()])
    wide = raw.new_full((*raw.shape[:-1], raw.shape[-1] + 3), 0x55)
    wide[..., 1:-2] = raw
    return wide.view(tensor.dtype)[..., 1:-2]


def names_of(op):
    return [part.split()[-1].split("=")[0] for part in registry.OPS[op].inputs.split(", ")]


def replaced(op, args, **changes):
    out = list(args)
    for name, change in changes.items():
        at = names_of(op).index(name)
        out[at] = change(out[at])
    return tuple(out)


def field(position, value):
    return lambda fmt: [*list(fmt)[:position], value, *list(fmt)[position + 1 :]]


HUGE = 2**62
FORMAT = [
    ("version 2", field(0, 2), "format_version must be 1, got 2; update lowbit"),
    ("bits 0", field(1, 0), "format must have bits in 1..8, got 0"),
    ("bits 9", field(1, 9), "format must have bits in 1..8, got 9"),
    ("bits huge", field(1, HUGE), f"format must have bits in 1..8, got {HUGE}"),
    ("n negative", field(2, -1), "format must have n in 0..2147483647, got -1"),
    ("n huge", field(2, HUGE), f"format must have n in 0..2147483647, got {HUGE}"),
    ("n large", field(2, 2**31 - 1), "qweight must have shape ["),
    ("k 0", field(3, 0), "format must have k in 1..2147483647, got 0"),
    ("k huge", field(3, HUGE), f"format must have k in 1..2147483647, got {HUGE}"),
    ("block_n 0", field(4, 0), "format must have block_n in 1..2147483647, got 0"),
    ("block_n huge", field(4, HUGE), f"format must have block_n in 1..2147483647, got {HUGE}"),
    ("block_k -5", field(5, -5), "format must have block_k in 1..2147483647, got -5"),
    ("zero_kind 4", field(6, 4), "format must have zero_kind in 0..3, got 4"),
    ("zero_kind -1", field(6, -1), "format must have zero_kind in 0..3, got -1"),
    ("layout 3", field(7, 3), "format must have layout in 0..2, got 3"),
    ("layout -1", field(7, -1), "format must have layout in 0..2, got -1"),
    ("short", lambda fmt: list(fmt)[:4], "format must have 8 fields, got 4"),
    ("long", lambda fmt: [*fmt, 0], "format must have 8 fields, got 9"),
    ("none", lambda fmt: [], "format must have 8 fields, got 0"),
]
TENSORS = [
    ("qweight", lambda t: t.long(), "qweight must be int32, got int64"),
    ("qweight", lambda t: t[:-1], "qweight must have shape ["),
    ("qweight", lambda t: t[0], "qweight must have shape ["),
    (
        "scales",
        lambda t: t.double(),
        "scales must be float32, float16, bfloat16, float8_e4m3fn or ",
    ),
    ("scales", lambda t: t[:, :-1], "scales must have shape ["),
    (
        "scales",
        lambda t: t.to("meta"),
        "scales must be on cpu, got meta; move all arguments to one",
    ),
    ("zeros", lambda t: None, "zeros must be a tensor for the zero kind code, got None"),
    ("zeros", lambda t: t.long(), "zeros must be uint8, float16, bfloat16 or float32, got int64"),
    ("zeros", lambda t: t[:-1], "zeros must have shape ["),
    ("zeros", lambda t: t.to("meta"), "zeros must be on cpu, got meta; move all arguments to one"),
    ("table", lambda t: torch.ones(3), "table must have shape [16], got [3]"),
    ("table", lambda t: torch.ones(16).half(), "table must be float32, got float16"),
    (
        "table",
        lambda t: torch.ones(32)[::2],
        "table must have unit stride along its last dimension",
    ),
    ("s0", lambda t: torch.ones(3), "s0 must have shape ["),
    ("s0", lambda t: torch.ones(()).half(), "s0 must be float32, got float16"),
    ("s0", lambda t: torch.ones((), device="meta"), "s0 must be on cpu, got meta; move all"),
]
COLUMNS_FIRST = lambda t: t.t().contiguous().t()  # noqa: E731
# What only ops that read canonical codes must say.
ROWS = [
    ("qweight", COLUMNS_FIRST, "qweight must have unit stride along its last"),
    ("format", field(7, 1), "qweight must have shape ["),
    ("format", field(7, 2), "qweight must have shape ["),
]
OWN = {
    "prepack_weight": [
        ROWS[0],
        ("format", field(7, 1), "format must have the layout canonical, got panels"),
        ("format", field(7, 2), "format must have the layout canonical, got fragments"),
        ("layout", lambda layout: 0, "layout must be in 1..2, got 0"),
        ("layout", lambda layout: 3, "layout must be in 1..2, got 3"),
        ("layout", lambda layout: -1, "layout must be in 1..2, got -1"),
    ],
    "unpack_weight": [
        ("qweight", COLUMNS_FIRST, "qweight must be contiguous, got strides [1, "),
        ("format", field(7, 0), "format must have the layout panels or fragments, got canonical"),
    ],
    "weight_only_linear": [
        *ROWS,
        ("x", lambda t: t.double(), "x must be float32, float16 or bfloat16, got float64"),
        ("x", lambda t: t.int(), "x must be float32, float16 or bfloat16, got int32"),
        ("x", lambda t: t[..., :-1], "x must have shape [..., "),
        ("x", lambda t: t.new_ones(()), "x must have shape [..., "),
        ("x", lambda t: t.to("meta"), "x must be on cpu, got meta; move all arguments to one"),
        ("bias", lambda t: torch.ones(3), "bias must have shape ["),
        ("bias", lambda t: torch.ones(3).double(), "bias must be float32, got float64"),
        ("permutation", lambda t: t.long(), "permutation must be int32, got int64"),
        ("permutation", lambda t: t[1:], "permutation must have shape ["),
        ("permutation", lambda t: t.to("meta"), "permutation must be on cpu, got meta; move all"),
        ("low_rank_a", lambda t: None, "low_rank_a must be a tensor, as low_rank_b is, got None"),
        ("low_rank_b", lambda t: None, "low_rank_b must be a tensor, as low_rank_a is, got None"),
        ("low_rank_a", lambda t: t[0], "low_rank_a must have shape ["),
        ("low_rank_a", lambda t: t[:, 1:], "low_rank_a must have shape ["),
        ("low_rank_b", lambda t: t[1:], "low_rank_b must have shape ["),
        ("low_rank_b", lambda t: t[:, 1:], "low_rank_b must have shape ["),
        ("low_rank_a", lambda t: t.double(), "low_rank_a must be float32, got float64"),
        ("low_rank_b", lambda t: t.half(), "low_rank_b must be float32, got float16"),
        ("low_rank_b", lambda t: t.to("meta"), "low_rank_b must be on cpu, got meta; move all"),
        ("numerics", lambda m: 5, "numerics must be in 0..4, got 5"),
        ("numerics", lambda m: -1, "numerics must be in 0..4, got -1"),
        ("numerics", lambda m: HUGE, f"numerics must be in 0..4, got {HUGE}"),
    ],
    "dequantize_weight": [
        *ROWS,
        ("dtype", lambda d: torch.float64, "dtype must be float32, float16 or bfloat16, got flo"),
        ("dtype", lambda d: torch.int8, "dtype must be float32, float16 or bfloat16, got int8"),
    ],
    "weight_only_linear_backward": [
        *ROWS,
        ("grad", lambda t: t[..., :-1], "grad must have shape [..., "),
        ("grad", lambda t: t.int(), "grad must be float32, float16 or bfloat16, got int32"),
        ("grad", lambda t: t.to("meta"), "grad must be on cpu, got meta"),
    ],
}


def base_case(op):
    """Four bits, float32, a code zero point: every argument above can be spoilt in it."""
    case = next(
        c
        for c in CASES[op]
        if (c.weight.zeros, c.weight.bits, c.weight.cut, c.dtype, c.weight.s0, c.weight.table)
        == ("code", 4, "", torch.float32, "", "")
        and c.weight.n > (64 if op in PACKING else 2)  # more than one panel
        and len(c.rows) == 1
        and c.m > 1
        and c.weight.k > c.weight.block_k > 0
    )
    if op != LINEAR:
        return case
    weight = dataclasses.replace(case.weight, permuted=True)
    return dataclasses.replace(case, weight=weight, bias="x", low_rank="x")


REFUSED = [
    (op, f"format {what}", "format", change, text) for op in OPS for what, change, text in FORMAT
]
REFUSED += [
    (op, f"{name} {number}", name, change, text)
    for op in OPS
    for number, (name, change, text) in enumerate(TENSORS + OWN[op])
    if name in names_of(op)
]


@pytest.mark.parametrize(
    ("op", "name", "change", "text"),
    [
        pytest.param(op, name, change, text, id=f"{op}-{what}")
        for op, what, name, change, text in REFUSED
    ],
)
def test_refused_with_the_sentence(op, name, change, text):
    """Through torch.ops, through the out variant and by every kernel; no output is touched."""
    good = base_case(op).make()
    bad = replaced(op, good, **{name: change})
    definition = registry.OPS[op]
    sentence = f"{op}: {text}"
    with pytest.raises((ValueError, TypeError, RuntimeError)) as refusal:
        definition.overload(*bad)
    assert sentence in str(refusal.value)
    calls = [definition.out_overload, *(internal(op, b) for b in kernels_here(op))]
    for call in calls:
        outputs = outputs_of(op, good)
        for out in outputs:
            out.fill_(7)
        if any(isinstance(t, torch.Tensor) and t.is_meta for t in bad):
            continue  # torch sends a call with a meta tensor to the fake
        with pytest.raises((ValueError, TypeError, RuntimeError)) as refusal:
            call(*bad, *outputs)
        assert sentence in str(refusal.value), call
        assert all((out == 7).all() for out in outputs), call


@pytest.mark.parametrize(("op", "backend"), KERNELS)
@pytest.mark.parametrize("wrong", ["rows", "columns", "dtype", "stride"])
def test_kernels_refuse_wrong_outputs(op, backend, wrong):
    args = base_case(op).make()
    (like,) = outputs_of(op, args)
    out = {
        "rows": lambda: like.new_empty((like.shape[0] + 1, *like.shape[1:])),
        "columns": lambda: like.new_empty((*like.shape[:-1], like.shape[-1] + 1)),
        "dtype": lambda: like.double(),
        "stride": lambda: like.new_empty(like.shape[::-1]).t(),
    }[wrong]().fill_(7)
    with pytest.raises((ValueError, TypeError, RuntimeError), match=f"{op}: out must "):
        internal(op, backend)(*args, out)
    assert (out == 7).all()


@pytest.mark.parametrize("op", OPS)
def test_calls_warn_of_nothing(op):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", registry.SlowPathWarning)
        registry.OPS[op].overload(*FIRST[op].make())
