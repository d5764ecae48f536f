"""Laws of what is watched, and under which names."""

from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from dropout_lab.activations import Meter, taps_of
from dropout_lab.activations.taps import chosen_for_loggers, model_of
from dropout_lab.dropout import Dropout, Placement, install, none


def rows(model, layers=None):
    return [tap.name for tap in taps_of(model, layers)]


def alexnet() -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.alexnet(num_classes=10)


def test_by_default_dropout_activations_convolutions_and_linears_are_watched():
    found = rows(alexnet())
    assert found[:3] == ["00_features_0", "01_features_1", "03_features_3"]  # no pooling
    assert found[-9:] == [
        "14_classifier_0_in",
        "14_classifier_0",
        "15_classifier_1",
        "16_classifier_2",
        "17_classifier_3_in",
        "17_classifier_3",
        "18_classifier_4",
        "19_classifier_5",
        "20_classifier_6",
    ]


def test_names_do_not_depend_on_what_is_installed():
    bare = set(rows(alexnet()))
    for where in ("existing", "activations", "classifier", "input"):
        model = alexnet()
        install(model, Dropout, Placement(where, p=0.5))
        extra = set(rows(model)) - bare
        assert all(name.endswith("_in") or name == "00_input" for name in extra), where


def test_an_attached_layer_splits_its_host_into_before_and_after():
    model = nn.Sequential(nn.Linear(4, 200), nn.ReLU())
    install(model, partial(Dropout, scaling="unscaled"), Placement("activations", p=0.5))
    meter = Meter(taps_of(model))
    meter.attach()
    meter.start("train")
    model(torch.randn(200, 4))
    meter.stop()
    readings = meter.flush()
    stats = readings.stats("train")
    assert list(stats) == ["00_0", "01_1_in", "01_1"]
    assert stats["01_1_in"].zeros == pytest.approx(0.5, abs=0.1)
    assert stats["01_1"].zeros == pytest.approx(0.75, abs=0.1)
    assert readings.gains("train")["01_1"].value == pytest.approx(0.5, abs=0.05)


def test_a_reused_module_has_a_row_for_each_call():
    found = rows(torchvision.models.resnet18(num_classes=10))
    assert {"04_layer1_0_conv1", "06_layer1_0_relu", "09_layer1_0_relu_call2"} <= set(found)
    assert rows(torchvision.models.resnet18(num_classes=10), ["06_layer1_0_relu"]) == [
        "06_layer1_0_relu",
        "09_layer1_0_relu_call2",
    ]


def test_a_module_with_two_places_has_a_row_for_each():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    meter = Meter(taps_of(model))
    meter.attach()
    meter.start("train")
    model(torch.randn(3, 4))
    meter.stop()
    assert {name: one.count for name, one in meter.flush().stats("train").items()} == {
        "00_0": 12,
        "01_1": 12,
        "02_0_call2": 12,
    }


def test_an_attached_layer_on_a_reused_module_has_a_pair_for_each_call():
    model = torchvision.models.resnet18(num_classes=10)
    install(model, Dropout, Placement("pattern", p=0.5, pattern="layer1.0.relu"))
    found = rows(model, ["*layer1_0_relu*"])
    assert found == [
        "06_layer1_0_relu_in",
        "06_layer1_0_relu",
        "09_layer1_0_relu_call2_in",
        "09_layer1_0_relu_call2",
    ]
    meter = Meter(taps_of(model, ["*layer1_0_relu*"]))
    meter.attach()
    meter.start("train")
    model(torch.randn(2, 3, 32, 32))
    meter.stop()
    assert {one.count for one in meter.flush().stats("train").values()} == {2 * 64 * 8 * 8}


@pytest.mark.parametrize("pattern", ["*maxpool", "maxpool", "03_*", ["avgpool", "*_maxpool"]])
def test_patterns_match_names_and_paths_of_any_layer(pattern):
    found = rows(torchvision.models.resnet18(num_classes=10), pattern)
    assert "03_maxpool" in found
    assert len(found) == (1 if isinstance(pattern, str) else 2)


