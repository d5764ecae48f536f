"""The formulas of the strategies, in training and in eval, on every axis."""

import copy
import io
import itertools
import math
import pickle
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, mask_keys, none
from dropout_lab.dropout.axes import MASKS, NOISES, SCALINGS

AXES = list(itertools.product(MASKS, NOISES, SCALINGS))
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "strided": lambda x: x[:, :, ::2],
    "expanded": lambda x: x[:, :, :1].expand(-1, -1, 5, -1),
}
all_axes = pytest.mark.parametrize(("mask", "noise", "scaling"), AXES)


def keyed(call: Callable[[Tensor], Tensor], x: Tensor, step: int = 0) -> Tensor:
    with mask_keys(seed=1, step=step, rows=range(len(x))):
        return call(x)


def batch(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def deviations(sample: Tensor, mean: float) -> float:
    """How many standard errors the mean of a sample lies from where it should be."""
    sample = sample.double().flatten()
    return abs(sample.mean().item() - mean) / max(sample.std().item() / math.sqrt(sample.numel()), 1e-12)


# The formulas


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@all_axes
def test_training_multiplies_by_the_noise_and_its_scale(
    mask: str, noise: str, scaling: str, dtype: torch.dtype, layout: str
) -> None:
    layer, x = Dropout(0.3, mask=mask, noise=noise, scaling=scaling), LAYOUTS[layout](batch(4, 3, 5, 6, dtype=dtype))
    x = x.detach().requires_grad_()
    out, m = keyed(layer, x), keyed(layer.draw, x).double()
    out.sum().backward()
    factor = m / 0.7 if scaling == "inverted" else m
    exact = noise == "bernoulli" and scaling != "inverted"
    tolerance = 0 if exact else 2 * torch.finfo(dtype).eps
    assert out.dtype == x.dtype
    torch.testing.assert_close(out.detach().double(), x.detach().double() * factor, rtol=tolerance, atol=1e-7)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), factor.expand(x.shape), rtol=tolerance, atol=1e-7)
    if layout != "expanded":
        assert out.stride() == (x * 1).stride()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("mask", MASKS)
def test_eval_is_the_table(mask: str, scaling: str, dtype: torch.dtype) -> None:
    layer, x = Dropout(0.3, mask=mask, scaling=scaling).eval(), batch(4, 3, 5, 6, dtype=dtype).requires_grad_()
    out = layer(x)
    if scaling != "classic":
        assert out is x
        return
    out.sum().backward()
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(out.detach().double(), x.detach().double() * 0.7, rtol=tolerance, atol=1e-7)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), torch.full_like(x, 0.7, dtype=torch.float64), rtol=tolerance, atol=0)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("training", [True, False])
def test_no_rate_returns_the_same_object(training: bool, scaling: str) -> None:
    x = batch(4, 3, 5)
    for layer in (Dropout(0.0, scaling=scaling), Dropout(0, mask="channel", scaling=scaling), none(0.5)):
        assert layer.train(training)(x) is x


