"""Laws of the two pictures: they show what is in the file, layers in order of depth."""

import math

import pytest

from dropout_lab.activations import pictures
from dropout_lab.activations.records import Row, append

# In the file in the order of the alphabet, which is not that of depth.
DEPTH = ["00_conv", "01_relu", "02_drop_in", "02_drop", "10_conv_in_in", "10_conv_in"]
STATS = ("mean", "std", "zeros")


def value(step, mode, layer, stat):
    return step + DEPTH.index(layer) / 10 + (mode == "eval") / 100 + STATS.index(stat) / 1000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two flushes; the convolution was not seen in training, and one shift is unknown."""
    path = tmp_path_factory.mktemp("run") / "activations.csv"
    for step in (9, 18):
        found = []
        for mode in ("train", "eval"):
            for layer in sorted(DEPTH)[1 if mode == "train" else 0 :]:
                found += [Row(step, 0, mode, layer, stat, value(step, mode, layer, stat)) for stat in STATS]
                found += [Row(step, 0, mode, layer, "count", 64), Row(step, 0, mode, layer, "gain", 7.0)]
        for layer in DEPTH:
            shift = math.nan if (step, layer) == (9, "02_drop") else step + DEPTH.index(layer) / 10
            found += [Row(step, 0, "probe", layer, "shift", shift), Row(step, 0, "probe", layer, "ratio", 1.0)]
        append(path, found)
    return path


def test_the_profile_shows_the_last_flush_in_train_and_eval(path):
    lines = {(line.yaxis, line.name): dict(zip(line.x, line.y, strict=True)) for line in pictures.profile(path).data}
    for axis, stat in zip(("y", "y2", "y3"), STATS, strict=True):
        for mode in ("train", "eval"):
            layers = DEPTH[1:] if mode == "train" else DEPTH
            assert lines.pop((axis, mode)) == pytest.approx({layer: value(18, mode, layer, stat) for layer in layers})
    assert not lines


def test_the_profile_names_its_axes_and_each_mode_once(path):
    figure = pictures.profile(path)
    assert [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2", "yaxis3")] == list(STATS)
    assert [line.name for line in figure.data if line.showlegend] == ["train", "eval"]
    assert len({(line.name, line.line.color) for line in figure.data}) == 2


def test_layers_are_in_order_of_depth_inputs_first(path):
    """Also where a module's own name ends in ``_in``, and where a mode lacks a layer."""
    figure = pictures.profile(path)
    assert all(list(figure.layout[axis].categoryarray) == DEPTH for axis in ("xaxis", "xaxis2", "xaxis3"))
    shift = pictures.heatmap(path)
    assert list(shift.data[0].y) == DEPTH
    assert shift.layout.yaxis.autorange == "reversed"  # the input at the top


def test_the_heatmap_shows_the_shift_of_every_layer_at_every_step(path):
    (found,) = pictures.heatmap(path).data
    assert list(found.x) == [9, 18]
    for layer, row in zip(DEPTH, found.z, strict=True):
        expected = [step + DEPTH.index(layer) / 10 for step in (9, 18)]
        if layer == "02_drop":
            expected[0] = math.nan
        assert list(row) == pytest.approx(expected, nan_ok=True)


def test_colours_tell_apart_up_and_down(path):
    (found,) = pictures.heatmap(path).data
    assert found.zmid == 0


def test_a_step_that_was_logged_twice_counts_once(tmp_path):
    """As after a run was resumed: the later number stands."""
    for shift in (1.0, 3.0):
        append(tmp_path / "a.csv", [Row(9, 0, "probe", "00_a", "shift", shift)])
    assert pictures.heatmap(tmp_path / "a.csv").data[0].z.tolist() == [[3.0]]


def test_a_layer_whose_shift_is_never_known_keeps_its_row(tmp_path):
    found = [Row(9, 0, "probe", layer, "shift", shift) for layer, shift in (("00_a", math.nan), ("01_b", 2.0))]
    append(tmp_path / "a.csv", found)
    (drawn,) = pictures.heatmap(tmp_path / "a.csv").data
    assert list(drawn.y) == ["00_a", "01_b"]
    assert drawn.z[1].tolist() == [2.0]


def test_a_step_at_which_no_shift_is_known_keeps_its_column(tmp_path):
    append(
        tmp_path / "a.csv", [Row(9, 0, "probe", "00_a", "shift", math.nan), Row(18, 0, "probe", "00_a", "shift", 2.0)]
    )
    assert list(pictures.heatmap(tmp_path / "a.csv").data[0].x) == [9, 18]


def test_without_a_probe_the_heatmap_is_empty(tmp_path):
    append(tmp_path / "a.csv", [Row(9, 0, "train", "00_a", "mean", 1.0)])
    (drawn,) = pictures.heatmap(tmp_path / "a.csv").data
    assert drawn.z.size == 0
    assert {line.name for line in pictures.profile(tmp_path / "a.csv").data} == {"train", "eval"}
