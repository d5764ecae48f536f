"""Laws of regression: its numbers are those of normal distributions in the targets' own units, mixtures included."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from dropout_lab.data import Digits, Tabular
from dropout_lab.modules.regression import Gaussians, OneVariance, Regression

TARGETS = st.integers(1, 3)


def mixture(passes, samples, targets, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (passes, samples, targets)
    means = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Gaussians(means, torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1)


@given(st.integers(1, 6), TARGETS, st.integers(0, 9))
def test_a_mixture_has_the_density_distribution_mean_and_variance_that_scipys_normals_give(passes, targets, seed):
    one, y = mixture(passes, 5, targets, seed), mixture(1, 5, targets, seed + 1).means[0]
    normal = stats.norm(one.means.numpy(), one.variances.sqrt().numpy())
    density = normal.pdf(y.numpy()).prod(-1).mean(0)
    assert one.nll(y).numpy() == pytest.approx(-np.log(density), rel=1e-9)
    assert one.below(y).numpy() == pytest.approx(normal.cdf(y.numpy()).mean(0), rel=1e-9)
    second = (normal.var() + normal.mean() ** 2).mean(0)
    assert one.mean.numpy() == pytest.approx(normal.mean().mean(0))
    assert one.variance.numpy() == pytest.approx(second - normal.mean().mean(0) ** 2)


def fixed(kind, data, out):
    """A module whose network gives the same outputs for every sample."""
    net = nn.Linear(data.shape[0], kind.outputs(data))
    nn.init.zeros_(net.weight)
    with torch.no_grad():
        net.bias.copy_(torch.tensor(out))
    module = kind(net)
    module.adapt_to(data)
    return module


@pytest.fixture(scope="module")
def data():
    diabetes = Tabular(batch_size=8, seed=0)
    diabetes.setup()
    return diabetes


def test_a_network_that_says_nothing_predicts_the_mean_and_the_variance_of_the_training_part(data):
    one = math.log(math.e - 1)  # whose softplus is 1
    prediction = fixed(Regression, data, [0.0, one]).predict(torch.zeros(3, 10))
    assert prediction.mean.detach().numpy() == pytest.approx(float(data.target_mean))
    assert prediction.variance.detach().numpy() == pytest.approx(float(data.target_std) ** 2, rel=1e-5)


@pytest.mark.parametrize("kind", [Regression, OneVariance])
def test_numbers_are_in_the_units_of_the_targets(data, kind):
    module = fixed(kind, data, [0.3, 0.2][: kind.outputs(data)])
    y = data.test.targets
    with torch.no_grad():
        prediction = module.predict(torch.zeros(len(y), 10))
    means = {name: float(rows.double().mean()) for name, rows in module.scores(prediction, (None, y)).items()}
    found = module.summarize(means)
    mean = float(data.target_mean + 0.3 * data.target_std)
    std = float(data.target_std) * math.log1p(math.exp(0.2 if kind is Regression else 0.0)) ** 0.5
    residual = (y - mean).double().numpy()
    assert found["rmse"] == pytest.approx((residual**2).mean() ** 0.5, rel=1e-5)
    assert found["loss"] == pytest.approx(-stats.norm(0, std).logpdf(residual).mean(), rel=1e-5)
    for share in (50, 90):
        inside = abs(residual) <= stats.norm(0, std).ppf(0.5 + share / 200)
        assert found[f"coverage_{share}"] == pytest.approx(inside.mean())
    assert {column.key for column in module.columns} <= found.keys()


def test_what_is_minimised_is_what_is_measured(data):
    module = fixed(Regression, data, [0.3, 0.2])
    batch = data.example(8)
    measured = module.scores(module.predict(batch[0]), batch)["loss"].mean()
    assert module.loss(batch).item() == pytest.approx(measured.item(), rel=1e-6)


def test_both_mean_and_variance_are_trained(data):
    for kind in (Regression, OneVariance):
        module = fixed(kind, data, [0.0] * kind.outputs(data))
        module.loss(data.example(8)).backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


def test_passes_are_mixed_and_not_averaged_to_one_normal(data):
    passes = [mixture(1, 4, 2, seed) for seed in range(3)]
    mixed = fixed(Regression, data, [0.0, 0.0]).mix(passes)
    assert torch.equal(mixed.means, torch.cat([one.means for one in passes]))
    assert torch.equal(mixed.variances, torch.cat([one.variances for one in passes]))


def test_low_precision_of_the_network_does_not_reach_the_distribution(data):
    module = fixed(Regression, data, [0.0, 0.0])
    module.net.bfloat16()
    assert module.predict(torch.zeros(2, 10, dtype=torch.bfloat16)).means.dtype == torch.float32


def test_classes_are_no_numbers():
    with pytest.raises(ValueError, match=r"^regression predicts numbers, but Digits has 10 classes"):
        Regression.outputs(Digits(batch_size=8, seed=0))
