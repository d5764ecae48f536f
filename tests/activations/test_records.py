"""Laws of the numbers of a run as rows of a file and as metrics."""

import math
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from small_networks import dense
from torch import nn

from dropout_lab.activations import Meter, compare, taps_of
from dropout_lab.activations.probe import probe
from dropout_lab.activations.records import Row, append, key, rows
from dropout_lab.dropout import Dropout

NAMES = ["00_0", "01_1", "02_2_in", "02_2", "03_3"]


@pytest.fixture(scope="module")
def readings():
    """A flush of a small network: one batch in train, two in eval, a probe."""
    generator = torch.Generator().manual_seed(0)
    net = dense(Dropout(0.5))
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator)
    meter = Meter(taps_of(net))
    meter.attach()
    batches = torch.randn(3, 64, 4, generator=generator)
    for mode, batch in zip(("train", "eval", "eval"), batches, strict=True):
        net.train(mode == "train")
        meter.start(mode)
        net(batch)
        meter.stop()
    return meter.flush(probe(meter, net, batches[0]))


def test_rows_are_every_number_of_a_flush(readings):
    found = {(row.mode, row.layer, row.stat): row.value for row in rows(readings, step=7, epoch=2)}
    expected = {}
    for mode in ("train", "eval"):
        for name, one in readings.stats(mode).items():
            expected |= {(mode, name, stat): getattr(one, stat) for stat in ("mean", "std", "zeros", "count")}
        gain = readings.gains(mode)["02_2"]
        expected |= {(mode, "02_2", "gain"): gain.value, (mode, "02_2", "gain_se"): gain.se}
    for name, comparison in zip(readings.names, compare(readings.extra), strict=True):
        values = asdict(comparison)
        expected |= {("probe", name, stat): value for stat, value in values.items() if value is not None}
    assert found == expected
    assert readings.names == NAMES
    assert {row[:2] for row in rows(readings, step=7, epoch=2)} == {(7, 2)}


def test_a_ratio_is_left_out_where_the_activation_can_be_negative(readings):
    ratios = {row.layer for row in rows(readings, 0, 0) if row.stat == "ratio"}
    assert ratios == {"01_1", "02_2_in", "02_2"}


def test_a_mode_that_saw_no_batch_has_no_rows(readings):
    training = replace(readings, batches={"train": 1, "eval": 0})
    assert {row.mode for row in rows(training, 0, 0)} == {"train", "probe"}


def test_without_a_probe_there_are_no_rows_of_it(readings):
    assert {row.mode for row in rows(replace(readings, extra=None), 0, 0)} == {"train", "eval"}


@pytest.mark.parametrize(
    ("mode", "stat", "name"),
    [
        ("train", "mean", "activation_mean_train/03_a"),
        ("eval", "std", "activation_std_eval/03_a"),
        ("eval", "zeros", "activation_zeros_eval/03_a"),
        ("train", "gain", "dropout_gain_train/03_a"),
        ("eval", "gain", "dropout_gain_eval/03_a"),
        ("probe", "shift", "activation_shift/03_a"),
        ("probe", "ratio", "activation_ratio/03_a"),
        *((mode, stat, None) for mode in ("train", "eval") for stat in ("count", "gain_se")),
        *(("probe", stat, None) for stat in ("shift_se", "ratio_se", "variance_ratio")),
    ],
)
def test_metrics_have_the_names_of_the_contract_and_the_rest_is_for_the_file(mode, stat, name):
    assert key(Row(0, 0, mode, "03_a", stat, 1.0), set()) == name


def test_the_variance_ratio_is_a_metric_where_a_batch_norm_reads_it():
    row = Row(0, 0, "probe", "03_a", "variance_ratio", 1.0)
    assert key(row, {"03_a"}) == "activation_variance_ratio/03_a"
    assert key(row, {"04_b"}) is None


def some(step):
    return [Row(step, 0, "train", "00_a", "mean", 0.1 + step), Row(step, 0, "eval", "00_a", "std", 1 / 3)]


def test_the_file_has_one_header_and_every_row_in_order(tmp_path):
    path = tmp_path / "not" / "there" / "activations.csv"
    append(path, some(1))
    append(path, some(2))
    assert path.read_text().splitlines() == [
        "step,epoch,mode,layer,stat,value",
        "1,0,train,00_a,mean,1.1",
        "1,0,eval,00_a,std,0.3333333333333333",
        "2,0,train,00_a,mean,2.1",
        "2,0,eval,00_a,std,0.3333333333333333",
    ]


def test_the_file_is_complete_when_the_call_returns(tmp_path):
    for step in range(3):
        append(tmp_path / "a.csv", some(step))
        assert len(pd.read_csv(tmp_path / "a.csv")) == 2 * (step + 1)


def test_numbers_come_back_to_the_last_bit(tmp_path):
    values = [0.1 + 0.2, 1e-300, -1 / 3, math.nan, math.inf]
    append(tmp_path / "a.csv", [Row(0, 0, "train", "00_a", "mean", value) for value in values])
    back = [float(line.split(",")[-1]) for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert back == pytest.approx(values, rel=0, abs=0, nan_ok=True)
    assert pd.read_csv(tmp_path / "a.csv").value.dtype == float


def test_a_kill_at_any_byte_costs_at_most_the_rows_of_that_moment(tmp_path):
    path = tmp_path / "a.csv"
    append(path, some(1))
    first = path.read_bytes()
    append(path, some(2))
    whole = path.read_bytes()
    for kept in range(len(whole) + 1):
        path.write_bytes(whole[:kept])
        append(path, some(3))
        table = pd.read_csv(path)
        assert list(table.columns) == list(Row._fields)
        assert table.step.tolist()[-2:] == [3, 3]
        assert table.value.tolist()[-2:] == [3.1, pytest.approx(1 / 3)]
        rows_before = whole[:kept].count(b"\n") - 1
        assert len(table) == max(rows_before, 0) + 2
        if kept >= len(first):
            assert table.step.tolist()[:2] == [1, 1]


def test_a_long_file_is_continued_after_its_last_line(tmp_path):
    path = tmp_path / "a.csv"
    append(path, [Row(step, 0, "train", "00_a", "mean", 1.0) for step in range(1000)])
    with path.open("ab") as file:
        file.write(b"1000,0,tra")
    append(path, some(1000))
    assert pd.read_csv(path).step.tolist() == [*range(1000), 1000, 1000]


def test_a_flush_without_rows_leaves_a_header(tmp_path):
    append(tmp_path / "a.csv", [])
    assert pd.read_csv(tmp_path / "a.csv").empty
