"""weight_only_linear with a low-rank pair: values, gradients, transforms, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from lowbit import quantize_weight, use_backend, weight_only_linear
from lowbit.formats.numerics import MODES
from tests.properties import given, st

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
N, K, R = 24, 96, 5


def make(n=N, k=K, r=R, rows=(4,), dtype=torch.float32, seed=0, **options):
    """x, weight, bias, A, B; the low-rank term is about as large as the rest."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    weight = quantize_weight(normal(n, k).float(), **{"group_size": 32, **options})
    return normal(*rows, k), weight, normal(n), normal(r, k), normal(n, r)


def composed(x, weight, bias, low_rank_a, low_rank_b):
    """The same from ordinary linears, in float64."""
    x, bias, low_rank_a, low_rank_b = (t.double() for t in (x, bias, low_rank_a, low_rank_b))
    y = F.linear(x, weight.dequantize().double(), bias)
    return y + F.linear(F.linear(x, low_rank_a), low_rank_b)


@given(
    m=st.integers(0, 9),
    n=st.integers(1, 70),
    k=st.integers(1, 130),
    r=st.integers(0, 20),
    dtype=st.sampled_from(DTYPES),
    wide=st.tuples(st.booleans(), st.booleans()),
    transposed=st.booleans(),
)
def test_any_shape_dtype_and_stride(m, n, k, r, dtype, wide, transposed):
    x, weight, bias, *pair = make(n, k, r, (m,), dtype)
    pair = [side.float() if flag else side for side, flag in zip(pair, wide, strict=True)]
    if transposed:
        pair = [side.t().contiguous().t() for side in pair]
    with use_backend("reference"):
        y = weight_only_linear(x, weight, bias, low_rank=pair, mode="exact")
    want = composed(x, weight, bias, *pair)
    assert y.dtype == dtype and y.shape == (m, n)
    size = composed(x.abs(), weight, bias.abs(), *(side.abs() for side in pair)).abs()
    bound = torch.finfo(dtype).eps * want.abs() + (k + r) * 2.0**-22 * size.amax() if m else want
    assert ((y.double() - want).abs() <= bound).all()


# In dense the weight is another one for float32 x.
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "dense"])
def test_the_term_is_added_before_the_one_rounding(mode, runner):
    x, weight, bias, *pair = make(dtype=torch.bfloat16)
    whole = weight_only_linear(x, weight, bias, low_rank=pair, mode=mode)
    apart = weight_only_linear(x.float(), weight, mode=mode)
    term = (x.float() @ pair[0].float().t()) @ pair[1].float().t()
    sums = apart + term + bias.float()
    step = torch.finfo(torch.bfloat16).eps
    assert ((whole.float() - sums).abs() <= step * sums.abs() / 2 + 1e-4).all()


@pytest.mark.parametrize("mode", MODES)
def test_rank_zero_and_zeros_add_nothing(mode, runner):
    x, weight, bias, low_rank_a, low_rank_b = make()
    plain = weight_only_linear(x, weight, bias, mode=mode)
    none = low_rank_a[:0], low_rank_b[:, :0]
    assert torch.equal(weight_only_linear(x, weight, bias, low_rank=none, mode=mode), plain)
    zero = low_rank_a, torch.zeros_like(low_rank_b)
    assert torch.equal(weight_only_linear(x, weight, bias, low_rank=zero, mode=mode), plain)


def test_a_row_does_not_depend_on_the_others(native_runner):
    x, weight, bias, *pair = make(n=70, k=200, rows=(19,), r=7)
    whole = weight_only_linear(x, weight, bias, low_rank=pair)
    for m in (1, 2, 8, 17):
        assert torch.equal(weight_only_linear(x[:m], weight, bias, low_rank=pair), whole[:m])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [(5,), (2, 3), (), (0,)])