@pytest.mark.parametrize("p", [1e-5, 0.1, 1 / 3, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
def test_survivors_are_scaled_by_exactly_1_over_1_minus_p(mask: str, dtype: torch.dtype, p: float) -> None:
    layer, x = Dropout(p, mask=mask), torch.ones(8, 40, 9, dtype=dtype)
    out = keyed(layer, x)
    kept = out[out != 0]
    assert torch.equal(kept, torch.full_like(kept, 1 / (1 - p)))


@pytest.mark.parametrize("p", [0.1, 1 / 3, 0.9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_product_and_not_the_scale(dtype: torch.dtype, p: float) -> None:
    """1 / 0.9 in bfloat16 is 0.2 % too small: every mean would be."""
    x = batch(8, 40, 9, dtype=dtype).requires_grad_()
    out, upstream = keyed(Dropout(p), x), batch(8, 40, 9, dtype=dtype).flip(0)
    out.backward(upstream)
    kept = out != 0
    assert torch.equal(out[kept], (x.float() / (1 - p)).to(dtype)[kept])
    assert x.grad is not None
    torch.testing.assert_close(x.grad[kept], (upstream.float() / (1 - p)).to(dtype)[kept], rtol=0, atol=0)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("mask", MASKS)
def test_inverted_keeps_the_mean(mask: str, noise: str) -> None:
    """Within 4.5 standard errors."""
    out = keyed(Dropout(0.3, mask=mask, noise=noise), torch.ones(4096, 7, 2))
    assert deviations(out[:, 0, 0], 1) < 4.5
    assert deviations(out[:, 6, 1], 1) < 4.5


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("scaling", ["classic", "unscaled"])
def test_classic_and_unscaled_lower_the_mean_in_training(scaling: str, noise: str) -> None:
    out = keyed(Dropout(0.3, noise=noise, scaling=scaling), torch.ones(4096, 7))
    assert deviations(out, 0.7) < 4.5


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("mask", MASKS)
def test_the_noise_has_variance_p_over_q(mask: str, noise: str) -> None:
    """Of an element, whatever the mask; within 4.5 standard errors."""
    out = keyed(Dropout(0.3, mask=mask, noise=noise), torch.ones(8192, 3, 2))
    assert deviations((out[:, 0, 0] - 1).square(), 0.3 / 0.7) < 4.5


@pytest.mark.parametrize("noise", NOISES)
def test_masks_differ_in_the_variance_of_the_mean_of_a_map(noise: str) -> None:
    """p/q over the draws that a map of 25 pixels has: 25 for element, 1 for channel and sample."""
    for mask, draws in (("element", 25), ("channel", 1), ("sample", 1)):
        means = keyed(Dropout(0.3, mask=mask, noise=noise), torch.ones(4096, 2, 5, 5)).mean((2, 3))
        assert deviations((means[:, 0] - 1).square(), 0.3 / 0.7 / draws) < 4.5
        together = ((means[:, 0] - 1) * (means[:, 1] - 1)).double()
        assert deviations(together, 0.3 / 0.7 if mask == "sample" else 0) < 4.5


@pytest.mark.parametrize("shape", [(64, 16, 5), (64, 16, 5, 3), (64, 16, 2, 3, 4)])
def test_channel_masks_drop_whole_maps(shape: tuple[int, ...]) -> None:
    out = keyed(Dropout(0.5, mask="channel"), torch.ones(shape)).flatten(2)
    assert (out == out[..., :1]).all()
    assert 0 < (out[..., 0] == 0).double().mean() < 1
    assert (out[..., 0] != out[:, :1, 0]).any()


def test_sample_masks_drop_whole_samples() -> None:
    out = keyed(Dropout(0.5, mask="sample"), torch.ones(64, 3, 2)).flatten(1)
    assert (out == out[:, :1]).all()
    assert 0 < (out[:, 0] == 0).sum() < 64


@given(p=st.floats(0, 1, exclude_max=True), scale=st.sampled_from([0.0, 1.0, -2.0, 0.25]))
def test_dropout_is_linear_for_a_given_mask(p: float, scale: float) -> None:
    layer, x, y = Dropout(p), batch(3, 8, dtype=torch.float64), batch(3, 8, dtype=torch.float64).flip(0)
    combined = keyed(layer, scale * x + y)
    torch.testing.assert_close(combined, scale * keyed(layer, x) + keyed(layer, y), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@given(p=st.floats(0.01, 0.99))
def test_all_scalings_agree_up_to_the_factor_that_defines_them(p: float) -> None:
    x = batch(3, 8, dtype=torch.float64)
    inverted, classic, unscaled = (Dropout(p, scaling=scaling) for scaling in ("inverted", "classic", "unscaled"))
    assert torch.equal(keyed(classic, x), keyed(unscaled, x))
    torch.testing.assert_close(keyed(inverted, x) * (1 - p), keyed(classic, x), rtol=1e-14, atol=0)
    assert torch.equal(inverted.eval()(x), unscaled.eval()(x))
    torch.testing.assert_close(classic.eval()(x), x * (1 - p), rtol=1e-15, atol=0)


def test_our_inverted_dropout_has_the_law_of_torchs() -> None:
    """Same values, and the same share of zeros within 4.5 standard errors of each other."""
    torch.manual_seed(0)
    x, shares = torch.ones(256, 512), []
    for layer in (Dropout(0.3), nn.Dropout(0.3)):
        out = layer(x)
        assert out.unique().tolist() == [0, x.div(0.7)[0, 0]]
        shares.append((out == 0).double().mean())
    assert abs(shares[0] - shares[1]) < 4.5 * math.sqrt(2 * 0.21 / x.numel())


# Shapes and dtypes


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (3, 0), (2, 3, 4, 5, 6, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("noise", NOISES)
def test_any_shape_fits_an_element_mask(noise: str, scaling: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer, x = Dropout(0.5, noise=noise, scaling=scaling), torch.ones(shape, dtype=dtype)
    for out in (layer(x), layer.eval()(x)):
        assert (out.shape, out.dtype) == (shape, dtype)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 3, 4, 5, 6, 2)])
def test_channel_masks_need_maps(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    message = r"\(N, C, L\), \(N, C, H, W\) or \(N, C, D, H, W\), got shape \(" + ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=message):
        Dropout(0.5, mask="channel")(x)
    elsewhere = Dropout(0.5, mask="channel", elsewhere="element")
    assert torch.equal(keyed(elsewhere, x), keyed(Dropout(0.5), x))


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_only_floating_point_inputs_are_taken(dtype: torch.dtype, training: bool, p: float, scaling: str) -> None:
    layer = Dropout(p, scaling=scaling).train(training)
    with pytest.raises(TypeError, match=f"needs a floating-point input, got {dtype}"):
        layer(torch.ones(2, 3, dtype=dtype))


REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged),
        "needs a plain tensor, got a nested one; pass its values, x.values(), or a padded tensor",
    ),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.strided),
        "needs a plain tensor, got a nested one; pass its values, x.values(), or a padded tensor",
    ),
    "complex64": (
        lambda: torch.ones(2, 3, dtype=torch.complex64),
        "needs a floating-point input, got torch.complex64; pass torch.view_as_real(x), or x.abs() and x.angle()",
    ),
    "complex128": (
        lambda: torch.ones(2, 3, dtype=torch.complex128),
        "needs a floating-point input, got torch.complex128; pass torch.view_as_real(x), or x.abs() and x.angle()",
    ),
    "sparse_coo": (
        lambda: torch.eye(3).to_sparse_coo(),
        "needs a dense input, got one of layout torch.sparse_coo; convert it with x.to_dense()",
    ),
    "sparse_csr": (
        lambda: torch.eye(3).to_sparse_csr(),
        "needs a dense input, got one of layout torch.sparse_csr; convert it with x.to_dense()",
    ),
    "int64": (
        lambda: torch.ones(2, 3, dtype=torch.int64),
        "needs a floating-point input, got torch.int64; convert it with x.float()",
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant)")
@pytest.mark.parametrize("name", ["03_relu", None])
@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_the_layer_and_the_kind(
    kind: str, mask: str, training: bool, p: float, name: str | None
) -> None:
    """In one line, in training and in eval, with a rate and without."""
    make, message = REFUSED[kind]
    layer = Dropout(p, mask=mask, scaling="classic").train(training)
    layer.name = name
    with pytest.raises(TypeError) as error:
        layer(make())
    assert str(error.value) == (f"dropout layer {name!r} " if name else "Dropout ") + message


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 3, 4, 5, 6, 2)])
def test_channel_masks_refuse_in_eval_what_they_refuse_in_training(shape: tuple[int, ...], scaling: str) -> None:
    errors = []
    for training in (True, False):
        layer = Dropout(0.5, mask="channel", scaling=scaling).train(training)
        with pytest.raises(ValueError, match="drops whole maps") as error:
            layer(torch.ones(shape))
        errors.append(str(error.value))
        layer.elsewhere = "element"
        assert layer(torch.ones(shape)).shape == shape
    assert errors[0] == errors[1]


