"""Laws of the Triton kernels, for a process of pytest in which Triton interprets them: see `test_philox_triton.py`."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dropout_lab.dropout import Dropout, mask_keys, philox_triton
from dropout_lab.dropout.axes import SCALINGS
from dropout_lab.dropout.philox import Stream, words_plain

SHAPES = [(3, 5), (4, 1), (7,), (0, 5), (3, 0), (5, 64), (3, 65), (2, 300), (3, 7, 11, 13)]
RATES = [0.5, 0.3, 1e-5, 0.9999, 1 - 2**-20]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(params=[32], autouse=True)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks a program: rows take several, the last of which is not filled."""
    monkeypatch.setattr(philox_triton, "_BLOCKS", request.param)


every_size = pytest.mark.parametrize("blocks", [8, philox_triton._BLOCKS], indirect=True)


def layer(p: float, **axes: Any) -> Dropout:
    made = Dropout(p, **axes)
    made.name = "a"
    return made


def batch(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()


def fused(of: Dropout, x: Tensor, first: int = 7) -> Tensor:
    with mask_keys(1, 2, range(first, first + len(x))):
        out = of._fused(x)
    assert out is not None
    return out


@pytest.mark.parametrize(
    ("starts", "width"),
    [([0], 5), ([3, 100, 7], 9), ([2**50 + 1], 1099), ([5, 6, 13], 1), ([2**60], 128), ([], 3), ([1], 0)],
)
@every_size
@pytest.mark.parametrize("stream", [Stream(2**64 - 5, 2**63 + 77, 12345, 2), Stream(0, 1, 2**62, 0)])
def test_words_are_those_of_plain_torch(stream: Stream, starts: list[int], width: int) -> None:
    of = torch.tensor(starts, dtype=torch.int64)
    drawn = philox_triton.words(stream, of, width)
    assert drawn.dtype == torch.int32
    assert torch.equal(drawn, words_plain(stream, of, width))


def assert_is_eager(of: Dropout, x: Tensor, first: int) -> None:
    """Two calls of a layer and their gradients."""
    upstream = batch(*x.shape, dtype=x.dtype).detach().flip(0)
    results = []
    for call in (of, of._fused):
        with mask_keys(1, 2, range(first, first + len(x))):
            outs = call(x), call(x)
        results.append([*outs, *(torch.autograd.grad(out, x, upstream)[0] for out in outs)])
    # The interpreter cuts bfloat16 off, where a GPU rounds.
    tolerance = torch.finfo(x.dtype).eps if x.dtype == torch.bfloat16 else 0
    for eager, kernel in zip(*results, strict=True):
        assert torch.equal(kernel == 0, eager == 0)
        torch.testing.assert_close(kernel, eager, rtol=tolerance, atol=0, equal_nan=True)


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_kernel_does_what_the_layer_does(shape: tuple[int, ...], p: float) -> None:
    assert_is_eager(layer(p), batch(*shape), 7)


@pytest.mark.parametrize("first", [0, 2**40 + 1])
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (2, 301)], ids=str)
def test_a_kernel_takes_every_dtype_and_scaling(
    shape: tuple[int, ...], dtype: torch.dtype, scaling: str, first: int
) -> None:
    assert_is_eager(layer(0.3, scaling=scaling), batch(*shape, dtype=dtype), first)


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")  # numpy's, of the interpreter
@pytest.mark.parametrize("shape", [(3, 5), (2, 301)], ids=str)
def test_what_is_not_a_number_stays_so(shape: tuple[int, ...]) -> None:
    """Dropped or not, as in a product: an overflow must not hide."""
    x = batch(*shape).detach()
    x[:, ::2], x[:, 1::4] = torch.nan, torch.inf
    assert_is_eager(layer(0.5), x.requires_grad_(), 7)


@every_size
def test_programs_of_any_size_have_the_same_masks() -> None:
    for shape in ((7, 63), (1, 601), (2, 5000)):
        assert_is_eager(layer(0.3), batch(*shape), 5)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward mode uses it
@pytest.mark.parametrize("shape", [(3, 5), (2, 66)], ids=str)
def test_derivatives_of_every_kind_are_right(shape: tuple[int, ...]) -> None:
    of, x = layer(0.3), batch(*shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: fused(of, x), x, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: fused(of, x), x, fast_mode=True)


def test_a_gradient_may_lie_in_memory_as_it_likes() -> None:
    of, x = layer(0.3), batch(4, 300)
    upstream = batch(300, 4).detach().T
    (grad,) = torch.autograd.grad(fused(of, x), x, upstream)
    assert torch.equal(grad, torch.autograd.grad(fused(of, x), x, upstream.contiguous())[0])


@pytest.mark.parametrize("shape", [(3, 5), (2, 300)], ids=str)
def test_nothing_is_kept_for_backward(shape: tuple[int, ...]) -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: None):
        fused(layer(0.3), batch(*shape))
    assert not kept


def test_where_there_is_no_kernel_the_layer_draws_as_if_none_had_been_asked_for() -> None:
    of, x = layer(0.3), batch(4, 3, 5, 5).detach()
    cases = {
        "rows": (x, [2, 0, 1, 3]),
        "memory": (x.to(memory_format=torch.channels_last), range(4)),
        "transposed": (x.transpose(0, 1), range(3)),
    }
    for x, rows in cases.values():
        with mask_keys(1, 2, rows):
            assert of._fused(x) is None
            first = of.draw(x)
        with mask_keys(1, 2, rows):
            assert torch.equal(of.draw(x), first)


def test_there_is_no_kernel_inside_transforms() -> None:
    of, asked = layer(0.3), []

    def call(x: Tensor) -> Tensor:
        asked.append(of._fused(x))
        return x

    with mask_keys(1, 2, range(3)):
        torch.func.vmap(call)(torch.ones(2, 3, 5))
    assert asked == [None]
