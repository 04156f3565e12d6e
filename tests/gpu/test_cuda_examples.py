"""The CUDA examples on a CUDA device: values, both tiles, streams, graphs, refusals."""

import pytest
import torch

from tests.conformance.device import device_arch
from tests.cuda_build import build_examples
from tests.example_cases import GEMMS, ExampleCases, empty, exact_product, integers, scaled

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
# As many tiles, of the large kind, as any GPU has multiprocessors: fewer are cut small.
LARGE = [(1601, 3499, 40), (1664, 3584, 520)]


@pytest.fixture(scope="module")
def ops():
    arch = device_arch()
    assert arch is not None, "nvidia-smi must name a GPU"
    torch.ops.load_library(build_examples(arch))
    return torch.ops.lowbit_examples


@pytest.fixture
def device():
    return CUDA


def has_sm90() -> bool:
    return torch.cuda.get_device_capability() == (9, 0)


@pytest.fixture(params=GEMMS)
def gemm(request) -> str:
    if request.param == "tiled_gemm_sm90" and not has_sm90():
        major, minor = torch.cuda.get_device_capability()
        pytest.skip(f"tiled_gemm_sm90 needs compute capability 9.0, got {major}.{minor}")
    return request.param


class TestOnTheDevice(ExampleCases):
    """The same as on the host model (tests/test_cuda_examples.py)."""


def test_every_block_scales_several_packs(ops):
    x = torch.randn(20_000_003).bfloat16().to(CUDA)
    y = torch.empty_like(x)
    ops.vector_scale(x, 0.3, y)
    assert torch.equal(y.cpu(), scaled(x, 0.3))


@pytest.mark.parametrize("shape", LARGE)
def test_large_tiles(ops, gemm, shape):
    m, n, k = shape
    a, b, c = integers(m, k, CUDA), integers(n, k, CUDA), empty(m, n, CUDA)
    for _ in range(2):  # the second finds what the first left in shared memory
        getattr(ops, gemm)(a, b, c.fill_(77.0))
        assert torch.equal(c.cpu(), exact_product(a, b))


def check_stream_order(run, inputs, wanted) -> None:
    """`run(input, out)` on each of two streams, where `input` is written late."""
    late = [torch.zeros_like(each) for each in inputs]
    outs = [torch.full_like(each, 77.0, device=CUDA) for each in wanted]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    for stream, source, target, out in zip(streams, inputs, late, outs, strict=True):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)  # a kernel on another stream would run ahead of the copy
            target.copy_(source)
            run(target, out)
    torch.cuda.synchronize()
    for out, want in zip(outs, wanted, strict=True):
        assert torch.equal(out.cpu(), want)


def check_replay(run, inputs, wanted) -> None:
    """A captured `run(input, out)` reads the input anew at each replay."""
    held, out = inputs[0].clone(), torch.full_like(wanted[0], 77.0, device=CUDA)
    run(held, out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(held, out)
    for source, want in zip(reversed(inputs), reversed(wanted), strict=True):
        held.copy_(source)
        out.fill_(77.0)
        graph.replay()
        assert torch.equal(out.cpu(), want)


@pytest.mark.parametrize("check", [check_stream_order, check_replay])
def test_vector_scale_in_order(ops, check):
    inputs = [torch.randn(1_000_003, device=CUDA) for _ in range(2)]
    check(lambda x, y: ops.vector_scale(x, 0.3, y), inputs, [scaled(x, 0.3) for x in inputs])


@pytest.mark.parametrize("check", [check_stream_order, check_replay])
def test_gemm_in_order(ops, gemm, check):
    b, inputs = integers(257, 520, CUDA), [integers(130, 520, CUDA) for _ in range(2)]
    check(lambda a, c: getattr(ops, gemm)(a, b, c), inputs, [exact_product(a, b) for a in inputs])


def test_mixed_devices_are_refused(ops, gemm):
    a, b, c = integers(4, 16, CUDA), integers(6, 16, "cpu"), empty(4, 6, CUDA)
    with pytest.raises(ValueError, match=f"{gemm}: b must be on cuda:0, got cpu"):
        getattr(ops, gemm)(a, b, c)


def test_sm90_is_refused_elsewhere(ops):
    if has_sm90():
        pytest.skip("the device has compute capability 9.0")
    a, b, c = integers(4, 16, CUDA), integers(6, 16, CUDA), empty(4, 6, CUDA)
    with pytest.raises(ValueError, match="tiled_gemm_sm90: a must be on a device of compute capab"):
        ops.tiled_gemm_sm90(a, b, c)
