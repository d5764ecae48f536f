"""Laws of modes: dropout alone is switched, whoever made it, and everything is as before afterwards."""

import pytest
import torch
from small_networks import normalised
from torch import Tensor, nn

from dropout_lab.dropout import Dropout
from dropout_lab.dropout.graph.modes import dropout_only, in_mode

LAYERS = [Dropout(0.5), Dropout(0.5, scaling="classic"), nn.Dropout(0.5), nn.AlphaDropout(0.5)]


def state(model: nn.Module) -> list[tuple[bool, bool]]:
    return [(module.training, getattr(module, "monte_carlo", False)) for module in model.modules()]


def net(layer: nn.Module) -> nn.Module:
    model = normalised(layer)
    model[3].eval()
    return model


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_dropout_is_on_or_off_and_all_else_in_eval_mode(layer: nn.Module, on: bool) -> None:
    model, x = net(layer), torch.randn(64, 4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with dropout_only(model, on):
        first, second = model[:3](x), model(x)
        assert torch.equal(first, model[:3](x)) is not on
    assert not second.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("on", [True, False])
def test_modes_and_switches_come_back(on: bool, fails: bool) -> None:
    model = net(Dropout(0.5))
    model[2].monte_carlo = True
    before = state(model)
    for context in (dropout_only(model, on), in_mode(model, training=on)):
        try:
            with context:
                assert state(model) != before
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert state(model) == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("training", [True, False])
def test_a_mode_that_is_changed_within_comes_back_where_nothing_had_to_be_switched(training: bool) -> None:
    model = net(nn.Dropout(0.5)).train(training)
    with in_mode(model, training=training):
        model.train(not training)
    assert {module.training for module in model.modules()} == {training}


def test_off_is_off_for_a_layer_in_monte_carlo_mode_too() -> None:
    model, x = net(Dropout(0.5)).eval(), torch.randn(64, 4)
    plain = model(x)
    model[2].monte_carlo = True
    with dropout_only(model, on=False):
        assert torch.equal(model(x), plain)


def test_contexts_nest() -> None:
    model, x = net(Dropout(0.5)), torch.randn(64, 4)
    with dropout_only(model, on=True):
        with dropout_only(model, on=False):
            assert torch.equal(model(x), model(x))
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("training", [True, False])
def test_in_mode_switches_every_module_and_keeps_gradients(training: bool) -> None:
    model = net(nn.Dropout(0.5))
    with in_mode(model, training=training):
        assert {module.training for module in model.modules()} == {training}
        assert model(torch.randn(8, 4)).requires_grad


def test_the_output_of_torchs_layers_is_that_of_train_mode() -> None:
    class Doubling(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x if self.training else x

    model, x = nn.Sequential(Doubling(0.5)), torch.randn(8, 4)
    with dropout_only(model, on=True):
        assert torch.equal(model(x), 2 * x)