# The kernel of CUDA: `interpreted_kernels.py` has its laws, this is who gets it


class Mine(Dropout):
    """A strategy of somebody."""

    def draw(self, x: Tensor) -> Tensor:
        return torch.ones_like(x, dtype=torch.bool)


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize(
    "layer",
    [Dropout(0.5, mask="channel"), Dropout(0.5, mask="sample"), Dropout(0.5, noise="gaussian"), Mine(0.5)],
    ids=["channel", "sample", "gaussian", "mine"],
)
def test_only_standard_dropout_is_one_kernel(layer: Dropout, keys: bool) -> None:
    fused = keyed(layer._fused, batch(4, 3, 5)) if keys else layer._fused(batch(4, 3, 5))  # type: ignore[arg-type]
    assert fused is None


def test_unkeyed_inverted_dropout_is_torchs_own_kernel() -> None:
    x = batch(4, 300)
    torch.manual_seed(0)
    expected = nn.functional.dropout(x, 0.3)
    torch.manual_seed(0)
    out = Dropout(0.3)._fused(x)
    assert out is not None
    assert torch.equal(out, expected)
    for scaling in ("classic", "unscaled"):
        assert Dropout(0.3, scaling=scaling)._fused(x) is None


# p and the other arguments

BAD_RATES: list[object] = [-0.1, -1e-300, 1, 1.0, 1.5, math.nan, math.inf, "0.5", None, True, False, 0.5j, [0.5]]


