"""The matched parametrisation makes classic dropout train like inverted dropout, to rounding."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.dropout.folding.match import factors_of_matching, match_inverted

OPTIMIZERS = {
    "sgd": partial(SGD, lr=0.1),
    "sgd_decay": partial(SGD, lr=0.1, weight_decay=0.01),
    "momentum": partial(SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "dampened": partial(SGD, lr=0.05, momentum=0.9, dampening=0.3),
    "nesterov": partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(Adam, lr=0.01),
    "adam_decay": partial(Adam, lr=0.01, weight_decay=0.01, amsgrad=True, eps=1e-3),
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.0),
    "adamw_decay": partial(AdamW, lr=0.01, weight_decay=0.1, eps=1e-3),
}
ROWS = 16
Make = Callable[[float], Dropout]


def mlp(norm: bool, make: Make, rates: tuple[float, ...] = (0.1, 0.3, 0.6)) -> nn.Sequential:
    # A bias before BatchNorm has no gradient but rounding, which Adam would blow up to full steps: there is none.
    first = [nn.Linear(64, 32, bias=not norm), *([nn.BatchNorm1d(32)] if norm else []), nn.ReLU()]
    second = [nn.Linear(32, 32), nn.LeakyReLU(0.1)]
    p, r, s = map(make, rates)
    return nn.Sequential(nn.Flatten(), p, *first, r, *second, s, nn.Linear(32, 10))


def cnn(norm: bool, make: Make, rates: tuple[float, ...] = (0.2, 0.4, 0.7)) -> nn.Sequential:
    p, r, s = map(make, rates)
    first = [nn.Conv2d(1, 6, 3, padding=1, bias=not norm), *([nn.BatchNorm2d(6)] if norm else []), nn.ReLU()]
    second = [nn.Conv2d(6, 8, 3), *([nn.GroupNorm(2, 8)] if norm else []), nn.ReLU()]
    head = [nn.Flatten(), r, nn.Linear(32, 16), nn.ReLU(), s, nn.Linear(16, 10)]
    return nn.Sequential(*first, p, nn.MaxPool2d(2), *second, nn.AdaptiveAvgPool2d(2), *head)


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 1, 8, 8, generator=generator, dtype=dtype), torch.arange(ROWS) % 10


def twins(build: Callable[..., nn.Module], norm: bool, **more: object) -> tuple[nn.Module, nn.Module]:
    """The same initial weights with inverted and with classic dropout."""
    torch.manual_seed(0)
    inverted = build(norm, Dropout, **more).double()
    classic = build(norm, partial(Dropout, scaling="classic"), **more).double()
    classic.load_state_dict(inverted.state_dict())
    return inverted, classic


def train(
    model: nn.Module,
    optimizer: Optimizer,
    steps: int = 50,
    scheduler: object = None,
    dtype: torch.dtype = torch.float64,
) -> list[float]:
    """Train with the same masks at the same steps, whatever the model."""
    (x, y), losses = data(dtype), []
    for step in range(steps):
        with mask_keys(seed=3, step=step, rows=range(ROWS)):
            loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if scheduler is not None:
            scheduler.step()  # type: ignore[attr-defined]
    return losses


def difference(inverted: nn.Module, classic: nn.Module, factors: dict[str, float]) -> float:
    theirs = dict(classic.named_parameters())
    ours = inverted.named_parameters()
    return max((w - theirs[name] / factors.get(name, 1.0)).abs().max().item() for name, w in ours)


# One net with everything in it for each optimizer, and every net for one.
COMBINATIONS = [(cnn, True, name) for name in OPTIMIZERS]
COMBINATIONS += [(build, norm, "momentum") for build, norm in ((mlp, False), (mlp, True), (cnn, False))]


@pytest.mark.slow
@pytest.mark.parametrize(("build", "norm", "name"), COMBINATIONS)
def test_matched_classic_trains_like_inverted(build: Callable[..., nn.Module], norm: bool, name: str) -> None:
    inverted, classic = twins(build, norm)
    factors = factors_of_matching(classic, data()[0])
    assert len(factors) == 3
    train(inverted, OPTIMIZERS[name](inverted.parameters()))
    train(classic, match_inverted(classic, OPTIMIZERS[name], data()[0]))
    assert difference(inverted, classic, factors) < 1e-12
    with torch.no_grad():
        torch.testing.assert_close(inverted.eval()(data()[0]), classic.eval()(data()[0]), rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam_decay", "adamw_decay"])
def test_unmatched_classic_trains_differently(build: Callable[..., nn.Module], name: str) -> None:
    inverted, classic = twins(build, False)
    rescaled = copy.deepcopy(classic)
    factors = factors_of_matching(classic, data()[0])
    train(inverted, OPTIMIZERS[name](inverted.parameters()), steps=10)
    train(classic, OPTIMIZERS[name](classic.parameters()), steps=10)
    assert difference(inverted, classic, {}) > 1e-3
    match_inverted(rescaled, OPTIMIZERS[name], data()[0])
    train(
        rescaled, OPTIMIZERS[name](rescaled.parameters()), steps=10
    )  # matched at the start, with one learning rate for all
    assert difference(inverted, rescaled, factors) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["momentum", "adam_decay", "adamw_decay"])
@pytest.mark.parametrize("build", [mlp, cnn])
def test_powers_of_two_match_bit_for_bit_in_float32(build: Callable[..., nn.Module], name: str) -> None:
    inverted, classic = (model.float() for model in twins(build, True, rates=(0.5, 0.5, 0.75)))
    factors = factors_of_matching(classic, data(torch.float32)[0])
    optimizer = match_inverted(classic, OPTIMIZERS[name], data(torch.float32)[0])
    first = train(inverted, OPTIMIZERS[name](inverted.parameters()), dtype=torch.float32)
    assert first == train(classic, optimizer, dtype=torch.float32)
    assert difference(inverted, classic, factors) == 0


@pytest.mark.parametrize("name", ["nesterov", "adamw_decay"])
def test_schedules_that_multiply_keep_the_match(name: str) -> None:
    inverted, classic = twins(mlp, True)
    factors = factors_of_matching(classic, data()[0])
    for model, optimizer in (
        (inverted, OPTIMIZERS[name](inverted.parameters())),
        (classic, match_inverted(classic, OPTIMIZERS[name], data()[0])),
    ):
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        train(model, optimizer, scheduler=torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [10]))
    assert difference(inverted, classic, factors) < 1e-12


def test_biases_are_never_scaled() -> None:
    model = mlp(True, partial(Dropout, scaling="classic"))
    assert factors_of_matching(model, data(torch.float32)[0]) == {
        "2.weight": 1 / 0.9,
        "6.weight": pytest.approx(1 / 0.7),
        "9.weight": pytest.approx(1 / 0.4),
    }


def test_stacked_dropout_multiplies_its_factors() -> None:
    layers = [Dropout(0.5, scaling="classic"), nn.ReLU(), Dropout(0.75, scaling="classic")]
    model = nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 2))
    assert factors_of_matching(model, torch.randn(3, 4)) == {"4.weight": 8.0}


def test_unscaled_matches_in_training_and_inverted_needs_nothing() -> None:
    x = data(torch.float32)[0]
    assert factors_of_matching(cnn(False, Dropout), x) == {}
    classic, unscaled = (
        factors_of_matching(cnn(False, partial(Dropout, scaling=s)), x) for s in ("classic", "unscaled")
    )
    assert classic == unscaled != {}


def test_parameter_groups_follow_the_table() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Dropout(0.75, scaling="classic"), nn.Linear(4, 2))  # c = 4
    for make, expected in (
        (partial(SGD, lr=1.0, weight_decay=1.0), {"lr": 16, "weight_decay": 1 / 16}),
        (partial(Adam, lr=1.0, weight_decay=1.0, eps=1.0), {"lr": 4, "weight_decay": 1 / 16, "eps": 1 / 4}),
        (partial(AdamW, lr=1.0, weight_decay=1.0, eps=1.0), {"lr": 4, "weight_decay": 1 / 4, "eps": 1 / 4}),
    ):
        one, four = match_inverted(copy.deepcopy(model), make, torch.randn(3, 4)).param_groups
        assert [len(one["params"]), len(four["params"])] == [3, 1]
        assert {key: one[key] for key in expected} == dict.fromkeys(expected, 1.0)
        assert {key: four[key] for key in expected} == expected


def test_other_optimizers_are_refused_and_nothing_is_changed() -> None:
    model = mlp(False, partial(Dropout, scaling="classic"))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="no exact equivalent is known for RMSprop; allowed: SGD, Adam, AdamW"):
        match_inverted(model, partial(torch.optim.RMSprop, lr=0.1), data(torch.float32)[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class SameSteps(SGD):
    pass


class OtherSteps(SGD):
    def step(self, closure: object = None) -> None:
        pass


def test_optimizers_that_inherit_their_steps_count_as_the_one_they_inherit_from() -> None:
    model = mlp(False, partial(Dropout, scaling="classic"))
    x = data(torch.float32)[0]
    same, sgd = (match_inverted(copy.deepcopy(model), partial(kind, lr=0.1), x) for kind in (SameSteps, SGD))
    assert type(same) is SameSteps
    assert len(same.param_groups) > 1
    for ours, theirs in zip(same.param_groups, sgd.param_groups, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    with pytest.raises(ValueError, match="no exact equivalent is known for OtherSteps"):
        match_inverted(model, partial(OtherSteps, lr=0.1), x)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Dropout(0.2, scaling="classic"), nn.BatchNorm1d(8), nn.Linear(8, 2)], r"'0' \(p=0.2\).*BatchNorm1d 1"),
        ([Dropout(0.2, scaling="classic"), nn.Sigmoid(), nn.Linear(8, 2)], r"'0' \(p=0.2\).*Sigmoid 1"),
        ([nn.Linear(8, 8), nn.GELU(), Dropout(0.3, scaling="classic")], r"'2' \(p=0.3\).*GELU 1.*the model's output"),
    ],
)
def test_what_has_no_exact_equivalent_is_refused(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factors_of_matching(nn.Sequential(*layers), torch.randn(4, 8))


def test_dropout_before_an_activation_scales_the_layer_before() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Dropout(0.5, scaling="classic"), nn.Tanh(), nn.Linear(8, 2))
    assert factors_of_matching(model, torch.randn(4, 8)) == {"0.weight": 2.0, "0.bias": 2.0}
