"""dequantize_weight on a CUDA device: every case bit for bit, streams, graphs, refusals."""

import zlib

import pytest
import torch

import lowbit
from lowbit.bench.check import unavailable
from lowbit.formats.weight_format import SCALE_DTYPES, ZERO_DTYPES, ZERO_KINDS
from lowbit.ops.dequantize_weight import OUT_DTYPES
from tests.weight_cases import assert_same_bits, random_weight

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
BACKENDS = ("cuda", "triton")
SHAPES = ((1, 1), (3, 33), (5, 64), (2, 257), (7, 24), (130, 1000), (64, 4096))
BLOCKED = [
    (n, k, (1 + i % 3, block_k))
    for i, (n, k) in enumerate(SHAPES)
    for block_k in sorted({1, 5, 8, 32, k})
]


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    """Runs the test once with each kernel."""
    if absent := unavailable(request.param):
        pytest.skip(absent)
    return request.param


@pytest.fixture
def kernel(backend):
    """The backend's kernel, which writes into a given output."""
    return getattr(torch.ops.lowbit, f"dequantize_weight__{backend}").default


def dealt(backend, values, *turn):
    """All values for CUDA; one for Triton, which compiles a kernel for each kind of call."""
    return values if backend == "cuda" else [values[zlib.crc32(repr(turn).encode()) % len(values)]]


def check_values(weight, dtype, backend) -> None:
    with lowbit.use_backend(backend):
        got = lowbit.dequantize_weight(weight.to(CUDA), dtype)
    assert got.device.type == "cuda"
    assert_same_bits(got.cpu(), weight.dequantize(dtype))


@pytest.mark.parametrize("dtype", OUT_DTYPES, ids=str)
@pytest.mark.parametrize("kind", ZERO_KINDS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_format(bits, kind, dtype, backend):
    for seed, (n, k, block) in enumerate(dealt(backend, BLOCKED, bits, kind, dtype)):
        weight = random_weight(n, k, bits, kind=kind, block=block, seed=seed)
        check_values(weight, dtype, backend)


@pytest.mark.parametrize("s0", [None, "tensor", "row"])
@pytest.mark.parametrize("zeros", ZERO_DTYPES, ids=str)
@pytest.mark.parametrize("scales", SCALE_DTYPES, ids=str)
def test_stored_dtypes(scales, zeros, s0, backend):
    for kind in ("code", "value"):
        weight = random_weight(
            9, 160, 4, block=(2, 7), kind=kind, scales=scales, zeros=zeros, s0=s0
        )
        for dtype in dealt(backend, OUT_DTYPES, scales, zeros, s0, kind):
            check_values(weight, dtype, backend)


@pytest.mark.parametrize("bits", range(1, 5))
def test_tables(bits, backend):
    for kind in ZERO_KINDS:
        weight = random_weight(4, 72, bits, kind=kind, table=True, s0="row")
        check_values(weight, torch.float32, backend)


def test_slices_keep_their_strides(backend):
    weight = random_weight(40, 512, 4, block=(1, 64)).to(CUDA)
    sliced = weight.slice_rows(3, 29).slice_columns(64, 320)
    assert not sliced.qweight.is_contiguous()
    with lowbit.use_backend(backend):
        got = lowbit.dequantize_weight(sliced, torch.bfloat16)
    assert_same_bits(got.cpu(), weight.dequantize(torch.bfloat16)[3:29, 64:320].cpu())


def test_output_off_16_bytes(kernel):
    """Neighbours of a misaligned output stay as they are."""
    weight = random_weight(6, 64, 4)
    on_gpu = weight.to(CUDA)
    buffer = torch.full((6 * 64 + 32,), 77.0, dtype=torch.float16, device=CUDA)
    out = buffer[17 : 17 + 6 * 64].view(6, 64)
    kernel(*on_gpu.tensors, weight.format, torch.float16, out)
    assert_same_bits(out.cpu(), weight.dequantize(torch.float16))
    assert (buffer[:17] == 77.0).all() and (buffer[17 + 6 * 64 :] == 77.0).all()


def test_runs_on_the_current_stream(backend):
    """Work queued before it on the same stream is seen, on each of two streams."""
    weights = [random_weight(512, 4096, 4, seed=seed) for seed in range(2)]
    wanted = [weight.dequantize(torch.bfloat16) for weight in weights]
    targets = [weight.to(CUDA) for weight in weights]
    sources = [target.qweight.clone() for target in targets]
    for target in targets:
        target.qweight.zero_()
    torch.cuda.synchronize()
    results = []
    for target, source in zip(targets, sources, strict=True):
        with torch.cuda.stream(torch.cuda.Stream()), lowbit.use_backend(backend):
            torch.cuda._sleep(20_000_000)  # a kernel on another stream would run ahead of the copy
            target.qweight.copy_(source)
            results.append(lowbit.dequantize_weight(target, torch.bfloat16))
    torch.cuda.synchronize()
    for got, want in zip(results, wanted, strict=True):
        assert_same_bits(got.cpu(), want)


def test_graph_capture(kernel):
    """A captured call reads the weight anew at each replay."""
    first, second = (random_weight(64, 256, 4, seed=seed) for seed in range(2))
    on_gpu = first.to(CUDA)
    out = torch.empty(64, 256, dtype=torch.float16, device=CUDA)
    kernel(*on_gpu.tensors, first.format, torch.float16, out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kernel(*on_gpu.tensors, first.format, torch.float16, out)
    for weight in (second, first):
        for held, new in zip(on_gpu.tensors, weight.tensors, strict=True):
            if held is not None:
                held.copy_(new)
        out.fill_(77.0)
        graph.replay()
        assert_same_bits(out.cpu(), weight.dequantize(torch.float16))


def test_mixed_devices_are_refused(kernel):
    weight = random_weight(4, 64, 4)
    qweight, scales, *rest = weight.tensors
    out = torch.empty(4, 64, device=CUDA)
    with pytest.raises(ValueError, match="dequantize_weight: scales must be on cuda:0, got cpu"):
        kernel(qweight.to(CUDA), scales, *rest, weight.format, torch.float32, out)


def test_no_rows(backend):
    weight = random_weight(4, 64, 4).slice_rows(2, 2).to(CUDA)
    with lowbit.use_backend(backend):
        assert lowbit.dequantize_weight(weight).shape == (0, 64)
