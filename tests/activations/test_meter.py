"""Laws of the meter: exact, robust to how tensors are laid out and when hooks run, nearly free."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from dropout_lab.activations import Meter, Tap
from dropout_lab.activations.readings import COLUMNS
from dropout_lab.dropout import Dropout


def watched(*modules: nn.Module, where: str = "output") -> Meter:
    meter = Meter([Tap(f"m{i}", module, where) for i, module in enumerate(modules)])
    meter.attach()
    return meter


def feed(meter: Meter, model: nn.Module, batches, mode: str = "train") -> None:
    for batch in batches:
        meter.start(mode)
        model(batch)
        meter.stop()


def around(layer: nn.Module) -> Meter:
    meter = Meter([Tap("drop_in", layer, "input"), Tap("drop", layer)])
    meter.attach()
    return meter


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(50, 7), (50, 3, 8, 8), (50, 5, 6), (50, 3, 100, 100)])
def test_statistics_equal_numpy_on_the_concatenated_data(shape):
    data = torch.randn(shape).relu() + 0.1 * torch.randn(shape[1:]).relu()
    layer = nn.Identity()
    meter = watched(layer)
    feed(meter, layer, data.split(16))  # 16, 16, 16 and 2: samples count, not batches
    found, whole = meter.flush().stats("train")["m0"], data.double().numpy()
    assert found.count == whole.size
    assert found.mean == pytest.approx(whole.mean(), rel=1e-6)
    assert found.std == pytest.approx(whole.std(), rel=1e-6)
    assert found.zeros == (whole == 0).mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_overflows_nor_rounds(dtype):
    data = (torch.randn(64, 1000) * 100 + 2000).to(dtype)  # its fp16 sum is inf, its bf16 sum a multiple of 512
    layer = nn.Identity()
    meter = watched(layer)
    feed(meter, layer, [data])
    found, whole = meter.flush().stats("train")["m0"], data.double().numpy()
    assert found.mean == pytest.approx(whole.mean(), rel=1e-6)
    assert found.std == pytest.approx(whole.std(), rel=1e-3)  # mean²/variance is 400


def test_double_precision_is_kept():
    data = torch.randn(40, 30, dtype=torch.float64)
    layer = nn.Identity()
    meter = watched(layer)
    feed(meter, layer, data.split(13))
    found = meter.flush().stats("train")["m0"]
    assert found.mean == pytest.approx(data.mean().item(), rel=1e-12)
    assert found.std == pytest.approx(data.numpy().std(), rel=1e-12)


class Ops(TorchDispatchMode):
    """Names of the operations, what left the device, and where fp64 appeared."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []
        self.transfers, self.fp64 = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        if isinstance(out, torch.Tensor):
            self.transfers += out.is_cpu and any(isinstance(x, torch.Tensor) and not x.is_cpu for x in args)
            self.fp64 |= {out.device.type} if out.dtype == torch.float64 else set()
        return out


def test_only_one_process_goes_on_with_the_sums_but_all_with_the_count_of_batches():
    """By which each of them knows whether there is something to add up over processes."""
    layer, data = nn.Identity(), torch.rand(8, 4)
    meter, first, other = (watched(layer) for _ in range(3))
    feed(meter, layer, [data])
    state = meter.state()
    first.load_state(state)
    other.load_state(state, sums=False)
    assert first.batches == other.batches == meter.batches
    assert first.flush().stats("train")["m0"].count == data.numel()
    assert other.flush().stats("train")["m0"].count == 0


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


def test_a_variance_that_cannot_be_trusted_is_flagged():
    layers = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Identity()])
    meter = watched(*layers)
    meter.start("eval")
    for layer, mean in zip(layers, (0.0, 50.0, 1000.0), strict=True):
        layer(torch.randn(20, 100) + mean)
    meter.stop()
    assert [one.reliable for one in meter.flush().stats("eval").values()] == [True, True, False]


def test_an_in_place_op_behind_a_layer_does_not_reach_its_output():
    linear = nn.Linear(20, 20)
    model = nn.Sequential(linear, nn.ReLU(inplace=True))
    x = torch.randn(30, 20)
    meter = watched(linear)
    feed(meter, model, [x])
    assert meter.flush().stats("train")["m0"].mean == pytest.approx(linear(x).mean().item(), rel=1e-5)


