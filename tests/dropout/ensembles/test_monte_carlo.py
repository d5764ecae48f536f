"""Monte Carlo dropout equals the average of plain forward passes, however it is computed."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.dropout.ensembles import monte_carlo as sampling
from dropout_lab.dropout.ensembles.exact import exact_ensemble
from dropout_lab.dropout.ensembles.monte_carlo import monte_carlo
from dropout_lab.dropout.ensembles.prefix import Prefix
from dropout_lab.dropout.graph.modes import dropout_only


class Residual(nn.Module):
    """A skip around dropout; a size of the input used after it if `size_from_input`; sequence-first if `turned`."""

    def __init__(self, size_from_input: bool = False, turned: bool = False) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.drop, self.shift = Dropout(0.4), nn.Parameter(torch.rand(8))
        self.size_from_input, self.turned = size_from_input, turned
        self.calls = 0
        self.first.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x)).relu()
        y = self.drop(h.t()).t() if self.turned else self.drop(h)
        y = (h + y + self.shift).relu()
        return self.last(y.view(x.shape[0] if self.size_from_input else -1, 8))


class Images(nn.Module):
    """Code around a convolution: how much work it is shows in a pass only, and the batch is the leading dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Conv2d(1, 4, 1), Dropout(0.4), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.first(x).relu()).flatten(1))


def make(kind: Callable[[], nn.Module] = Residual) -> nn.Module:
    torch.manual_seed(0)
    model = kind().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d) and module.track_running_stats:
            module.running_mean.uniform_()
    return model


def batch(rows: int = 5, kind: str = "") -> Tensor:
    x = torch.randn(rows, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x.view(rows, 1, 2, 3) if kind == "images" else x


KINDS = {
    "residual": Residual,
    "images": Images,
    "size": lambda: Residual(size_from_input=True),
    "turned": lambda: Residual(turned=True),
    "input": lambda: nn.Sequential(Dropout(0.2), nn.Linear(6, 8), nn.ReLU(), Dropout(0.5), nn.Linear(8, 3)),
    "torch": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
    "gaussian": lambda: nn.Sequential(nn.Linear(6, 8), Dropout(0.5, noise="gaussian"), nn.Linear(8, 3)),
}


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


@pytest.mark.parametrize(("kind", "batched"), [("residual", True), ("size", False), ("turned", False), ("input", True)])
def test_copies_are_made_only_where_the_batch_leads(kind: str, batched: bool) -> None:
    model, x = make(KINDS[kind]), batch()
    with dropout_only(model, on=False):
        parts = Prefix(model)
        values = parts.start(x)
        assert (parts.largest_chunk(x, values) > 1) is batched
        torch.testing.assert_close(parts.finish(values)[0], model(x), rtol=0, atol=0)


def test_the_part_before_dropout_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_TRACING", 0)
    model = make()
    monte_carlo(model, batch(2), 50)
    assert model.calls == 1
    monte_carlo(model, batch(5), 50)
    assert model.calls == 3  # and once for two rows, to see whether copies work


class Branch(nn.Sequential):
    """A chain's modules in a forward pass with more to it: the batch is not the leading dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.t()).t()  # type: ignore[no-any-return]


class Watched(nn.Linear):
    """A step that is not known to work row by row, and does not: the mean of the batch is taken off."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y - y[0]


def hooked() -> nn.Module:
    last = nn.Linear(8, 3)
    last.register_forward_hook(lambda module, args, output: output - output.mean(0))
    return nn.Sequential(nn.Linear(6, 8), Dropout(0.5), last)


@pytest.mark.parametrize(
    "kind",
    [
        lambda: Branch(Dropout(0.5), nn.Linear(5, 5), nn.Linear(5, 5)),
        lambda: nn.Sequential(nn.Linear(6, 8), Dropout(0.5), Watched(8, 3)),
        lambda: nn.Sequential(nn.Linear(6, 8), Dropout(0.5), nn.BatchNorm1d(8, track_running_stats=False)),
        hooked,
    ],
    ids=["forward", "step", "mean", "hook"],
)
def test_a_chain_with_more_to_it_is_no_chain(kind: Callable[[], nn.Module]) -> None:
    model, x = make(kind), batch()
    with dropout_only(model, on=False):
        parts = Prefix(model)
        values = parts.start(x)
        assert parts.largest_chunk(x, values) == 1
        torch.testing.assert_close(parts.finish(values)[0], model(x), rtol=0, atol=0)


def test_a_module_that_stands_in_a_chain_twice_is_called_twice() -> None:
    squash = nn.Tanh()
    model, x = make(lambda: nn.Sequential(nn.Linear(6, 3), squash, nn.Linear(3, 3), squash, nn.Dropout(0.5))), batch()
    with dropout_only(model, on=False):
        parts = Prefix(model)
        assert torch.equal(parts.finish(parts.start(x))[0], model(x))


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
