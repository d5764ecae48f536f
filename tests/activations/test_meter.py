"""Laws of the meter: exact, robust to how tensors are laid out and when hooks run, nearly free."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from watching import Ops, around, feed, gain_meter, watched

from dropout_lab.activations import Meter, Tap
from dropout_lab.activations.readings import COLUMNS
from dropout_lab.dropout import Dropout


@pytest.mark.parametrize(
    ("places", "counts"), [([(0, 2), (1, 2)], [32, 16]), ([(0, 3), (2, 3)], [48, 0]), ([(0, 1)], [48])]
)
def test_each_process_goes_on_with_its_own_sums_and_of_another_number_the_first_with_all(places, counts, monkeypatch):
    """Added up by others they would be an ulp apart. All have the count of batches, by which they know what to do."""
    layer, data = nn.Identity(), torch.rand(8, 4)
    meter, other = watched(layer), watched(layer)
    feed(meter, layer, [data])
    feed(other, layer, [data[:4]])
    state = {"sums": torch.cat([meter.state()["sums"], other.state()["sums"]]), "batches": dict(meter.batches)}
    found = []
    for place in places:
        again = watched(layer)
        with monkeypatch.context() as patch:
            patch.setattr("dropout_lab.activations.meter._place", lambda place=place: place)
            again.load_state(state)
        assert again.batches == meter.batches
        found.append(again.flush().stats("train")["m0"].count)
    assert found == counts


def test_a_device_without_double_precision_never_meets_it():
    layer = nn.Identity()
    with FakeTensorMode():  # an Apple GPU's tensors, without their values
        meter = Meter([Tap("in", layer, "input"), Tap("out", layer)], device="mps")
        meter.attach()
        x = torch.randn(4, 5, device="mps")
        with Ops() as seen:
            feed(meter, layer, [x])
            meter.flush()
    assert seen.fp64 == {"cpu"}


def test_a_flush_is_one_transfer_and_counting_is_none():
    layers = nn.Sequential(*(nn.Identity() for _ in range(5)))
    with FakeTensorMode():  # a GPU's tensors, without their values
        meter = Meter([Tap(f"{i}", layer) for i, layer in enumerate(layers)], device="cuda")
        meter.attach()
        x = torch.randn(4, 5, device="cuda")
        with Ops() as counting:
            feed(meter, layers, [x, x])
        with Ops() as flushing:
            meter.flush()
    assert (counting.transfers, flushing.transfers) == (0, 1)


def test_nan_stays_in_its_row_and_its_window():
    layers = nn.ModuleList([nn.Identity(), nn.Identity()])
    meter = watched(*layers)
    meter.start("train")
    layers[0](torch.tensor([[1.0, float("nan")]]))
    layers[1](torch.ones(1, 2))
    meter.stop()
    first = meter.flush().stats("train")
    assert np.isnan(first["m0"].mean)
    assert first["m1"].mean == 1
    feed(meter, layers[0], [torch.ones(1, 2)])
    assert meter.flush().stats("train")["m0"].mean == 1


def test_two_taps_of_one_tensor_or_of_one_name_are_refused():
    layer = nn.Identity()
    for taps in ([Tap("a", layer), Tap("b", layer)], [Tap("a", layer), Tap("a", nn.Identity())]):
        with pytest.raises(ValueError, match="of its own"):
            Meter(taps)


def test_integers_are_skipped_and_named():
    layer = nn.Identity()
    meter = watched(layer)
    feed(meter, layer, [torch.arange(5)])
    assert np.isnan(meter.flush().stats("train")["m0"].mean)
    assert meter.skipped == {"m0"}


def test_an_idle_meter_sees_nothing_and_modes_are_apart():
    layer = nn.Identity()
    meter = watched(layer)
    layer(torch.ones(2, 2))
    feed(meter, layer, [torch.full((2, 2), 3.0)], "eval")
    readings = meter.flush()
    assert readings.stats("train")["m0"].count == 0
    assert readings.stats("eval")["m0"].mean == 3
    assert readings.batches == {"train": 0, "eval": 1}
    assert meter.flush().stats("eval")["m0"].count == 0


def test_a_step_that_is_not_counted_costs_no_operation():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.5)), torch.randn(3, 4)

    def ops() -> list[str]:
        model.zero_grad()
        with Ops() as seen:
            model(x).sum().backward()
        return seen.names

    before = ops()
    meter = watched(*model)
    around(model[2])
    assert ops() == before
    meter.start("train")
    assert ops() != before


def test_no_reference_to_an_activation_is_kept():
    layer = nn.Identity()
    meter = watched(layer)
    x = torch.randn(64, 1000)
    meter.start("train")
    layer(x)
    assert all(part.numel() <= 64 for partial in meter._pending for part in partial if isinstance(part, torch.Tensor))


def test_what_one_layer_puts_out_and_the_next_takes_in_is_summed_once():
    model, x = nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), torch.randn(30, 8)
    meter = Meter([Tap("relu", model[0]), Tap("drop_in", model[1], "input"), Tap("drop", model[1])])
    meter.attach()
    with Ops() as ops:
        feed(meter, model, [x])
    stats = meter.flush().stats("train")
    assert ops.names.count("linalg_vector_norm") == 2
    assert stats["drop_in"] == stats["relu"]
    assert stats["relu"].mean == pytest.approx(x.relu().mean().item(), rel=1e-6)


@pytest.mark.parametrize("inference", [False, True])
def test_what_has_changed_in_place_between_two_layers_is_summed_again(inference):
    class Doubles(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.drop = nn.ReLU(), nn.Identity()

        def forward(self, x):
            return self.drop(self.relu(x).mul_(2))

    model = Doubles()
    meter = Meter([Tap("relu", model.relu), Tap("drop_in", model.drop, "input")])
    meter.attach()
    with torch.inference_mode(inference):
        feed(meter, model, [torch.randn(30, 8)])
    stats = meter.flush().stats("train")
    assert stats["drop_in"].mean == pytest.approx(2 * stats["relu"].mean)


def test_a_tensor_seen_again_is_summed_by_the_units_of_each_tap():
    x = torch.randn(4, 6, 5, 5).relu()
    layers = nn.ModuleList([nn.Identity(), Dropout(0.5, mask="channel")])
    meter = Meter([Tap("before", layers[0]), *gain_meter(layers[1]).taps])
    meter.attach()
    meter.start("train")
    layers[1](layers[0](x))
    meter.stop()
    assert meter.flush().sums["train"][:, COLUMNS.index("units")].tolist() == [4, 24, 24]


# Gains. The fingerprint of a strategy: mean out / mean in, in train and in eval, with q = 1 - p.