def test_the_input_is_seen_before_an_in_place_layer_changes_it():
    layer = nn.Dropout(0.5, inplace=True)
    meter = around(layer)
    feed(meter, layer, [torch.ones(100, 100)])
    stats = meter.flush().stats("train")
    assert stats["drop_in"].zeros == 0
    assert 0.45 < stats["drop"].zeros < 0.55


def test_channels_last_gives_the_same_numbers_without_a_copy():
    x = torch.randn(8, 16, 9, 9).relu()
    layer = nn.Identity()
    meter = watched(layer)
    feed(meter, layer, [x], "train")
    feed(meter, layer, [x.to(memory_format=torch.channels_last)], "eval")
    readings = meter.flush()
    a, b = readings.stats("train")["m0"], readings.stats("eval")["m0"]
    assert (a.count, a.zeros) == (b.count, b.zeros)
    assert b.mean == pytest.approx(a.mean, rel=1e-6)
    assert b.std == pytest.approx(a.std, rel=1e-6)
    with Ops() as ops:
        feed(meter, layer, [x.to(memory_format=torch.channels_last)])
    assert not {"clone", "_unsafe_view", "contiguous"} & set(ops.names)


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


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_counts_a_call_once(reentrant):
    block = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Dropout(0.5))
    meter = Meter([Tap("in", block[2], "input"), Tap("out", block[2])])
    meter.attach()
    meter.start("train")
    checkpoint(block, torch.randn(4, 10, requires_grad=True), use_reentrant=reentrant).sum().backward()
    meter.stop()
    assert [one.count for one in meter.flush().stats("train").values()] == [40, 40]


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.narrow, self.wide, self.relu = nn.Linear(5, 5), nn.Linear(5, 7), nn.ReLU()

    def forward(self, x):
        return self.relu(self.wide(self.relu(self.narrow(x))))


def test_each_call_of_a_reused_module_has_its_own_row():
    model = Reused()
    meter = Meter([Tap("relu", model.relu, call=0), Tap("relu_call2", model.relu, call=1)])
    meter.attach()
    meter.start("train")
    model(torch.randn(3, 5))
    model(torch.randn(3, 5))  # a second pass within one step
    meter.stop()
    assert {name: one.count for name, one in meter.flush().stats("train").items()} == {"relu": 30, "relu_call2": 42}


def test_a_forward_that_broke_off_does_not_shift_the_next_one():
    model = Reused()
    meter = Meter([Tap("relu", model.relu, call=0), Tap("relu_call2", model.relu, call=1)])
    meter.attach()
    meter.start("train")
    model.relu(model.narrow(torch.randn(3, 5)))
    meter.stop()
    feed(meter, model, [torch.randn(3, 5)])
    assert {name: one.count for name, one in meter.flush().stats("train").items()} == {"relu": 30, "relu_call2": 21}


def test_two_taps_of_one_tensor_or_of_one_name_are_refused():
    layer = nn.Identity()
    for taps in ([Tap("a", layer), Tap("b", layer)], [Tap("a", layer), Tap("a", nn.Identity())]):
        with pytest.raises(ValueError, match="of its own"):
            Meter(taps)


@pytest.mark.parametrize("wrap", [lambda x: (None, x), lambda x: {"mask": x > 0, "x": x}, lambda x: [[x], x * 2]])
def test_the_first_float_tensor_of_a_structure_counts(wrap):
    class Wrap(nn.Module):
        def forward(self, x):
            return wrap(x)

    layer, x = Wrap(), torch.arange(24.0).reshape(6, 4)
    meter = watched(layer)
    feed(meter, layer, [x])
    found = meter.flush().stats("train")["m0"]
    assert found.count == 24
    assert found.mean == 11.5


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


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_watched_model_is_not_watched(copied):
    layer = nn.Dropout(0.5)
    meter = around(layer)
    twin = copied(layer)
    meter.start("train")
    twin(torch.ones(3, 3))
    meter.stop()
    assert meter.flush().stats("train")["drop"].count == 0
    assert not isinstance(next(iter(twin._forward_hooks.values())).__self__.meter, Meter)  # and carries none along


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