def test_a_pattern_that_matches_nothing_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"layers='conv9' matches no layer; the model has 00_0 \(0\)"):
        taps_of(nn.Sequential(nn.Linear(3, 3)), ["conv9"])


def test_what_a_batch_norm_reads_is_marked_also_through_an_attached_layer():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
    marked = lambda: [tap.name for tap in taps_of(model) if tap.before_norm]  # noqa: E731
    assert marked() == ["00_0", "03_3"]
    install(model, Dropout, Placement("convolutions", p=0.5))
    assert marked() == ["00_0", "03_3"]


def test_whole_maps_are_counted_by_sample_and_channel():
    model = nn.Sequential(Dropout(0.5), Dropout(0.5, mask="channel"), nn.Dropout2d(0.5), nn.Dropout(0.5))
    assert [tap.units for tap in taps_of(model) if tap.where == "output"] == ["sample", "channel", "channel", "sample"]


def test_a_model_that_cannot_be_traced_is_watched_in_order_of_definition():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.dropout = nn.Linear(3, 3), nn.Dropout(0.5)

        def forward(self, x):
            return self.dropout(self.first(x)) if x.sum() > 0 else x

    assert rows(Branches()) == ["00_first", "01_dropout_in", "01_dropout"]


@pytest.mark.slow
def test_the_model_is_the_only_child_with_parameters():
    whole = nn.Module()
    whole.net, whole.loss = nn.Linear(2, 2), nn.CrossEntropyLoss()
    assert model_of(whole) is whole.net
    whole.net = torch.compile(whole.net)
    assert isinstance(model_of(whole), nn.Linear)
    whole.head = nn.Linear(2, 2)
    assert model_of(whole) is whole


def taps(*kinds):
    return taps_of(nn.Sequential(*(nn.ReLU() if kind == "r" else Dropout(0.5) for kind in kinds)))


@pytest.mark.parametrize("most", [6, 7, None])
def test_all_are_shown_where_they_fit(most):
    found = taps(*"rrrrd")
    assert chosen_for_loggers(found, most) == {tap.name for tap in found}


def test_dropout_layers_come_first_and_others_are_evenly_spaced():
    assert chosen_for_loggers(taps(*"rrrrrdr"), 5) == {"05_5_in", "05_5", "00_0", "03_3", "06_6"}


def test_too_many_dropout_layers_are_evenly_spaced_each_with_its_input():
    assert chosen_for_loggers(taps(*"ddddddddd"), 6) == {"00_0_in", "00_0", "04_4_in", "04_4", "08_8_in", "08_8"}


def test_of_two_the_last_dropout_layer_is_kept():
    assert chosen_for_loggers(taps(*"rrdrrd"), 2) == {"05_5_in", "05_5"}


@pytest.mark.parametrize("most", range(2, 22))
def test_exactly_as_many_are_shown_as_may_be(most):
    found = taps(*"rrdrrrrdrrrrrrrdrr")  # 15 and 3 with an input
    assert len(chosen_for_loggers(found, most)) == min(most, len(found))


def test_dropout_layers_that_idle_beside_those_of_a_strategy_are_none():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0), nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 2))
    assert [tap.name for tap in taps_of(net) if tap.name.endswith("_in")] == ["03_3_in"]
    install(net, none, Placement("classifier"))
    assert [tap.name for tap in taps_of(net) if tap.name.endswith("_in")] == ["03_3_in"]
    install(net, Dropout, Placement("pattern", pattern="0"))
    assert [tap.name for tap in taps_of(net) if tap.name.endswith("_in")] == ["00_0_in", "03_3_in"]


def test_a_layer_behind_a_dropout_layer_of_the_networks_own_is_the_one_that_is_watched():
    net = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, dropout=0.1)
    installed = install(net, Dropout, Placement("branches", p=0.3))
    watched = {tap.name: tap.module for tap in taps_of(net) if isinstance(tap.module, nn.Dropout | Dropout)}
    assert {layer.name for layer in installed} < watched.keys()
    assert all(isinstance(watched[layer.name], Dropout) for layer in installed)
