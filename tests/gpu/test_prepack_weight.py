"""prepack_weight and unpack_weight on a CUDA device: bit for bit, streams, graphs, refusals."""

import pytest
import torch

import lowbit
from lowbit import QuantizedWeight
from lowbit.bench.check import unavailable
from lowbit.formats.weight_format import FRAGMENTS, WeightFormat
from tests.weight_cases import random_weight

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
SHAPES = ((1, 1), (3, 33), (64, 64), (130, 257), (200, 1024))
LARGE = (1 << 15, 1 << 18)  # 8 bits: 2^31 words, 2^33 bytes
CANARY = 0x55555555


@pytest.fixture(autouse=True)
def _with_the_kernel():
    if absent := unavailable("cuda"):
        pytest.skip(absent)
    with lowbit.use_backend("cuda"):
        yield


def reference(weight: QuantizedWeight) -> tuple[torch.Tensor, torch.Tensor]:
    """On the CPU: the codes in fragments, and those that come back."""
    with lowbit.use_backend("reference"):
        packed = lowbit.prepack(weight, "fragments")
        return packed.qweight, lowbit.unpack(packed).qweight


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_format(bits):
    """Of rows with strides of their own and garbage behind their codes."""
    for seed, (n, k) in enumerate(SHAPES):
        for block_k in {1, 7, 32, 48, 128, k, k + 5}:
            weight = random_weight(n, k, bits, block=(1 + seed % 3, block_k), seed=seed)
            want, rows = reference(weight)
            packed = lowbit.prepack(weight.to(CUDA), "fragments")
            assert torch.equal(packed.qweight.cpu(), want)
            assert torch.equal(lowbit.unpack(packed).qweight.cpu(), rows)


def test_slices_keep_their_strides():
    weight = random_weight(200, 512, 4, block=(1, 64)).to(CUDA)
    part = weight.slice_rows(3, 150).slice_columns(64, 320)
    assert not part.qweight.is_contiguous()
    want, rows = reference(part.to("cpu"))
    packed = lowbit.prepack(part, "fragments")
    assert torch.equal(packed.qweight.cpu(), want)
    assert torch.equal(lowbit.unpack(packed).qweight.cpu(), rows)


def test_outputs_off_16_bytes():
    """Neighbours of misaligned results stay as they are."""
    weight = random_weight(70, 96, 5)
    on_gpu, (want, rows) = weight.to(CUDA), reference(weight)
    fmt = weight.format._replace(layout=FRAGMENTS)
    packed, unpacked = (_misaligned(each) for each in (want, rows))
    torch.ops.lowbit.prepack_weight__cuda(on_gpu.qweight, weight.format, FRAGMENTS, packed[1])
    torch.ops.lowbit.unpack_weight__cuda(packed[1], fmt, unpacked[1])
    for (buffer, out), expected in ((packed, want), (unpacked, rows)):
        assert torch.equal(out.cpu(), expected)
        assert (buffer[:3] == CANARY).all() and (buffer[3 + out.numel() :] == CANARY).all()


def _misaligned(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    buffer = torch.full((like.numel() + 8,), CANARY, dtype=torch.int32, device=CUDA)
    return buffer, buffer[3 : 3 + like.numel()].view(like.shape)


def test_runs_on_the_current_stream():
    """Work queued before it on the same stream is seen, on each of two streams."""
    weights = [random_weight(512, 4096, 4, seed=seed) for seed in range(2)]
    targets = [weight.to(CUDA) for weight in weights]
    sources = [target.qweight.clone() for target in targets]
    for target in targets:
        target.qweight.zero_()
    torch.cuda.synchronize()
    results = []
    for target, source in zip(targets, sources, strict=True):
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(20_000_000)  # a kernel on another stream would run ahead of the copy
            target.qweight.copy_(source)
            packed = lowbit.prepack(target, "fragments")
            results.append((packed.qweight, lowbit.unpack(packed).qweight))
    torch.cuda.synchronize()
    for got, weight in zip(results, weights, strict=True):
        for tensor, want in zip(got, reference(weight), strict=True):
            assert torch.equal(tensor.cpu(), want)


def test_graph_capture():
    """Captured calls read the codes anew at each replay."""
    first, second = (random_weight(130, 256, 3, seed=seed) for seed in range(2))
    held, fmt = first.qweight.to(CUDA), first.format
    packed, rows = (torch.empty_like(each, device=CUDA) for each in reference(first))

    def both():
        torch.ops.lowbit.prepack_weight__cuda(held, fmt, FRAGMENTS, packed)
        torch.ops.lowbit.unpack_weight__cuda(packed, fmt._replace(layout=FRAGMENTS), rows)

    both()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        both()
    for weight in (second, first):
        held.copy_(weight.qweight)
        packed.fill_(CANARY), rows.fill_(CANARY)
        graph.replay()
        want = reference(weight)
        assert torch.equal(packed.cpu(), want[0]) and torch.equal(rows.cpu(), want[1])


def test_offsets_beyond_32_bits():
    n, k = LARGE
    if torch.cuda.mem_get_info()[0] < 4 * n * k:
        pytest.skip("the device has too little free memory")
    codes = torch.randint(-(2**31), 2**31, (n, k // 4), dtype=torch.int32, device=CUDA)
    fmt = WeightFormat(1, 8, n, k, n, k, 1)
    packed = torch.ops.lowbit.prepack_weight(codes, fmt, FRAGMENTS)
    # The last panel alone, packed from rows that stand at the start of their memory.
    last = torch.ops.lowbit.prepack_weight(codes[-64:].clone(), fmt._replace(n=64), FRAGMENTS)
    assert torch.equal(packed[-1:], last)
    assert torch.equal(
        torch.ops.lowbit.unpack_weight(packed, fmt._replace(layout=FRAGMENTS)), codes
    )


def test_mixed_devices_are_refused():
    weight = random_weight(4, 64, 4)
    want, rows = reference(weight)
    with pytest.raises(ValueError, match="prepack_weight: out must be on cuda:0, got cpu; move"):
        torch.ops.lowbit.prepack_weight__cuda(
            weight.qweight.to(CUDA), weight.format, FRAGMENTS, torch.empty_like(want)
        )
    with pytest.raises(ValueError, match="unpack_weight: out must be on cuda:0, got cpu; move"):
        torch.ops.lowbit.unpack_weight__cuda(
            want.to(CUDA), weight.format._replace(layout=FRAGMENTS), torch.empty_like(rows)
        )


def test_no_rows():
    weight = random_weight(4, 64, 4).slice_rows(2, 2).to(CUDA)
    packed = lowbit.prepack(weight, "fragments")
    assert packed.qweight.shape[0] == 0 and lowbit.unpack(packed).qweight.shape == (0, 8)


def test_panels_go_to_the_reference():
    weight = random_weight(70, 96, 4)
    with lowbit.use_backend(None):
        panels = lowbit.prepack(weight.to(CUDA), "panels")
        assert lowbit.explain("unpack_weight", panels).backend == "reference"
        assert torch.equal(lowbit.unpack(panels).qweight.cpu(), reference(weight)[1])