Q = 0.25
FINGERPRINTS = {
    "inverted": (Dropout(1 - Q), 1, 1),
    "classic": (Dropout(1 - Q, scaling="classic"), Q, Q),
    "unscaled": (Dropout(1 - Q, scaling="unscaled"), Q, 1),
    "spatial": (Dropout(1 - Q, mask="channel"), 1, 1),
    "sample": (Dropout(1 - Q, mask="sample"), 1, 1),
    "none": (Dropout(0), 1, 1),
    "native": (nn.Dropout(1 - Q), 1, 1),
    "native2d": (nn.Dropout2d(1 - Q), 1, 1),
}


def gain_meter(layer: nn.Module) -> Meter:
    units = "channel" if isinstance(layer, nn.Dropout2d) or getattr(layer, "mask", "") == "channel" else "sample"
    meter = Meter([Tap("drop_in", layer, "input", units=units), Tap("drop", layer, units=units)])
    meter.attach()
    return meter


@pytest.mark.parametrize(("layer", "train", "eval_"), FINGERPRINTS.values(), ids=FINGERPRINTS)
def test_the_gain_is_the_fingerprint_of_the_strategy(layer, train, eval_):
    torch.manual_seed(1)
    meter = gain_meter(layer)
    batches = [torch.randn(50, 6, 5, 5).relu() for _ in range(4)]
    feed(meter, layer.train(), batches, "train")
    feed(meter, layer.eval(), batches, "eval")
    readings = meter.flush()
    meter.detach()
    gain = readings.gains("train")["drop"]
    assert abs(gain.value - train) <= 4 * gain.se + 1e-6
    assert gain.se < 0.13  # the test has power: the fingerprints are 0.75 apart
    assert readings.gains("eval")["drop"].value == pytest.approx(eval_, rel=1e-6)


@pytest.mark.parametrize("kind", ["inverted", "spatial", "sample", "native2d"])
def test_the_standard_error_of_the_gain_is_its_spread(kind):
    torch.manual_seed(2)
    layer = FINGERPRINTS[kind][0].train()
    meter = gain_meter(layer)
    x = torch.randn(40, 6, 5, 5).relu()
    gains = []
    for _ in range(400):
        feed(meter, layer, [x])
        gains.append(meter.flush().gains("train")["drop"])
    meter.detach()
    values, errors = np.array([(gain.value, gain.se) for gain in gains]).T
    # z scores have variance 1; over 400 repetitions its own standard error is 0.07 (more where z is heavy-tailed)
    assert np.var((values - 1) / errors) == pytest.approx(1, abs=0.3)
    assert values.std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.15)


def test_dropped_maps_are_independent_also_within_one_sample():
    torch.manual_seed(4)
    layer = Dropout(0.5, mask="channel")
    meter = gain_meter(layer)
    feed(meter, layer, [torch.ones(1, 400, 3, 3)])
    gain = meter.flush().gains("train")["drop"]
    assert gain.se == pytest.approx(1 / np.sqrt(400), rel=0.2)
    assert abs(gain.value - 1) < 4 * gain.se


def test_the_gain_of_an_input_without_a_mean_is_nan():
    torch.manual_seed(3)
    layer = Dropout(0.5)
    meter = around(layer)
    x = torch.randn(64, 100)
    feed(meter, layer, [x - x.mean()])
    assert np.isnan(meter.flush().gains("train")["drop"].value)
    feed(meter, layer, [x - x.mean() + 1])
    assert meter.flush().gains("train")["drop"].value == pytest.approx(1, abs=0.1)


def test_a_dead_layer_has_no_gain():
    layer = Dropout(0.5)
    meter = around(layer)
    feed(meter, layer, [torch.zeros(8, 4)])
    assert np.isnan(meter.flush().gains("train")["drop"].value)


def test_an_idle_hook_calls_nothing():
    """What it costs is measured by scripts/bench/activations.py; this is why it costs so little."""

    def calls():
        seen = []
        sys.setprofile(lambda frame, event, argument: seen.append((event, frame.f_code)))
        try:
            layer(x)
        finally:
            sys.setprofile(None)
        return [code for event, code in seen if event in ("call", "c_call")]

    def nothing(module, args, output):
        pass

    layer, x = nn.Identity(), torch.randn(1)
    handle = layer.register_forward_hook(nothing)
    with_nothing = len(calls())
    handle.remove()
    meter = watched(layer)
    assert len(calls()) == with_nothing
    with meter.record():
        assert len(calls()) > with_nothing
    meter.detach()
