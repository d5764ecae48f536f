"""Laws of the sums of a tensor: those of numpy on all the data, in any precision, layout and structure."""

import pytest
import torch
from torch import nn
from watching import Ops, feed, watched


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
