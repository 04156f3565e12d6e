"""weight_only_linear and its gradient on a CUDA device: shared cases, rows, graphs, streams."""

import pytest
import torch

import lowbit
from lowbit import registry
from lowbit.bench.cases import BACKWARD, CASES, LINEAR
from lowbit.bench.check import check, declined, unavailable
from lowbit.bench.weight_specs import WeightSpec

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
STRIDE = 10  # of the shared cases: `lowbit check` runs all of them
WEIGHT = WeightSpec(n=200, k=1024, block_k=128, zeros="code")


def backends() -> list[str]:
    rows = registry.OPS[LINEAR].rows
    return [r.backend for r in rows if registry.BACKENDS[r.backend].device == "cuda"]


def weight_for(backend: str):
    """In the layout that the backend reads fastest."""
    (row,) = (row for row in registry.OPS[LINEAR].rows if row.backend == backend)
    return lowbit.prepack(WEIGHT.make(0, CUDA), row.covers["layout"][0])


@pytest.fixture(params=backends())
def backend(request):
    """Runs the test once with each kernel."""
    if absent := unavailable(request.param):
        pytest.skip(absent)
    return request.param


@pytest.mark.parametrize("op", [LINEAR, BACKWARD])
def test_cases(op, backend):
    cases = [c for c in CASES[op] if c.weight.layout != "panels" and c.mode != "int8x2"]
    covered = [c for c in cases if declined(op, backend, c.make(device=CUDA)) is None]
    assert len(covered) > STRIDE
    for case in covered[::STRIDE]:
        check(op, backend, case)


@pytest.mark.parametrize("mode", ["exact", "bf16", "fp16"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_rows_do_not_depend_on_their_number(dtype, mode, backend):
    """Bit for bit: with few rows K is shared by programs, with many it is not."""
    weight = weight_for(backend)
    x = torch.randn(1000, WEIGHT.k, device=CUDA).to(dtype)
    with lowbit.use_backend(backend):
        want = lowbit.weight_only_linear(x, weight, mode=mode)
        for first, last in ((0, 1), (3, 20), (100, 164), (1, 400)):
            got = lowbit.weight_only_linear(x[first:last], weight, mode=mode)
            assert torch.equal(got, want[first:last])


def test_graph_capture(backend):
    """A captured call reads x anew at each replay; its workspace is its own."""
    weight, out = weight_for(backend), torch.empty(3, WEIGHT.n, dtype=torch.float16, device=CUDA)
    first, second = torch.randn(2, 3, WEIGHT.k, device=CUDA).half()
    x = first.clone()
    with lowbit.use_backend(backend):
        wanted = [lowbit.weight_only_linear(each, weight) for each in (first, second)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            lowbit.weight_only_linear(x, weight, out=out)
    for given, want in zip((second, first), reversed(wanted), strict=True):
        x.copy_(given)
        out.fill_(7.0)
        graph.replay()
        assert torch.equal(out, want)


def test_concurrent_streams(backend):
    """Work queued before it on the same stream is seen; workspaces are not shared."""
    weight = weight_for(backend)
    sources = torch.randn(2, 5, WEIGHT.k, device=CUDA)
    targets = [torch.zeros_like(source) for source in sources]
    with lowbit.use_backend(backend):
        wanted = [lowbit.weight_only_linear(source, weight) for source in sources]
        torch.cuda.synchronize()
        results = []
        for target, source in zip(targets, sources, strict=True):
            with torch.cuda.stream(torch.cuda.Stream()):
                torch.cuda._sleep(20_000_000)  # a kernel on another stream would run ahead
                target.copy_(source)
                results.append(lowbit.weight_only_linear(target, weight))
    torch.cuda.synchronize()
    assert all(map(torch.equal, results, wanted))


def test_gradient(backend):
    weight = weight_for(backend)
    x = torch.randn(6, WEIGHT.k, device=CUDA, requires_grad=True)
    with lowbit.use_backend(backend):
        y = lowbit.weight_only_linear(x, weight)
        (grad,) = torch.autograd.grad(y.sum(), x)
    want = torch.ones(6, WEIGHT.n, device=CUDA) @ weight.dequantize()
    torch.testing.assert_close(grad, want, rtol=1e-4, atol=1e-3)