@pytest.mark.parametrize("p", BAD_RATES, ids=repr)
def test_a_bad_rate_is_refused_at_construction_and_assignment(p: object) -> None:
    rule = r"p=.*: must be the probability to DROP a unit, a number with 0 <= p < 1$"
    with pytest.raises((ValueError, TypeError), match=f"^{rule}"):
        Dropout(p)  # type: ignore[arg-type]
    layer = Dropout(0.25)
    layer.name = "03_relu"
    with pytest.raises((ValueError, TypeError), match=f"^dropout layer '03_relu': {rule}"):
        layer.p = p  # type: ignore[assignment]
    with pytest.raises((ValueError, TypeError), match=f"^{rule}"):
        none(p)  # type: ignore[arg-type]
    assert layer.p == 0.25


@pytest.mark.parametrize("p", [0, 0.5, np.float64(0.5), np.float32(0.5), Fraction(1, 2), 1 - 2**-53])
def test_any_real_rate_from_0_to_below_1_is_taken(p: float) -> None:
    assert Dropout(p).p == p
    assert type(Dropout(p).p) is float


def test_a_new_rate_holds_from_the_next_call() -> None:
    layer, x = Dropout(0.5), torch.ones(4, 300)
    for p in (0.25, 0.0, 0.75):
        layer.p = p
        assert keyed(layer, x).max() == 1 / (1 - p)
        torch.testing.assert_close(keyed(layer, x), keyed(Dropout(p), x), rtol=0, atol=0)


def test_the_default_is_nn_dropouts() -> None:
    assert Dropout().p == nn.Dropout().p
    assert isinstance(Dropout(), nn.modules.dropout._DropoutNd)
    assert Dropout().inplace is False


# A switch of the layer


def test_monte_carlo_is_the_training_formula_in_eval() -> None:
    for mask, noise, scaling in AXES:
        layer, x = Dropout(0.3, mask=mask, noise=noise, scaling=scaling), batch(4, 3, 5)
        trained = keyed(layer, x)
        layer.eval().monte_carlo = True
        assert torch.equal(keyed(layer, x), trained)


def test_monte_carlo_leaves_batch_norm_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), Dropout(0.5)).eval()
    before = copy.deepcopy(model.state_dict())
    model[1].monte_carlo = True  # type: ignore[assignment]
    model(batch(64, 3) + 5)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


# What a layer is besides its formula


def test_nothing_is_in_the_state_dict() -> None:
    layer = Dropout(0.3, scaling="classic")
    assert not layer.state_dict()
    assert not list(layer.parameters())
    assert not list(layer.buffers())
    layer.load_state_dict({}, strict=True)


def through_pickle(layer: Dropout) -> Dropout:
    return pickle.loads(pickle.dumps(layer))


def through_torch_save(layer: Dropout) -> Dropout:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, through_pickle, through_torch_save])
@all_axes
def test_copies_do_the_same(mask: str, noise: str, scaling: str, way: Callable[[Dropout], Dropout]) -> None:
    layer, x = Dropout(0.3, mask=mask, noise=noise, scaling=scaling, elsewhere="sample"), batch(4, 3, 5)
    layer.name, layer.monte_carlo = "03_relu", True
    twin = way(layer)
    assert repr(twin) == repr(layer)
    assert (twin.name, twin.monte_carlo) == ("03_relu", True)
    assert torch.equal(keyed(twin, x), keyed(layer, x))
    twin.p = 0.6
    assert layer.p == 0.3


def test_the_text_of_a_layer_builds_it() -> None:
    assert repr(Dropout(0.25)) == "Dropout(p=0.25, mask=element, noise=bernoulli, scaling=inverted)"
    layer = Dropout(0.5, mask="channel", noise="gaussian", scaling="classic", elsewhere="element")
    assert layer.extra_repr() == "p=0.5, mask=channel, noise=gaussian, scaling=classic, elsewhere=element"


def test_the_repr_of_a_strategy_names_no_noise_that_it_may_not_draw() -> None:
    class Halves(Dropout):
        def draw(self, x: Tensor) -> Tensor:
            return torch.full_like(x, 0.5)

    assert repr(Halves(0.5)) == "Halves(p=0.5, scaling=inverted)"


def test_a_layer_made_elsewhere_works_here() -> None:
    """Under the meta device or inference mode, as big models are built, the rates are real all the same."""
    x = torch.ones(4, 300, requires_grad=True)
    with torch.device("meta"):
        on_meta = Dropout(0.3)
    with torch.inference_mode():
        inference = Dropout(0.3)
    for layer in (on_meta, inference):
        out = keyed(layer, x)
        out.sum().backward()
        assert torch.equal(out, keyed(Dropout(0.3), x))


def test_dropout_runs_on_the_meta_device() -> None:
    for mask, noise, scaling in AXES:
        x = torch.ones(4, 3, 5, device="meta")
        assert Dropout(0.3, mask=mask, noise=noise, scaling=scaling)(x).shape == x.shape


