"""What the ops of examples/cuda must do, wherever they run."""

import re

import pytest
import torch

GEMMS = ("tiled_gemm", "tiled_gemm_sm90")


def halves(rows: int, columns: int, device) -> torch.Tensor:
    return torch.randn(rows, columns).half().to(device)


def integers(rows: int, columns: int, device) -> torch.Tensor:
    """So small that fp32 holds every sum of their products, in whatever order it is added up."""
    return torch.randint(-8, 9, (rows, columns)).half().to(device)


def empty(rows: int, columns: int, device) -> torch.Tensor:
    return torch.full((rows, columns), 77.0, dtype=torch.float16, device=device)


def exact_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of integers, rounded once, on the CPU."""
    return (a.cpu().float() @ b.cpu().float().T).half()


def scaled(x: torch.Tensor, s: float) -> torch.Tensor:
    """In float32, rounded once, on the CPU."""
    return (x.cpu().float() * torch.tensor(s)).to(x.dtype)


REFUSALS = {
    "a must be float16, got float32": {"a": lambda t: t.float()},
    "a must have a multiple of 8 columns, got 15; pad both operands with zeros": {
        "a": lambda t: t[:, :15]
    },
    "b must have a multiple of 8 columns": {"b": lambda t: t[:, :15]},
    "b must have as many columns as a, 16, got 8": {"b": lambda t: t[:, :8]},
    "a must have rows a multiple of 8 elements apart, got 20": {
        "a": lambda t: t.new_zeros(4, 20)[:, :16]
    },
    "a must start on 16 bytes, got 2": {"a": lambda t: t.new_zeros(4, 24)[:, 1:17]},
    "b must have unit stride": {"b": lambda t: t.new_zeros(16, 6).T},
    "b must have 2 dimensions, got 1": {"b": lambda t: t[0]},
    "c must have shape [4, 6], got [4, 5]": {"c": lambda t: t[:, :5]},
    "c must have rows that do not overlap": {"c": lambda t: t[:1].expand(4, 6)},
    "c must be float16, got bfloat16": {"c": lambda t: t.bfloat16()},
}


class ExampleCases:
    """Needs fixtures: `ops`, the namespace of the loaded library, `device`, `gemm` of GEMMS."""

    @pytest.mark.parametrize("count", [0, 1, 7, 8, 4099])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_vector_scale(self, ops, device, dtype, count):
        x = torch.randn(count + 3).to(device, dtype)
        for shift in range(3):
            out = torch.full((count + 3,), 77.0, dtype=dtype, device=device)
            ops.vector_scale(x[shift : shift + count], 0.3, out[1 : 1 + count])
            expected = scaled(x[shift : shift + count], 0.3)
            assert torch.equal(out[1 : 1 + count].cpu(), expected)
            assert out[0] == 77 and (out[1 + count :] == 77).all()

    @pytest.mark.parametrize("shape", [(1, 1, 8), (130, 70, 264), (65, 300, 40), (5, 257, 1024)])
    def test_gemm_of_integers(self, ops, device, gemm, shape):
        m, n, k = shape
        a, b, c = integers(m, k, device), integers(n, k, device), empty(m, n, device)
        getattr(ops, gemm)(a, b, c)
        assert torch.equal(c.cpu(), exact_product(a, b))

    @pytest.mark.parametrize("shape", [(130, 70, 264), (5, 257, 1024)])
    def test_gemm(self, ops, device, gemm, shape):
        """Against fp64; the bound: fp32 sums in any order, then one rounding to fp16."""
        m, n, k = shape
        a, b, c = halves(m, k, device), halves(n, k, device), empty(m, n, device)
        getattr(ops, gemm)(a, b, c)
        a, b, c = a.cpu().double(), b.cpu().double(), c.cpu().double()
        exact = a @ b.T
        sums = (a.abs() @ b.abs().T) * k * 2**-24
        assert ((c - exact).abs() <= sums + exact.abs() * 2**-11 + 2**-25).all()

    def test_infinities_and_nan_stay_in_their_rows(self, ops, device, gemm):
        a, b, c = halves(70, 48, device), halves(90, 48, device), empty(70, 90, device)
        a[3, 5], a[64, 47], b[89, 0] = float("inf"), float("nan"), float("-inf")
        getattr(ops, gemm)(a, b, c)
        expected = (a.cpu().float() @ b.cpu().float().T).half()
        assert torch.equal(c.cpu().isnan(), expected.isnan())
        assert torch.equal(c.cpu().isinf(), expected.isinf())

    def test_parts_of_larger_tensors(self, ops, device, gemm):
        a, b = integers(40, 64, device)[3:33, 8:48], integers(80, 96, device)[::2, 16:56]
        whole = empty(30, 50, device)
        getattr(ops, gemm)(a, b, whole[:, 5:45])
        assert torch.equal(whole[:, 5:45].cpu(), exact_product(a, b))
        assert (whole[:, :5] == 77).all() and (whole[:, 45:] == 77).all()

    def test_empty_extents(self, ops, device, gemm):
        run = getattr(ops, gemm)
        run(halves(0, 8, device), halves(5, 8, device), empty(0, 5, device))
        run(halves(5, 8, device), halves(0, 8, device), empty(5, 0, device))

    def test_no_columns_give_zeros(self, ops, device):
        c = empty(5, 6, device)
        ops.tiled_gemm(halves(5, 0, device), halves(6, 0, device), c)
        assert (c == 0).all()

    @pytest.mark.parametrize("sentence", REFUSALS)
    def test_refusals(self, ops, device, gemm, sentence):
        call = {"a": halves(4, 16, device), "b": halves(6, 16, device), "c": empty(4, 6, device)}
        for name, change in REFUSALS[sentence].items():
            call[name] = change(call[name])
        with pytest.raises(ValueError, match=re.escape(f"{gemm}: {sentence}")):
            getattr(ops, gemm).default(*call.values())
