"""Monte Carlo dropout equals the average of plain forward passes, however it is computed."""

import math

import pytest
import torch
from ensemble_models import KINDS, batch, make
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.dropout.ensembles import monte_carlo as sampling
from dropout_lab.dropout.ensembles.exact import exact_ensemble
from dropout_lab.dropout.ensembles.monte_carlo import monte_carlo
from dropout_lab.dropout.graph.modes import dropout_only

# Keyed masks need our layers, and the batch as their leading dimension.
KEYED = [kind for kind in KINDS if kind not in ("torch", "turned")]


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("kind", KEYED)
def test_keyed_samples_are_those_of_a_plain_loop(kind: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_TRACING", 0 if large else 1)
    model, x = make(KINDS[kind]), batch(kind=kind)
    with mask_keys(seed=1, step=2, rows=range(5)), dropout_only(model, on=True):
        expected = torch.stack([model(x).softmax(-1) for _ in range(7)])
    with mask_keys(seed=1, step=2, rows=range(5)):
        result = monte_carlo(model, x, 7)
    mean = expected.mean(0)
    entropy = -(mean * mean.log()).sum(-1)
    mutual = entropy + (expected * expected.log()).sum(-1).mean(0)
    torch.testing.assert_close(result.mean, mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(result.variance, expected.var(0, unbiased=False), rtol=0, atol=1e-14)
    torch.testing.assert_close(result.entropy, entropy, rtol=0, atol=1e-14)
    torch.testing.assert_close(result.mutual_information, mutual, rtol=0, atol=1e-14)


ROUNDING = 1e-12


def assert_near(estimate: Tensor, expected: Tensor, error: Tensor) -> None:
    """Within 4.5 standard errors; equal to rounding where nothing is random."""
    assert ((estimate - expected).abs() <= 4.5 * error + ROUNDING).all(), (estimate - expected) / error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "large"),
    [*((kind, True) for kind in KINDS), *((kind, False) for kind in ("residual", "turned", "images"))],
)
def test_samples_have_the_law_of_a_plain_loop(kind: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_TRACING", 0 if large else 1)
    model, x, count = make(KINDS[kind]), batch(kind=kind), 1500
    torch.manual_seed(1)
    with dropout_only(model, on=True):
        expected = torch.stack([model(x).softmax(-1) for _ in range(count)])
    result = monte_carlo(model, x, count)
    squares = (expected - expected.mean(0)).square()
    assert_near(result.mean, expected.mean(0), (2 * expected.var(0) / count).sqrt())
    assert_near(result.variance, squares.mean(0), (2 * squares.var(0) / count).sqrt())
    # Dropout can't change a sample whose hidden units are all off, as those of one sample here are after some ReLUs.
    random = squares.sum((0, 2)) > ROUNDING
    assert torch.equal(result.mutual_information > ROUNDING, random)
    assert random.sum() >= 4
    assert (result.mutual_information < result.entropy).all()
    assert (result.entropy < math.log(3)).all()


def test_samples_converge_to_the_exact_ensemble() -> None:
    torch.manual_seed(3)
    model, x = make(KINDS["input"]), batch()
    exact, result = exact_ensemble(model, x), monte_carlo(model, x, 20_000)
    assert_near(result.mean, exact.arithmetic, (result.variance / 20_000).sqrt())


def test_the_part_before_dropout_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_TRACING", 0)
    model = make()
    monte_carlo(model, batch(2), 50)
    assert model.calls == 1
    monte_carlo(model, batch(5), 50)
    assert model.calls == 3  # and once for two rows, to see whether copies work


@pytest.mark.parametrize("rows", [1, 3, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_answer_to_the_last_bit(kind: str, rows: int) -> None:
    model, x = make(KINDS[kind]), batch(rows, kind)
    answers = []
    for _ in range(6):
        torch.manual_seed(5)
        answers.append(monte_carlo(model, x, 40))
        torch.randn(300, 300) @ torch.randn(300, 300)  # what else the machine does has no say
    for answer in answers[1:]:
        assert all(map(torch.equal, answer, answers[0]))


def test_dropout_that_writes_to_its_input_leaves_it_to_the_next_pass() -> None:
    model = make(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5, inplace=True), nn.Linear(8, 3)))
    x, count = batch(2000), 60  # too many rows for copies
    plain = make(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    torch.manual_seed(1)
    result = monte_carlo(model, x, count)
    torch.manual_seed(1)
    assert torch.equal(result.mean, monte_carlo(plain, x, count).mean)
    assert torch.equal(x, batch(2000))


def test_modes_and_switches_are_as_before() -> None:
    model = make()
    model.drop.monte_carlo = True
    model.norm.eval()
    statistics = model.norm.running_mean.clone()
    monte_carlo(model.train(), batch(), 3)
    assert model.training
    assert model.drop.monte_carlo
    model.norm.eval()
    monte_carlo(model, batch(), 3)
    assert not model.norm.training
    assert torch.equal(statistics, model.norm.running_mean)
    assert not monte_carlo(model, batch(), 3).mean.requires_grad


def test_without_dropout_one_pass_says_it_all() -> None:
    model = make(lambda: nn.Sequential(nn.Linear(6, 3), Dropout(0.0)))
    result = monte_carlo(model, batch(), 50)
    torch.testing.assert_close(result.mean, model(batch()).softmax(-1).detach())
    assert result.variance.abs().max() == 0
    assert result.mutual_information.abs().max() == 0


def test_half_precision_is_averaged_in_single() -> None:
    model = make(KINDS["torch"]).to(torch.bfloat16)
    assert monte_carlo(model, batch().bfloat16(), 3).mean.dtype == torch.float32


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="samples is the number of forward passes and must be >= 1, got 0"):
        monte_carlo(make(), batch(), 0)
    with pytest.raises(
        ValueError, match=r"must return logits \(N, classes\), and it returned a tensor of shape \(6,\)"
    ):
        monte_carlo(nn.Sequential(Dropout(0.5), nn.Flatten(0)), batch(1), 2)
