"""Exact rates, whatever the number of bits that decide them; products that keep one byte an element."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dropout_lab.dropout import Dropout, keys, mask_keys, noise
from dropout_lab.dropout.noise import _SHORT_ROW, Rate, bernoulli, multiply, normal, uniform

RATES = [0.0, 2**-40, 1e-9, 1e-5, 0.1, 1 / 3, 0.5 - 2**-30, 0.5, 0.5 + 2**-30, 0.75, 0.9999, 1 - 1e-9, 1 - 2**-40]
ANY_RATE = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
same_words = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["numpy", "torch"])
def feed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], None]:
    """Let layers read these words instead of random ones: as an array, as on the CPU, or as a tensor."""

    def let_read(words: Tensor) -> None:
        given = words.numpy() if request.param == "numpy" else words
        monkeypatch.setattr(keys, "words", lambda layer, x, width: given)

    return let_read


def accepted(decide: Callable[[int], bool]) -> int:
    """How many of the 2^32 words are accepted by a rule that accepts all below a threshold."""
    low, high = -(2**31), 2**31
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if decide(middle) else (low, middle)
    return low + 2**31


def short_row_keeps(p: float, feed: Callable[[Tensor], None]) -> Fraction:
    """P(keep) in rows of one element, by the words that are kept."""
    rate, x = Rate.of(p), torch.ones(1, 1)

    def decide(word: int) -> bool:
        feed(torch.tensor([[word]], dtype=torch.int32))
        return bool(bernoulli(Dropout(p), x, x.shape, rate))

    return Fraction(accepted(decide), 2**32)


def long_row_keeps(p: float, feed: Callable[[Tensor], None]) -> Fraction:
    """P(keep) in rows of 2^16 elements that hold each 16-bit word once, over all words that settle the rest."""
    rate, x = Rate.of(p), torch.ones(1, 2**16)
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.int32)[None]

    def kept(last: int) -> int:
        feed(torch.cat([every, torch.tensor([[last]], dtype=torch.int32)], dim=1))
        return int(bernoulli(Dropout(p), x, x.shape, rate).sum())

    most, least = kept(-(2**31)), kept(2**31 - 1)
    if most == least:
        return Fraction(least, 2**16)
    share = Fraction(accepted(lambda word: kept(word) == most), 2**32)
    return (share * most + (1 - share) * least) / 2**16


@pytest.mark.parametrize("p", RATES)
def test_a_short_row_keeps_exactly_1_minus_p(p: float, feed: Callable[[Tensor], None]) -> None:
    assert abs(short_row_keeps(p, feed) - (1 - Fraction(p))) <= Fraction(1, 2**32)


@same_words
@given(p=ANY_RATE)
def test_any_rate_is_exact_in_a_short_row(p: float, feed: Callable[[Tensor], None]) -> None:
    assert abs(short_row_keeps(p, feed) - (1 - Fraction(p))) <= Fraction(1, 2**32)


@pytest.mark.parametrize("p", RATES)
def test_a_long_row_keeps_exactly_1_minus_p(p: float, feed: Callable[[Tensor], None]) -> None:
    assert abs(long_row_keeps(p, feed) - (1 - Fraction(p))) <= Fraction(1, 2**32)


@settings(same_words, max_examples=30)
@given(p=ANY_RATE)
def test_any_rate_is_exact_in_a_long_row(p: float, feed: Callable[[Tensor], None]) -> None:
    assert abs(long_row_keeps(p, feed) - (1 - Fraction(p))) <= Fraction(1, 2**32)


@pytest.mark.parametrize("features", [1, *range(_SHORT_ROW - 1, _SHORT_ROW + 3), 4096])
@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_the_share_of_kept_elements_is_1_minus_p(p: float, features: int) -> None:
    """Within 4.5 standard errors, in rows on both sides of the change of method."""
    x = torch.ones(2**18 // features, features)
    with mask_keys(seed=1, step=0, rows=range(len(x))):
        mask = bernoulli(Dropout(p), x, x.shape, Rate.of(p))
    assert mask.dtype == torch.bool
    assert abs(mask.double().mean() - (1 - p)) < 4.5 * (p * (1 - p) / x.numel()) ** 0.5


def test_a_rare_event_is_rare_but_happens() -> None:
    """p = 1e-5 in 2^22 elements: 42 drops expected, a multiple of 2^-16 would give 0 or 64; 4.5 deviations are 29."""
    x = torch.ones(64, 2**16)
    with mask_keys(seed=1, step=0, rows=range(64)):
        dropped = (~bernoulli(Dropout(1e-5), x, x.shape, Rate.of(1e-5))).sum().item()
    assert abs(dropped - 1e-5 * x.numel()) < 4.5 * (1e-5 * x.numel()) ** 0.5


def test_normal_noise_is_normal() -> None:
    """Mean, variance, skewness, kurtosis within 4.5 standard errors; the tail reaches 4 deviations."""
    x = torch.ones(512, 999)
    with mask_keys(seed=1, step=0, rows=range(512)):
        z = normal(Dropout(0.5), x, x.shape).double()
    assert z.shape == x.shape
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 4.5 * (variance / z.numel()) ** 0.5
    assert z.abs().max() > 4


def test_normal_noise_follows_the_distribution_function() -> None:
    """Kolmogorov-Smirnov distance below 2.6 / sqrt(n), which chance exceeds once in 10^5."""
    x = torch.ones(256, 1000)
    with mask_keys(seed=2, step=0, rows=range(256)):
        z = normal(Dropout(0.5), x, x.shape).double().flatten().sort().values
    distance = (torch.special.ndtr(z) - torch.arange(1, z.numel() + 1) / z.numel()).abs().max()
    assert distance < 2.6 / z.numel() ** 0.5


def test_normal_noise_is_independent_within_a_row() -> None:
    """Box-Muller makes two values of two words: neither they nor their squares are correlated, within 4.5 errors."""
    x = torch.ones(512, 1000)
    with mask_keys(seed=3, step=0, rows=range(512)):
        z = normal(Dropout(0.5), x, x.shape).double()
    for distance in (1, 2, 4, 500):
        first, second = z[:, distance:].flatten(), z[:, :-distance].flatten()
        for power in (1, 2):
            correlation = torch.corrcoef(torch.stack([first**power, second**power]))[0, 1]
            assert abs(correlation) * first.numel() ** 0.5 < 4.5


@pytest.mark.parametrize("word", [-(2**31), -1, 0, 1, 2**31 - 1])
def test_normal_noise_is_finite_at_the_edges(word: int, feed: Callable[[Tensor], None]) -> None:
    feed(torch.full((2, 4), word, dtype=torch.int32))
    z = normal(Dropout(0.5), torch.ones(2, 3), torch.Size([2, 3]))
    assert z.isfinite().all()
    assert z.abs().max() < 6.7


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_noise_is_computed_in_single_or_double(dtype: torch.dtype) -> None:
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert normal(Dropout(0.5), torch.ones(2, 3, dtype=dtype), torch.Size([2, 3])).dtype == expected


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3),
    "strided": lambda x: x[:, :, ::2],
    "expanded": lambda x: x[:, :1].expand(-1, 6, -1, -1),
}


@pytest.mark.parametrize("threshold", [0, 2**30], ids=["large", "small"])
@pytest.mark.parametrize("scale", [None, 4 / 3, 4], ids=["unscaled", "scaled", "whole"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_with_a_mask_is_the_product(
    dtype: torch.dtype, layout: str, scale: float | None, threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "_LARGE", threshold)
    torch.manual_seed(0)
    x = LAYOUTS[layout](torch.randn(2, 6, 8, 6, dtype=dtype)).detach().requires_grad_()
    mask, grad = torch.rand(x.shape) < 0.5, torch.randn(x.shape).to(dtype)
    out = multiply(x, mask, None if scale is None else Rate.of(1 - 1 / scale))
    out.backward(grad)
    tolerance = 0 if scale is None else 2 * torch.finfo(dtype).eps
    for result, factor in ((out, x), (x.grad, grad)):
        expected = factor.detach().double() * mask * (scale or 1)
        torch.testing.assert_close(result.detach().double(), expected, rtol=tolerance, atol=0)
    if layout != "expanded":
        assert out.stride() == (x * 1).stride()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward mode uses it
@pytest.mark.parametrize("threshold", [0, 2**30], ids=["large", "small"])
@pytest.mark.parametrize("p", [0.25, 0.5], ids=["scaled", "whole"])
def test_derivatives_of_a_product_are_right(p: float, threshold: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_LARGE", threshold)
    x, mask = torch.randn(3, 5, dtype=torch.float64, requires_grad=True), torch.rand(3, 5) < 0.5
    rate = Rate.of(p)

    def product(x: Tensor) -> Tensor:
        return multiply(x, mask, rate)

    assert torch.autograd.gradcheck(product, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(product, x)


@pytest.mark.parametrize("shape", [(8, 2**13 + 1), (2**9, 2**5), (64, 16)], ids=["large", "small", "tiny"])
@pytest.mark.parametrize("scaling", ["inverted", "classic", "unscaled"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_at_most_a_byte_an_element_is_kept_for_backward(
    dtype: torch.dtype, scaling: str, shape: tuple[int, ...]
) -> None:
    x, kept = torch.ones(shape, dtype=dtype, requires_grad=True), {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Dropout(0.5, scaling=scaling)(x)
    scalar = 8  # the scale
    assert sum(kept.values()) <= x.numel() + scalar


@pytest.mark.parametrize("shape", [(4, 1), (4, 3, 1, 1)], ids=["sample", "channel"])
def test_a_small_mask_is_scaled_instead_of_the_input(shape: tuple[int, ...]) -> None:
    x = torch.rand(4, 3, 2, 2)[(..., *(0,) * (4 - len(shape)))]
    mask = torch.rand(shape) < 0.5
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = multiply(x.requires_grad_(), mask, Rate.of(0.5))
    torch.testing.assert_close(out, x * mask * 2, rtol=0, atol=0)
    assert sum(tensor.numel() for tensor in kept if tensor is not x) <= mask.numel()


def test_uniform_noise_follows_the_distribution_function() -> None:
    """The largest distance to it (Kolmogorov) is above 2.5 / sqrt(n) once in 130,000 times."""
    x = torch.ones(256, 64)
    with mask_keys(seed=3, step=0, rows=range(256)):
        u = uniform(Dropout(0.5), x, x.shape).double().flatten().sort().values
    assert (u - torch.arange(1, len(u) + 1) / len(u)).abs().max() < 2.5 / len(u) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("word", [0, -1, 2**31 - 1, -(2**31), 0x7FFFFF])
def test_uniform_noise_reaches_neither_end(word: int, dtype: torch.dtype, feed: Callable[[Tensor], None]) -> None:
    feed(torch.full((2, 3), word, dtype=torch.int32))
    u = uniform(Dropout(0.5), torch.ones(2, 3, dtype=dtype), (2, 3))
    assert u.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((u > 0) & (u < 1)).all()
    assert (1 - u).min() >= 2**-24
    assert u.min() >= 2**-24


def test_uniform_noise_is_that_of_its_key_in_every_dtype_and_shape() -> None:
    found = []
    for x, shape in (
        (torch.ones(4, 6), (4, 6)),
        (torch.ones(4, 2, 3).double(), (4, 2, 3)),
        (torch.ones(4, 6, 9), (4, 6, 1)),
    ):
        with mask_keys(seed=3, step=0, rows=range(4)):
            found.append(uniform(Dropout(0.5), x, shape).double().flatten())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
