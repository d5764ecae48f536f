"""A rate that a strategy learns: laws of every layer that has one."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dropout_lab.dropout import (
    Dropout,
    Placement,
    ScheduledRates,
    check,
    convert,
    fold,
    install,
    mask_keys,
    match_inverted,
    rates_of,
    require_same_rates,
    transfer,
)
from dropout_lab.dropout.learned import own_parameters
from dropout_lab.dropout.schedules import linear


class Learned(Dropout):
    """The smallest of them: noise and scale follow a parameter."""

    def __init__(self, p: float = 0.5, **axes: Any) -> None:
        super().__init__(p, **axes)
        self.logit = nn.Parameter(torch.tensor([p]).logit())

    @property
    def learned_p(self) -> Tensor:
        return self.logit.sigmoid()


def given(layer: Learned, p: float) -> Learned:
    """The layer with another p learned."""
    layer.logit.data = torch.tensor([p]).logit()
    return layer


def network(p: float = 0.3, **axes: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
    install(net, lambda p: Learned(p, **axes), Placement("existing", p=p))
    return net


def test_own_parameters_are_those_of_dropout_layers_alone() -> None:
    net = network()
    install(net, Learned, Placement(["existing", "input"], p=0.3))
    assert set(own_parameters(net)) == {"0.dropout_before.logit", "2.logit"}
    assert own_parameters(Learned()).keys() == {"logit"}
    assert own_parameters(nn.Sequential(nn.Linear(2, 2), Dropout(0.5))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("scaling", ["inverted", "classic", "unscaled"])
def test_every_law_holds_at_the_p_that_was_learned(scaling: str, noise: str) -> None:
    layer = given(Learned(0.5, scaling=scaling, noise=noise), 0.2)
    assert layer.p == pytest.approx(0.2)
    card = check(layer)
    assert not card.failed, card


@pytest.mark.parametrize("mask", ["element", "channel", "sample"])
def test_the_gradient_reaches_p_through_the_scale(mask: str) -> None:
    """d/dp of x * m / (1 - p) is x * m / (1 - p)^2, with m the mask."""
    layer, x = Learned(0.25, mask=mask), torch.rand(8, 3, 5)
    layer.learned_p.sum().backward()  # dp / dlogit
    slope, layer.logit.grad = layer.logit.grad, None
    with mask_keys(0, 0, range(8)):
        out = layer(x)
    out.sum().backward()
    torch.testing.assert_close(layer.logit.grad, slope * out.sum().detach() / 0.75)


def test_the_gradient_reaches_p_in_eval_where_the_scale_does() -> None:
    layer, x = Learned(0.25, scaling="classic").eval(), torch.ones(2, 3)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.logit.grad, torch.tensor([-6 * 0.25 * 0.75]))


def test_a_rate_that_began_at_0_drops_once_it_is_learned() -> None:
    layer = given(Learned(0.0), 0.5)
    assert (layer(torch.ones(64)) == 0).any()


def test_a_scalar_comes_out_as_one() -> None:
    layer = Learned(0.5, scaling="classic")
    assert layer.eval()(torch.tensor(3.0)).shape == layer.train()(torch.tensor(3.0)).shape == ()


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_a_learned_p_can_not_be_assigned(p: float) -> None:
    layer = Learned(0.3)
    with pytest.raises(ValueError, match=r"^Learned learns its p, so that none can be given to it"):
        layer.p = p
    assert layer.p == pytest.approx(0.3)


def test_a_constant_schedule_leaves_a_learned_p_alone_and_no_other_can_have_it() -> None:
    net = network()
    rates = ScheduledRates(net, lambda p, t: p)
    given(net[2], 0.6)
    rates.set(1, 2)
    assert net[2].p == pytest.approx(0.6)
    with pytest.raises(
        ValueError, match=r"^dropout layer '02_2' learns its p, and no schedule can: use the constant one$"
    ):
        ScheduledRates(net, linear)


@pytest.mark.parametrize("scaling", ["inverted", "classic", "unscaled"])
def test_a_learned_p_is_folded_as_any(scaling: str) -> None:
    net, x = network(scaling=scaling).eval(), torch.randn(5, 4)
    given(net[2], 0.7)
    folded = fold(net, x)
    torch.testing.assert_close(folded(x), net(x))
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Identity(), nn.Linear(8, 3))
    plain.load_state_dict(folded.state_dict(), strict=True)


def test_a_learned_p_is_converted_for_eval_and_refused_where_training_would_go_on() -> None:
    net, x = network().eval(), torch.randn(5, 4)
    before = net(x)
    torch.testing.assert_close(convert(net, "classic", x)(x), before)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"learns its p: no factor stays the same in training$"):
        convert(net, "inverted", x, optimizer)
    with pytest.raises(ValueError, match=r"learns its p: no factor stays the same in training$"):
        match_inverted(net, lambda groups: torch.optim.SGD(groups, lr=0.1), x)


def test_the_rate_of_a_checkpoint_is_compared_unless_it_is_one_of_the_weights() -> None:
    net = network(scaling="classic")
    saved = rates_of(given(copy.deepcopy(net)[2], 0.6))
    require_same_rates(net[2], saved)
    assert rates_of(net)["02_2"]["learned"]
    other = Dropout(0.3, scaling="classic")
    other.name = "02_2"
    with pytest.raises(ValueError, match=r"the checkpoint has classic p=0.6"):
        require_same_rates(other, saved)


@pytest.mark.parametrize(
    ("before", "after"), [("classic", "inverted"), ("inverted", "classic"), ("classic", "classic")]
)
def test_weights_go_from_and_to_networks_that_learn_their_p(before: str, after: str) -> None:
    x = torch.randn(5, 4)
    source, fixed = network(scaling=before).eval(), network().eval()
    given(source[2], 0.6)
    install(fixed, lambda p: Dropout(p, scaling=after), Placement("existing", p=0.2))
    torch.testing.assert_close(transfer(source, fixed, x)(x), source(x))
    fresh = network(0.2, scaling=after).eval()
    torch.testing.assert_close(transfer(fixed, fresh, x)(x), source(x))
    assert fresh[2].p == pytest.approx(0.2)
    torch.testing.assert_close(transfer(source, fresh, x)(x), source(x))
    assert fresh[2].p == pytest.approx(0.6)


def test_install_takes_parameters_that_can_be_split_and_no_buffers() -> None:
    class Scalar(Dropout):
        def __init__(self, p: float) -> None:
            super().__init__(p)
            self.logit = nn.Parameter(torch.tensor(0.0))

    class Buffered(Dropout):
        def __init__(self, p: float) -> None:
            super().__init__(p)
            self.register_buffer("seen", torch.zeros(1))

    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"^Scalar: its parameter 'logit' has no dimension; give it one, torch.ones"):
        install(net, Scalar, Placement("existing"))
    with pytest.raises(ValueError, match=r"^Buffered keeps 'seen' in state_dict; .* parameters of its own"):
        install(net, Buffered, Placement("existing"))


def test_a_compiled_layer_follows_what_is_learned_without_a_new_graph() -> None:
    graphs = []

    def counting(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    layer, x = Learned(0.5), torch.ones(64, 64)
    run = torch.compile(layer, backend=counting, fullgraph=True)
    for p in (0.5, 0.1, 0.9):
        given(layer, p)
        with mask_keys(0, 0, range(64)):
            out = run(x)
        with mask_keys(0, 0, range(64)):
            torch.testing.assert_close(out, layer(x))
    assert len(graphs) == 1
