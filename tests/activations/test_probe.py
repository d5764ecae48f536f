"""Laws of the probe: it tells what dropout does, from the same inputs, and leaves no trace."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from small_networks import normalised
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dropout_lab.activations import Meter, Tap, compare, taps_of
from dropout_lab.activations.probe import probe
from dropout_lab.dropout import Dropout


def net(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 50), nn.ReLU(), layer, nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 5))


def probed(model: nn.Module, x: torch.Tensor, taps: list[Tap] | None = None, **options):
    taps = taps or [Tap(f"{i}", module) for i, module in enumerate(model)]
    meter = Meter(taps)
    meter.attach()
    try:
        found = compare(probe(meter, model, x, **options))
    finally:
        meter.detach()
    return dict(zip([tap.name for tap in taps], found, strict=True))


@pytest.mark.parametrize("layer", [Dropout(0.5), nn.Dropout(0.5), Dropout(0.5, scaling="classic")])
def test_the_probe_equals_two_passes_by_hand(layer):
    model, x = net(layer), torch.randn(40, 20)
    found = probed(model, x, masks=3, keyed=False)
    seen: dict[bool, list] = {True: [], False: []}
    taps = [Tap(f"{i}", module) for i, module in enumerate(model)]
    meter = Meter(taps)
    meter.attach()
    handle = model[3].register_forward_hook(lambda module, args, out: seen[on[0]].append(out.double().numpy().copy()))
    on = [False]
    layer.register_forward_pre_hook(lambda module, args: on.__setitem__(0, module.training or _monte_carlo(module)))
    probe(meter, model, x, masks=3, keyed=False)
    handle.remove()
    plain, dropped = np.concatenate(seen[False]), np.concatenate(seen[True])
    assert len(dropped) == 3 * len(plain)
    shift = (dropped.mean() - plain.mean()) / plain.std()
    assert found["3"].shift == pytest.approx(shift, rel=1e-4, abs=1e-6)
    assert found["3"].variance_ratio == pytest.approx(dropped.var() / plain.var(), rel=1e-5)
    per_sample = dropped.reshape(3, 40, -1).mean((0, 2)) - plain.mean(1)
    assert found["3"].shift_se == pytest.approx(per_sample.std(ddof=1) / np.sqrt(40) / plain.std(), rel=1e-4)


def _monte_carlo(module):
    return getattr(module, "monte_carlo", False)


@pytest.mark.parametrize(("scaling", "ratio"), [("inverted", 1), ("classic", 1), ("unscaled", 0.25)])
def test_at_the_layer_itself_the_ratio_is_what_scaling_makes_it(scaling, ratio):
    torch.manual_seed(0)
    found = probed(net(Dropout(0.75, scaling=scaling)), torch.randn(200, 20), masks=4)
    assert abs(found["2"].ratio - ratio) < 4 * found["2"].ratio_se < 0.1
    assert found["1"].ratio == 1  # before dropout nothing differs
    assert found["1"].shift == 0
    assert found["3"].ratio is None  # signed


def test_behind_a_relu_even_inverted_dropout_shifts_the_mean():
    torch.manual_seed(0)
    model = net(Dropout(0.5))
    found = probed(model, torch.randn(400, 20), masks=8)
    assert found["4"].ratio > 1 + 4 * found["4"].ratio_se  # the extra variance is rectified
    assert found["3"].variance_ratio > 1.1


@pytest.mark.parametrize("mask", ["element", "channel"])
@pytest.mark.parametrize("stat", ["shift", "ratio"])
def test_the_standard_error_is_the_spread_over_masks(stat, mask):
    """Of element masks over samples; of channel masks over (sample, channel), each of which is one draw."""
    torch.manual_seed(0)
    layer = Dropout(0.5, mask=mask)
    maps = nn.Sequential(nn.Conv2d(1, 50, 3), nn.ReLU(), layer)
    model, x = (net(layer), torch.randn(100, 20)) if mask == "element" else (maps, torch.randn(1, 1, 6, 6))
    taps = [Tap("out", layer, units="channel" if mask == "channel" else "sample")]
    found = [probed(model, x, taps, masks=1, step=step)["out"] for step in range(100)]
    values = np.array([getattr(one, stat) for one in found])
    errors = np.array([getattr(one, f"{stat}_se") for one in found])
    assert values.std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.3)


@pytest.mark.parametrize("layer", [Dropout(0.5), nn.Dropout(0.5), nn.AlphaDropout(0.5)])
def test_the_probe_leaves_no_trace(layer):
    model = normalised(layer, inputs=20, hidden=50, outputs=5)
    model[3].eval()  # modes are per module
    meter = Meter(taps_of(model))
    meter.attach()
    meter.start("train")
    model(torch.randn(10, 20))
    meter.stop()
    x = torch.randn(40, 20, requires_grad=True)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    probe(meter, model, x)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in model.modules()] == [True, True, True, True, False]
    assert not _monte_carlo(layer)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert meter.flush().stats("train")["02_2"].count == 500  # what was counted stays, and no more


def test_traces_are_removed_after_an_exception_too():
    model = net(Dropout(0.5))
    meter = Meter(taps_of(model))
    meter.attach()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        probe(meter, model, torch.randn(4, 19))
    assert model.training
    assert not meter.active
    assert not model[2].monte_carlo


def test_masks_are_the_same_for_the_same_step_and_differ_between_steps():
    model, x = net(Dropout(0.5)), torch.randn(40, 20)
    first, again, other = (probed(model, x, step=step)["4"].shift for step in (1, 1, 2))
    assert first == again != other


def test_rows_split_over_processes_give_the_sums_of_the_whole():
    model, x = net(Dropout(0.5)).double(), torch.randn(40, 20, dtype=torch.float64)
    meter = Meter([Tap(f"{i}", module) for i, module in enumerate(model)])
    meter.attach()
    whole = probe(meter, model, x)
    parts = sum(probe(meter, model, x[rows], rows=rows) for rows in torch.arange(40).split((13, 27)))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_a_layer_whose_leading_dimension_is_not_the_batch_is_refused_unless_unkeyed():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = Dropout(0.5)

        def forward(self, x):
            return self.dropout(x.transpose(0, 1))

    model, x = SequenceFirst(), torch.rand(6, 3, 4)
    taps = [Tap("drop", model.dropout)]
    with pytest.raises(ValueError, match="6 rows"):
        probed(model, x, taps)
    assert probed(model, x, taps, keyed=False)["drop"].ratio > 0


def test_a_tap_that_the_batch_does_not_reach_has_no_comparison():
    model = net(Dropout(0.5))
    assert probed(model, torch.randn(4, 20), [Tap("elsewhere", nn.ReLU())]) == {"elsewhere": None}


def test_the_numbers_leave_the_device_in_one_transfer_and_need_no_fp64_there(monkeypatch):
    """On fake tensors, which know their device and not their values; no generator is touched."""
    monkeypatch.setattr("dropout_lab.activations.probe._generators_kept", lambda device: nullcontext())
    monkeypatch.setattr("dropout_lab.activations.probe._seed", lambda device, seed: None)
    seen = []

    class Ops(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                left = out.is_cpu and any(isinstance(x, torch.Tensor) and not x.is_cpu for x in args)
                seen.extend(["transfer"] * left + ["fp64"] * (out.device.type == "mps" and out.dtype == torch.float64))
            return out

    for device in ("cuda", "mps"):
        with FakeTensorMode():
            model, x = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.ReLU()), torch.empty(4, 20, device=device)
            meter = Meter(taps_of(model), device=device)
            meter.attach()
            with Ops():
                probe(meter, model, x, masks=3, rows=range(4), keyed=False)
        assert "fp64" not in seen
        assert device == "mps" or seen == ["transfer"]
