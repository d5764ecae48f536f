"""The exact ensemble is the average over all masks, and one hidden layer needs no approximation."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.dropout.ensembles import exact as ensembles
from dropout_lab.dropout.ensembles.exact import exact_ensemble

Unscaled = partial(Dropout, scaling="unscaled")


def batch(rows: int = 3, width: int = 5) -> Tensor:
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def one_hidden(layer: nn.Module, units: int = 8) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, units), nn.Tanh(), layer, nn.Linear(units, 4)).double()
    model[3].weight.data *= 5
    return model


@pytest.mark.parametrize("scaling", ["inverted", "classic"])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_one_hidden_layer_makes_weight_scaling_the_geometric_mean(p: float, scaling: str) -> None:
    model = one_hidden(Dropout(p, scaling=scaling), units=12)
    arithmetic, geometric, weight_scaling = exact_ensemble(model, batch())
    torch.testing.assert_close(geometric, weight_scaling, rtol=0, atol=1e-12)
    assert (arithmetic - geometric).abs().max() > 0.01
    torch.testing.assert_close(weight_scaling, model.eval()(batch()).softmax(-1), rtol=0, atol=0)


def test_unscaled_dropout_and_a_second_hidden_layer_make_it_an_approximation() -> None:
    _, geometric, weight_scaling = exact_ensemble(one_hidden(Unscaled(0.5)), batch())
    assert (geometric - weight_scaling).abs().max() > 0.01
    torch.manual_seed(0)
    hidden = [nn.Linear(5, 6), nn.ReLU(), Dropout(0.5), nn.Linear(6, 6), nn.ReLU(), Dropout(0.5)]
    deep = nn.Sequential(*hidden, nn.Linear(6, 4)).double()
    for layer in deep[::3]:
        layer.weight.data *= 4
    _, geometric, weight_scaling = exact_ensemble(deep, batch())
    assert (geometric - weight_scaling).abs().max() > 0.01


class Net(nn.Module):
    """Two kinds of mask, one layer called twice, a skip around dropout, a size computed before it and used after it."""

    def __init__(self, size_from_input: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.Linear(2, 4)
        self.maps, self.units = Dropout(0.3, mask="channel"), Dropout(0.6, scaling="classic")
        self.size_from_input = size_from_input

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        y = self.norm(self.conv(x.unsqueeze(1))).relu()
        y = (y + self.maps(y)).mean(-1)
        y = y.view(n if self.size_from_input else -1, 3)[:, :2]
        return self.last(self.units(self.units(y).tanh()))


@pytest.mark.parametrize("size_from_input", [False, True])
def test_every_mask_is_counted_with_its_probability(size_from_input: bool) -> None:
    torch.manual_seed(0)
    model, x = Net(size_from_input).double(), batch()
    model.norm.running_mean.uniform_()
    y = model.norm.eval()(model.conv(x.unsqueeze(1))).relu()
    arithmetic, logs = torch.zeros(3, 4), torch.zeros(3, 4)
    for mask in itertools.product([0.0, 1.0], repeat=7):
        maps, first, second = torch.tensor(mask, dtype=torch.float64).split([3, 2, 2])
        z = (y + y * maps[:, None] / 0.7).mean(-1)[:, :2]
        logits = model.last((z * first).tanh() * second).log_softmax(-1)
        weight = math.prod([0.7 if m else 0.3 for m in maps] + [0.4 if m else 0.6 for m in (*first, *second)])
        arithmetic, logs = arithmetic + weight * logits.exp(), logs + weight * logits
    model.train()
    result = exact_ensemble(model, x)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(result.arithmetic, arithmetic, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.geometric, logs.softmax(-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(result.weight_scaling, model.eval()(x).softmax(-1), rtol=0, atol=1e-12)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model, x = one_hidden(Dropout(0.3)), batch()
    whole = exact_ensemble(model, x)
    monkeypatch.setattr(ensembles.Prefix, "largest_chunk", lambda *_: 7)
    for one, other in zip(whole, exact_ensemble(model, x, progress=tqdm), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert "37/37" in capsys.readouterr().err


def test_torch_layers_and_attached_layers_count_like_ours() -> None:
    ours = exact_ensemble(one_hidden(Dropout(0.3)), batch())
    attached = one_hidden(nn.Identity())
    install(attached, Dropout, Placement("activations", p=0.3))
    for model in (one_hidden(nn.Dropout(0.3)), attached):
        for one, other in zip(ours, exact_ensemble(model, batch()), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


class Drop(nn.Dropout):
    pass


class DropMaps(nn.Dropout1d):
    def extra_repr(self) -> str:
        return "maps"


class HalvedDrop(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


@pytest.mark.parametrize(("own", "torchs"), [(Drop, nn.Dropout), (DropMaps, nn.Dropout1d)])
def test_subclasses_of_torchs_layers_count_like_them(own: type[nn.Dropout], torchs: type[nn.Dropout]) -> None:
    models = [one_hidden(nn.Sequential(nn.Unflatten(1, (4, 2)), kind(0.3), nn.Flatten())) for kind in (own, torchs)]
    for one, other in zip(*(exact_ensemble(model, batch()) for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_without_dropout_there_is_one_network() -> None:
    result = exact_ensemble(one_hidden(Dropout(0.0)), batch())
    torch.testing.assert_close(result.arithmetic, result.weight_scaling)
    torch.testing.assert_close(result.geometric, result.weight_scaling)


class Branching(nn.Module):
    """Control flow that depends on values, which can't be traced."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x if x.sum() > 1e9 else x * 1)


def test_models_that_can_not_be_traced_work_too() -> None:
    one = exact_ensemble(one_hidden(Dropout(0.3)), batch())
    other = exact_ensemble(Branching(one_hidden(Dropout(0.3))), batch())
    torch.testing.assert_close(one.arithmetic, other.arithmetic, rtol=0, atol=1e-12)


class Own(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x[:, :4].reshape(-1, 2)).reshape(-1, 4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one_hidden(Dropout(0.5), units=21), r"21 dropped units for each sample \(21\) make 2\^21 .*at most 20 units"),
        (one_hidden(nn.Sequential(Dropout(0.5), Dropout(0.1)), units=11), r"22 dropped units .*\(11 \+ 11\)"),
        (one_hidden(Dropout(0.5, noise="gaussian")), "'2' .*masks can't be listed"),
        (one_hidden(Own(0.5)), "'2' .*masks can't be listed"),
        (one_hidden(HalvedDrop(0.5)), "'2' .*masks can't be listed"),
        (one_hidden(nn.AlphaDropout(0.5)), "'2' .*masks can't be listed"),
        (Windows(), r"shape \(6, 2\) for 3 samples"),
        (nn.Sequential(Dropout(0.5), nn.Unflatten(1, (5, 1))), r"logits \(N, classes\), and it returned .*\(2, 5, 1\)"),
    ],
)
def test_what_can_not_be_enumerated_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_ensemble(model, batch())
    assert all(module.training for module in model.modules())