@pytest.mark.parametrize("rank", [0, R])
def test_gradients_are_those_of_ordinary_linears(dtype, rows, rank, runner):
    x, weight, *others = make(rows=rows, dtype=dtype, r=rank)
    leaves = [t.requires_grad_() for t in (x, *others)]
    y = weight_only_linear(x, weight, leaves[1], low_rank=leaves[2:])
    seed = torch.randn_like(y)
    got = torch.autograd.grad(y, leaves, seed)
    leaves = [t.detach().double().requires_grad_() for t in leaves]
    want = torch.autograd.grad(composed(leaves[0], weight, *leaves[1:]), leaves, seed.double())
    for mine, exact in zip(got, want, strict=True):
        assert mine.dtype == dtype and mine.shape == exact.shape
        if mine.numel():
            # two roundings in grad_x, one in the others, and float32 sums of up to 96 terms
            bound = (2 * torch.finfo(dtype).eps + 96 * 2.0**-24) * exact.abs().max()
            assert (mine.double() - exact).abs().max() <= bound


def test_the_pair_may_have_gradients_of_its_own_dtype(runner):
    x, weight, _, low_rank_a, low_rank_b = make(dtype=torch.bfloat16)
    low_rank_a = low_rank_a.float().requires_grad_()
    weight_only_linear(x, weight, low_rank=(low_rank_a, low_rank_b)).sum().backward()
    assert low_rank_a.grad.dtype == torch.float32 and low_rank_b.grad is None
    want = low_rank_b.float().sum(0)[:, None] * x.float().sum(0)
    torch.testing.assert_close(low_rank_a.grad, want, rtol=1e-5, atol=1e-4)


def test_x_is_kept_for_backward_only_where_the_pair_wants_gradients():
    x, weight, _, *pair = make()
    x.requires_grad_()
    assert weight_only_linear(x, weight, low_rank=pair).grad_fn.saved_tensors[0] is None
    pair[1].requires_grad_()
    saved = weight_only_linear(x, weight, low_rank=pair).grad_fn.saved_tensors[0]
    assert saved.data_ptr() == x.data_ptr()


def test_second_derivatives(runner):
    x, weight, bias, *pair = make(n=8, k=32, r=2, rows=(3,), group_size=8)
    leaves = [t.requires_grad_() for t in (x, bias, *pair)]
    w = weight.dequantize()

    def penalty(linear):
        first = torch.autograd.grad((linear() ** 3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in first), leaves)

    got = penalty(lambda: weight_only_linear(x, weight, bias, low_rank=pair, mode="exact"))
    want = penalty(lambda: F.linear(x, w, bias) + F.linear(F.linear(x, pair[0]), pair[1]))
    for mine, other in zip(got, want, strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def test_transforms_of_torch_func(runner):
    x, weight, bias, low_rank_a, low_rank_b = make(n=6, k=16, r=2, rows=(3,), group_size=8)
    w = weight.dequantize()

    def mine(x, low_rank_a, low_rank_b):
        pair = low_rank_a, low_rank_b
        return weight_only_linear(x, weight, bias, low_rank=pair, mode="exact").pow(2).sum()

    def plain(x, low_rank_a, low_rank_b):
        return (F.linear(x, w, bias) + x @ low_rank_a.t() @ low_rank_b.t()).pow(2).sum()

    args = x, low_rank_a, low_rank_b
    for transform in (
        lambda f: torch.func.grad(f, argnums=(0, 1, 2)),
        lambda f: torch.func.vmap(torch.func.grad(f, argnums=(0, 1)), in_dims=(0, None, None)),
        lambda f: torch.func.jacrev(torch.func.grad(f, argnums=2), argnums=1),
    ):
        got, want = transform(mine)(*args), transform(plain)(*args)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["low_rank_a", "low_rank_b"])
