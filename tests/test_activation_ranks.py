"""The number of processes changes nothing: 1, 2 and 4 of them count the same data."""

import json

import activation_ranks as ranks
import pandas as pd
import pytest

from dropout_lab.activations.probe import _Sums
from dropout_lab.activations.readings import COLUMNS
from dropout_lab.jobs.processes import launch


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """World size -> folder with what the workers left."""
    found = {}
    for world in (1, 2, 4):
        folder = found[world] = tmp_path_factory.mktemp(f"world{world}")
        launch(world, ranks.count, folder)
    return found


def results(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_uneven_shards_give_the_statistics_of_one_process(folders, world):
    (one,), many = results(folders[1]), results(folders[world])
    assert len(many) == world
    assert all(each == many[0] for each in many)
    for name, expected in one["uneven"].items():
        assert many[0]["uneven"][name] == pytest.approx(expected, rel=1e-12), name
    assert many[0]["uneven"]["fp32"]["count"] == 53 * 192
    assert many[0]["uneven"]["fp32"]["zeros"] == one["uneven"]["fp32"]["zeros"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_a_flush_is_one_collective_and_the_probe_asks_once_whose_rows_come_first(folders, world):
    taps = 7  # with sums in two modes, and of the probe
    epoch = [world, taps * (2 * len(COLUMNS) + len(_Sums._fields))]
    assert [each["collectives"] for each in results(folders[world])] == [2 * epoch] * world


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_training_on_several_processes_logs_what_one_logs(folders, world):
    """Train, eval, gains and the probe, masks included; float64 and keyed masks, so only rounding is left."""
    one, many = (pd.read_csv(folders[n] / "activations.csv") for n in (1, world))
    keys = ["step", "epoch", "mode", "layer", "stat"]
    pd.testing.assert_frame_equal(one[keys], many[keys])
    assert set(one["mode"]) == {"train", "eval", "probe"}
    # errors of exact gains are rounding of rounding: equal to 1e-7 of a gain of 1
    pd.testing.assert_series_equal(one.value, many.value, rtol=1e-9, atol=1e-7)
