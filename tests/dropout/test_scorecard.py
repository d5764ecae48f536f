"""Laws of the scorecard: what it says, what it leaves alone, and what it refuses."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, Scorecard, check
from dropout_lab.dropout.laws import LAWS
from dropout_lab.dropout.noise import normal

KEYS = ["keys repeat", "keys split", "keys and dtype", "keys alone"]


class NoHalf(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16:
            raise NotImplementedError("half precision\nsecond line")
        return super().forward(x)


class Jitter(Dropout):
    """Multiplies by N(1, p^2)."""

    def draw(self, x: Tensor) -> Tensor:
        return (1 - self.p) * (1 + self.p * normal(self, x, x.shape))


class StatedJitter(Jitter):
    @property
    def variance(self) -> float:
        return ((1 - self.p) * self.p) ** 2


class WithoutRate(nn.Module):
    scaling = "classic"

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5) / 2 if self.training else x / 2


def test_the_text_has_a_line_for_each_law() -> None:
    card = check(nn.Dropout(0.25), shape=(64, 10))
    head, *lines = str(card).splitlines()
    assert head == "Dropout(p=0.25, inplace=False): p = 0.25, inverted"
    assert [line[2:18].strip() for line in lines] == [*LAWS]
    assert "holds           " in lines[0]
    assert ", promised 1" in lines[0]
    assert "DOES NOT HOLD   torch's generator is used under mask_keys" in str(card)


@pytest.mark.parametrize("scaling", ["inverted", "classic", "unscaled"])
def test_a_strategy_states_a_variance_that_is_not_bernoullis(scaling: str) -> None:
    assert not check(StatedJitter(0.3, scaling=scaling), laws=["mean", "variance"]).failed
    card = check(Jitter(0.3, scaling=scaling), laws=["mean", "variance"])
    assert card.failed == ["variance"]
    remedy = "; if it is meant to be another, the layer's attribute variance says which: of its noise before scaling"
    assert card.laws[1].measured.endswith(remedy)
    assert remedy not in card.laws[0].measured


def test_laws_without_a_subject_do_not_apply() -> None:
    laws = {law.name: law for law in check(Dropout(0.0), laws=KEYS).laws}
    assert laws["keys repeat"].holds is None
    assert "does not apply  nothing is drawn at p = 0" in str(laws["keys repeat"])
    card = check(WithoutRate(), p=0.5, laws=["mean", "gain in eval", "identity"])
    assert [law.holds for law in card.laws] == [True, True, None]


def test_an_error_of_the_layer_is_a_finding() -> None:
    laws = {law.name: law for law in check(NoHalf(0.5), laws=["dtypes"]).laws}
    assert laws["dtypes"].measured == "NotImplementedError: half precision"


def test_layer_and_generator_stay_as_they_are() -> None:
    layer = Dropout(0.5).eval()
    layer.monte_carlo = True
    torch.manual_seed(1234)  # not a state that another check would have left behind
    before, state = copy.copy(layer.__dict__), torch.get_rng_state()
    check(layer, shape=(64, 10), laws=[law for law in LAWS if law != "compile"])
    assert layer.__dict__ == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [nn.Identity, nn.ReLU])
def test_a_layer_without_a_rate_needs_one(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(
        ValueError, match=r"has no attribute p or drop_prob; say how much it drops: check\(layer, p=0.5\)"
    ):
        check(make())


def test_an_unknown_scaling_is_refused() -> None:
    layer = nn.Dropout(0.5)
    layer.scaling = "double"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="scaling='double'; allowed: inverted, classic, unscaled"):
        check(layer)


@pytest.mark.parametrize("p", [1.0, -0.5, float("nan")])
def test_a_rate_without_laws_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=f"drops with p = {p}; the laws are about 0 <= p < 1"):
        check(nn.Dropout(0.5), p=p)


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(ValueError, match="no law is called gain, speed; there are mean, variance, gain in train, "):
        check(Dropout(0.5), laws=["speed", "gain", "mean"])


def test_a_layer_of_one_shape_is_checked_with_it() -> None:
    card: Scorecard = check(nn.Dropout3d(0.3), shape=(1024, 3, 2, 2, 2), laws=["variance", *KEYS])
    assert card.failed == KEYS