# Randomness outside mask_keys


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("mask", MASKS)
def test_unkeyed_masks_follow_torchs_generator(mask: str, noise: str) -> None:
    layer, x = Dropout(0.5, mask=mask, noise=noise), torch.ones(32, 9, 4)
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append((layer(x), layer(x)))
    assert torch.equal(outs[0][0], outs[1][0])
    assert torch.equal(outs[0][1], outs[1][1])
    assert not torch.equal(outs[0][0], outs[0][1])
    assert not torch.equal(outs[0][0], outs[2][0])


@pytest.mark.parametrize("scaling", SCALINGS)
def test_eval_and_p_0_draw_nothing(scaling: str) -> None:
    state, x = torch.get_rng_state(), batch(4, 3, 5)
    for mask in MASKS:
        Dropout(0.5, mask=mask, scaling=scaling).eval()(x)
        Dropout(0.0, mask=mask, scaling=scaling)(x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("features", [30, 1200], ids=["short", "long"])
def test_unkeyed_vmap_follows_randomness(features: int, noise: str) -> None:
    layer, x = Dropout(0.5, noise=noise), torch.ones(5, 4, features)
    different = torch.func.vmap(layer, randomness="different")(x)
    assert different.shape == x.shape
    assert not torch.equal(different[0], different[1])
    same = torch.func.vmap(layer, randomness="same")(x)
    assert (same == same[:1]).all()
    assert not (same == same[0, 0, 0]).all()
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(layer, randomness="error")(x)


@pytest.mark.parametrize("mask", MASKS)
def test_functional_transforms_compose(mask: str) -> None:
    """The gradients of single samples are the columns of the one of the batch."""
    layer, x = Dropout(0.5, mask=mask), batch(4, 3, 5).requires_grad_()
    torch.manual_seed(0)
    out = layer(x)
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    torch.manual_seed(0)
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).square().sum())(x), grad)
    each = torch.func.vmap(torch.func.grad(lambda x: layer(x).square().sum()), randomness="different")
    assert each(x[:, None]).shape == (4, 1, 3, 5)


# Derivatives


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward mode uses it
@all_axes
def test_derivatives_are_right(mask: str, noise: str, scaling: str) -> None:
    layer = Dropout(0.3, mask=mask, noise=noise, scaling=scaling)
    x = batch(2, 3, 2, dtype=torch.float64).requires_grad_()
    for training in (True, False):
        layer.train(training)
        assert torch.autograd.gradcheck(lambda x: keyed(layer, x), x, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lambda x: keyed(layer, x), x)


# Compilation


class Stack(nn.Module):
    """Layers of several kinds on the same input."""

    def __init__(self, axes: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Dropout(0.3, mask=mask, noise=noise, scaling=how) for mask, noise, how in axes)
        for index, layer in enumerate(self.layers):
            layer.name = f"{index:02d}"

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([layer(x) for layer in self.layers])


# inductor takes seconds for each layer, and knows nothing of how the axes go together.
LATIN = [
    ("element", "bernoulli", "inverted"), ("channel", "gaussian", "classic"), ("sample", "bernoulli", "unscaled"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "axes"), [("eager", AXES), ("inductor", LATIN)], ids=["eager", "inductor"])
@pytest.mark.parametrize("training", [True, False])
def test_compiled_is_eager_for_every_kind(training: bool, backend: str, axes: list[tuple[str, str, str]]) -> None:
    torch._dynamo.reset()
    stack, x = Stack(axes).train(training), batch(4, 3, 5, 20)
    compiled = torch.compile(stack, fullgraph=True, backend=backend)
    results = []
    for model in (stack, compiled):
        x = x.detach().requires_grad_()
        out = keyed(model, x)
        out.square().sum().backward()
        results.append((out, x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(results[0][0] == 0, results[1][0] == 0)


@pytest.mark.slow
def test_compiled_unkeyed_dropout_keeps_the_mean() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = torch.compile(Dropout(0.3), fullgraph=True, backend="aot_eager")
    out, again = layer(torch.ones(256, 300)), layer(torch.ones(256, 300))
    assert deviations(out, 1) < 4.5
    assert not torch.equal(out, again)


@settings(max_examples=25)
@given(p=st.floats(0, 1, exclude_max=True), rows=st.integers(1, 5), features=st.integers(1, 600))
def test_zeros_in_zeros_out(p: float, rows: int, features: int) -> None:
    assert Dropout(p)(torch.zeros(rows, features)).abs().max() == 0