def test_forward_mode_is_refused(name):
    x, weight, _, *pair = make()
    with forward_ad.dual_level():
        at = ("low_rank_a", "low_rank_b").index(name)
        pair[at] = forward_ad.make_dual(pair[at], torch.ones_like(pair[at]))
        with pytest.raises(NotImplementedError, match=f"{name} must have no forward-mode tangent"):
            weight_only_linear(x, weight, low_rank=pair)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_autocast_casts_the_pair_too(autocast, dtype, runner):
    x, weight, bias, *pair = make(dtype=dtype)
    pair[0] = pair[0].double()  # a dtype that would be refused outside
    with torch.autocast("cpu", autocast):
        y = weight_only_linear(x, weight, bias, low_rank=pair)
    cast = [t.to(autocast) for t in (x, bias, *pair)]
    assert torch.equal(y, weight_only_linear(cast[0], weight, cast[1], low_rank=cast[2:]))


def test_autocast_gradients_reach_the_uncast_pair(runner):
    x, weight, _, *pair = make()
    pair = [side.requires_grad_() for side in pair]
    with torch.autocast("cpu", torch.bfloat16):
        weight_only_linear(x, weight, low_rank=pair).sum().backward()
    want = x @ pair[0].detach().t()
    assert pair[0].grad.dtype == pair[1].grad.dtype == torch.float32
    torch.testing.assert_close(pair[1].grad[0], want.sum(0), rtol=0.05, atol=0.3)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        _, self.weight, *tensors = make()
        self.bias, self.a, self.b = map(torch.nn.Parameter, tensors)

    def forward(self, x):
        return weight_only_linear(x, self.weight, self.bias, low_rank=(self.a, self.b))


def test_compiled_in_one_graph_with_gradients():
    torch._dynamo.reset()
    layer, x = Layer(), make()[0]
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    grads = []
    for call in (layer, compiled):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        y = call(leaf)
        y.square().sum().backward()
        grads.append((y, leaf.grad, *(p.grad.clone() for p in layer.parameters())))
    for eager, graph in zip(*grads, strict=True):
        torch.testing.assert_close(eager, graph, rtol=1e-5, atol=1e-4)


def test_exported():
    layer, x = Layer(), make()[0]
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: torch.export.Dim("m")}})
    x = make(rows=(9,))[0]
    with torch.no_grad():
        assert torch.equal(program.module()(x), layer(x))


def test_out_and_the_pair(runner):
    x, weight, bias, *pair = make(n=K, r=4)
    out = torch.empty(4, K)
    weight_only_linear(x, weight, bias, low_rank=pair, out=out)
    assert torch.equal(out, weight_only_linear(x, weight, bias, low_rank=pair))
    with pytest.raises(ValueError, match="out must not share memory with an input"):
        weight_only_linear(x, weight, bias, low_rank=pair, out=pair[0])
    pair[0].requires_grad_()
    with pytest.raises(ValueError, match="out must be None when a gradient is wanted"):
        weight_only_linear(x, weight, bias, low_rank=pair, out=out)


A, B = torch.zeros(R, K), torch.zeros(N, R)
REFUSED = {
    "low_rank must be a pair (A [r, K], B [N, r]), got Tensor": A,
    "low_rank must be a pair (A [r, K], B [N, r]), got tuple": (A,),
    "low_rank A must be a tensor, got NoneType": (None, B),
    "low_rank B must be a tensor, got float": (A, 1.0),
    "low_rank_a must have shape [5, 96], got [5, 95]": (A[:, 1:], B),
    "low_rank_a must have shape [r, 96], got [96]": (A[0], B),
    "low_rank_b must have shape [24, 5], got [24, 4]": (A, B[:, 1:]),
    "low_rank_b must have shape [24, 5], got [23, 5]": (A, B[1:]),
    "low_rank_a must be float32, got float64; cast x or low_rank_a": (A.double(), B),
    "low_rank_b must be float32, got int32; cast x or low_rank_b": (A, B.int()),
    "low_rank_b must be on cpu, got meta; move all arguments to one device": (A, B.to("meta")),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refusals(sentence, runner):
    x, weight, *_ = make()
    with pytest.raises((TypeError, ValueError)) as refusal:
        weight_only_linear(x, weight, low_rank=REFUSED[sentence])
    assert str(refusal.value) == f"weight_only_linear: {sentence}"
