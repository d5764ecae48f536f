"""What is measured at a trained network, on networks whose weights the test chooses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from dropout_lab import evaluate
from dropout_lab.dropout import Dropout, Placement, install, none
from dropout_lab.runs.read import Run
from dropout_lab.train.__main__ import main as train_main
from dropout_lab.verdict import trained_network as trained
from dropout_lab.verdict.darkened_maps import Crowd
from dropout_lab.verdict.metrics import measure
from dropout_lab.verdict.trained_network import MEASURES, Trained, expected_calibration_error


def subject(*layers, images, classes=None):
    """A network whose dropout layers are called a, b, ... as of a run; it was trained on what it is tested on."""
    net = nn.Sequential(*layers).eval()
    for name, layer in zip("ab", (layer for layer in net if isinstance(layer, Dropout)), strict=False):
        layer.name = name
    classes = torch.zeros(len(images), dtype=torch.long) if classes is None else classes
    return Trained(net, images, classes, images, classes, seed=0)


def linear(weight, bias=None):
    weight = torch.as_tensor(weight, dtype=torch.float32)
    layer = nn.Linear(*reversed(weight.shape), bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = torch.as_tensor(bias, dtype=torch.float32)
    return layer


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    # at 0.9 half are right: |0.5 - 0.9| for 2 of 4; at 0.6 all are: |1 - 0.6| for 2 of 4
    assert expected_calibration_error(probabilities, np.array([0, 1, 0, 1])) == pytest.approx(0.4)
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0


@pytest.mark.parametrize("first", ["linear", "convolution"])
def test_a_filter_is_the_image_that_moves_its_unit_most(first):
    shape = (3, 4, 5)
    layer = nn.Conv2d(3, 7, (4, 5)) if first == "convolution" else nn.Sequential(nn.Flatten(), nn.Linear(60, 7))
    one = subject(nn.BatchNorm2d(3), layer, none(), nn.Linear(7, 2), images=torch.zeros(1, *shape))
    images = torch.as_tensor(trained.filters(one)).movedim(-1, 1)
    assert images.shape == (7, *shape)
    moved = (layer(images) - layer(torch.zeros(1, *shape))).reshape(7, 7)
    assert moved.diag().tolist() == pytest.approx(images.square().sum((1, 2, 3)).tolist(), rel=1e-5)


def test_correlation_is_the_mean_over_pairs_of_units_that_vary():
    a, b = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, -1, -1, 1])  # uncorrelated
    one = subject(Dropout(0.5), images=torch.stack([a, -2 * a, b, torch.full((4,), 7.0)], dim=1))
    assert trained.unit_correlation(one, "a") == pytest.approx(1 / 3)  # |-1|, 0 and 0


def test_correlation_is_that_of_the_layer_that_was_named():
    x = torch.tensor([[1.0, 1], [2, -1], [3, -1], [4, 1]])
    one = subject(Dropout(0.5), linear([[1, 0], [1, 0]]), Dropout(0.5), images=x)
    assert trained.unit_correlation(one, "a") == pytest.approx(0, abs=1e-6)
    assert trained.unit_correlation(one, "b") == pytest.approx(1)


def test_correlation_of_maps_is_over_images_and_positions():
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = np.corrcoef(x[:, 0].flatten(), x[:, 1].flatten())[0, 1]
    assert trained.unit_correlation(subject(none(), images=x), "a") == pytest.approx(abs(expected), rel=1e-5)


def test_exactly_the_fraction_of_units_is_gone_and_the_rest_is_as_it_was():
    seen = []
    one = subject(none(0.5), images=torch.ones(2, 8))
    one.net.append(nn.Identity()).register_forward_hook(lambda _, args, out: seen.append(out))
    trained.accuracy_without_units(one, 0.25)
    assert len(seen) == trained.REPEATS
    for out in seen:  # not rescaled, and the same units for both images
        assert sorted(out[0].tolist()) == [0, 0, *6 * [1]]
        assert torch.equal(out[0], out[1])
    assert len({tuple(out[0].tolist()) for out in seen}) > 1
    assert torch.equal(one.net(one.images), one.images)  # and all are back


def test_arms_of_one_seed_meet_the_same_draws_and_other_seeds_other_ones():
    one = one_hidden_layer(images=64)
    for measure_of in (
        lambda one: trained.accuracy_without_units(one, 0.5),
        lambda one: trained.accuracy_with_noise(one, 1.0),
        lambda one: float(trained.sampled_networks(one, 2).sum()),
        lambda one: float(trained.fine_tuned(one, 0.5)[0].weight.detach().sum()),
        lambda one: trained._gradient_variance(one.net.train(), one, torch.arange(64)),
    ):
        first, again, other = (measure_of(replace(one, seed=seed)) for seed in (1, 1, 2))
        assert first == again != other


def test_channels_are_removed_whole():
    seen = []
    one = subject(none(0.5), images=torch.ones(1, 4, 3, 3))
    one.net.append(nn.Identity()).append(nn.Flatten()).register_forward_hook(lambda _, args, out: seen.append(out))
    trained.accuracy_without_units(one, 0.5)
    assert all(out.view(4, 9).sum(1).sort().values.tolist() == [0, 0, 9, 9] for out in seen)


def test_accuracy_is_lost_with_the_units_that_it_hangs_on():
    x = torch.ones(4, 10)
    hangs_on_one = subject(
        none(), linear([10 * [0.0], [1] + 9 * [0.0]], [0.5, 0]), images=x, classes=torch.ones(4).long()
    )
    hangs_on_any = subject(none(), linear([10 * [0.0], 10 * [1.0]], [0.5, 0]), images=x, classes=torch.ones(4).long())
    lost = MEASURES["accuracy_lost/units"]
    assert lost(hangs_on_one, "0.5") == pytest.approx(0.5, abs=0.31)
    assert lost(hangs_on_any, "0.5") == 0
    assert lost(hangs_on_any, "1") == 1


def test_noise_has_the_standard_deviation_that_was_asked_for():
    """Class 1 where the pixel is above 2: of N(0, 2), 15.9 % are."""
    one = subject(linear([[0], [1]], [2, 0]), images=torch.zeros(4000, 1))
    assert MEASURES["accuracy_lost/noise"](one, "2") == pytest.approx(0.1587, abs=0.01)
    assert MEASURES["accuracy_lost/noise"](one, "0") == 0


def test_a_metric_names_the_measure_and_how_much(monkeypatch, tmp_path):
    one = subject(none(), linear([[0.0], [1.0]], [0.5, 0]), images=torch.ones(4, 1), classes=torch.ones(4).long())
    monkeypatch.setattr(trained, "load", lambda folder: one)
    run = Run(tmp_path, "0", "ok")
    assert measure(run, "accuracy_lost/units/1") == 1
    assert measure(run, "accuracy_lost/units/0") == 0
    assert measure(run, "test/ece") == pytest.approx(0.3775, abs=1e-4)  # 1 - 1 / (1 + exp(-0.5))
    assert np.isnan(measure(run, "accuracy_lost"))


@pytest.mark.slow
def test_a_run_is_read_back_with_its_best_weights_and_its_own_data(tmp_path):
    words = ["experiment=robustness", "data.train_size=60", "trainer.max_epochs=5", "logger=csv"]
    with pytest.raises(SystemExit) as ended:
        train_main([*words, "dropout=inverted", "seed=5", f"hydra.run.dir={tmp_path / 'run'}"])
    assert ended.value.code == 0
    one = trained.load(tmp_path / "run")
    assert (len(one.images), len(one.train_images), len(one.train_classes)) == (539, 60, 60)
    assert one.seed == 5
    accuracy = (one.net(one.images).argmax(1) == one.classes).double().mean()
    assert float(accuracy) == evaluate.evaluate(tmp_path / "run")["test/acc"]
    assert abs(float(one.train_images.mean())) < 1e-3  # standardised


def one_hidden_layer(p=0.5, images=7):
    torch.manual_seed(0)
    x = torch.randn(images, 3)
    return subject(nn.Linear(3, 6), nn.ReLU(), Dropout(p), nn.Linear(6, 4), images=x, classes=torch.arange(images) % 4)


def test_the_sample_s_prediction_is_a_mean_of_probabilities():
    """Masks of the layer keep unit 1 or not, so each network is sure of class 0 or of class 1."""
    x = torch.ones(2000, 1)
    one = subject(Dropout(0.25), linear([[0], [100]], [50, 0]), images=x, classes=torch.ones(2000).long())
    probabilities = trained.sampled_networks(one, 64).exp()
    assert float(probabilities[:, 1].mean()) == pytest.approx(0.75, abs=0.01)
    assert float(probabilities[:, 1].std()) == pytest.approx((0.75 * 0.25 / 64) ** 0.5, rel=0.1)


def test_the_sample_is_compared_with_weight_scaling():
    one = subject(Dropout(0.25), linear([[0], [100]], [50, 0]), images=torch.ones(2000, 1))
    assert MEASURES["monte_carlo/acc"](one, "1") == pytest.approx(0.25, abs=0.03)  # weight scaling is always wrong
    assert MEASURES["monte_carlo/loss"](one_hidden_layer(p=0.0), "1") == pytest.approx(0, abs=1e-6)


def test_the_geometric_mean_is_weight_scaling_with_one_hidden_layer_only():
    one = one_hidden_layer(p=0.3)
    assert MEASURES["ensemble/geometric"](one, "") < 1e-6
    one.net.append(nn.ReLU()).append(nn.Linear(4, 4))
    assert MEASURES["ensemble/geometric"](one, "") > 1e-3


def test_the_ensemble_s_loss_is_that_of_the_arithmetic_mean():
    """Half of the networks give class 1 a probability of 1, half of 1/2: log(3/4). Weight scaling is sure."""
    one = subject(Dropout(0.5), linear([[0], [100]]), images=torch.ones(3, 1), classes=torch.ones(3).long())
    assert MEASURES["ensemble/loss"](one, "") == pytest.approx(-np.log(0.75))
    assert MEASURES["ensemble/acc"](one, "") == 0


def test_new_statistics_are_those_of_the_training_part_with_dropout_off():
    torch.manual_seed(0)
    one = subject(Dropout(0.5), nn.BatchNorm1d(2), images=torch.randn(50, 2) * 3 + 1)
    norm = trained.with_new_statistics(one)[1]
    assert torch.allclose(norm.running_mean, one.images.mean(0))
    assert torch.allclose(norm.running_var, one.images.var(0))
    assert not norm.training
    assert torch.equal(one.net[1].running_mean, torch.zeros(2))  # the network is as it was


def test_what_new_statistics_change_is_a_difference():
    """Shifted by its mean of 5, class 1 is right for the larger half of the images; before, for all."""
    x = torch.tensor([[4.0], [6.0]])
    one = subject(nn.BatchNorm1d(1), linear([[0], [1]]), images=x, classes=torch.ones(2).long())
    assert MEASURES["new_statistics/acc"](one, "") == -0.5
    assert MEASURES["new_statistics/loss"](one, "") > 0


def classic_and_inverted():
    """Two networks with the same weights, dropout at two sites; the classic one computes something else."""
    torch.manual_seed(0)
    first, second, x = nn.Linear(3, 6), nn.Linear(6, 4), torch.randn(5, 3)
    return (
        subject(Dropout(0.4, scaling=scaling), first, nn.ReLU(), Dropout(0.2, scaling=scaling), second, images=x)
        for scaling in ("classic", "inverted")
    )


def test_a_network_that_is_folded_or_converted_moves_by_rounding_only():
    for one in classic_and_inverted():
        assert MEASURES["moved/fold"](one, "") < 1e-6
        assert MEASURES["moved/convert"](one, "") < 1e-6
        other = trained.converted(one.net, one.images)
        assert {layer.scaling for layer in (*one.net, *other) if isinstance(layer, Dropout)} == {"classic", "inverted"}


def test_what_moves_is_relative_to_the_largest_logit():
    """The logits -2 p and 3 p change with p of classic dropout from -1 and 1.5 to -1.8 and 2.7."""
    one = subject(Dropout(0.5, scaling="classic"), linear([[-2], [3]]), images=torch.ones(1, 1))
    assert MEASURES["moved/rate"](one, "0.1") == pytest.approx(1.2 / 1.5)


def test_another_p_moves_classic_networks_only():
    classic, inverted = classic_and_inverted()
    assert MEASURES["moved/rate"](inverted, "0.1") == 0
    assert MEASURES["moved/rate"](classic, "0.1") > 0.01


def test_removing_layers_folds_nothing():
    classic, inverted = classic_and_inverted()
    assert MEASURES["removed/loss"](inverted, "") == 0
    assert torch.equal(trained.without_layers(classic.net)(classic.images), inverted.net(inverted.images))
    assert MEASURES["removed/loss"](classic, "") != 0
    assert any(isinstance(layer, Dropout) for layer in classic.net)  # the network is as it was


def test_fine_tuning_trains_a_copy_with_the_new_p():
    one = one_hidden_layer()
    before = {name: value.clone() for name, value in one.net.state_dict().items()}
    tuned = trained.fine_tuned(one, 0.1)
    assert (tuned[2].p, tuned.training) == (0.1, False)
    assert MEASURES["fine_tuned/loss"](one, "0.1") < 0  # on what it was trained on
    assert all(torch.equal(value, before[name]) for name, value in one.net.state_dict().items())
    assert torch.equal(tuned[0].weight, trained.fine_tuned(one, 0.1)[0].weight)


@pytest.mark.slow
def test_dropping_maps_moves_their_means_more_by_the_number_of_pixels_that_agree():
    """In constant maps all pixels do; where they are 1 and -1 in turn dropping a whole map does not move its mean."""
    constant = subject(Dropout(0.5, mask="channel"), images=torch.ones(20, 3, 4, 4))
    assert trained.map_mean_variance(constant) == pytest.approx(16, rel=0.1)
    assert trained.map_mean_variance(constant, "theory") == pytest.approx(1, rel=0.1)
    alternating = torch.tensor([1.0, -1]).repeat(8).view(4, 4).expand(20, 3, 4, 4)
    assert trained.map_mean_variance(subject(Dropout(0.5), images=alternating)) == 0


def test_the_first_layer_with_maps_is_the_one_whose_means_are_looked_at():
    images = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    one = subject(Dropout(0.5), nn.Flatten(), Dropout(0.5), images=images)
    assert trained.map_mean_variance(one, "theory") == pytest.approx(1, rel=0.1)
    assert 8 < trained.map_mean_variance(one) < 16  # mean(x)^2 / mean(x^2) of uniform numbers is 3/4


@pytest.mark.slow
def test_the_same_masks_are_as_noisy_as_one_sample_s_where_samples_agree():
    """Of equal samples the ratio is the number of ranks; of samples that hang on different units it is 1."""
    torch.manual_seed(0)
    units = torch.eye(64)
    agree = subject(Dropout(0.5), linear(torch.randn(2, 64)), images=units[:1].expand(64, -1))
    differ = subject(Dropout(0.5), linear(torch.zeros(2, 64)), images=units)
    assert trained.shared_masks(agree, 4) == pytest.approx(4, rel=0.25)
    assert trained.shared_masks(differ, 4) == pytest.approx(1, rel=0.1)
    assert trained.shared_masks(agree, 1) == 1


def test_gradients_of_masks_have_the_variance_that_theory_says():
    """Logits (0, 0) whatever the mask: the gradient of a weight is m x / q / 2 / 64, and m has variance p q."""
    one = subject(Dropout(0.2), linear(torch.zeros(2, 1)), images=torch.ones(64, 1))
    variance = trained._gradient_variance(one.net.train(), one, torch.arange(64))
    assert variance == pytest.approx(2 * (0.2 / 0.8) / 4 / 64, rel=0.25)


def test_two_ways_of_dropping_are_compared_in_one_network(monkeypatch):
    seen = {"rescaled": 0.75, "unscaled": 0.5, "whole_maps": 0.25}
    monkeypatch.setattr(trained, "crowd", lambda net, images, way, p, seed: Crowd(seen[way], p, seed))
    one = replace(one_hidden_layer(), seed=4)
    assert MEASURES["same_class/rescaled"](one, "0.1") == 0.75
    assert MEASURES["same_class/rescaled-unscaled"](one, "0.1") == 0.25
    assert MEASURES["same_class/whole_maps-rescaled"](one, "0.1") == -0.5
    assert MEASURES["probability/unscaled"](one, "0.1") == 0.1
    assert MEASURES["dark/whole_maps"](one, "0.1") == 4


def test_the_cost_in_eval_mode_is_that_of_one_batch(monkeypatch):
    monkeypatch.setattr(trained, "eval_cost", lambda net, images, what: (len(images), what))
    assert MEASURES["eval_cost"](one_hidden_layer(images=100), "folded") == (trained.BATCH, "folded")


@pytest.mark.slow
def test_an_untrained_vgg16_looking_at_a_photo_moves_by_rounding_when_folded_or_converted():
    """No weights of VGG-16 are at hand: its own initialisation, 224 x 224 pixels, float32, the head's two layers."""
    preset = torchvision.models.VGG16_Weights.IMAGENET1K_V1.transforms()
    photo = preset(Image.fromarray(load_sample_image("china.jpg")))[None]
    torch.manual_seed(0)
    net = torchvision.models.vgg16(num_classes=10)
    for layer in (net.classifier[0], net.classifier[3], net.classifier[6]):
        torch.nn.init.kaiming_uniform_(layer.weight)  # its own is so small that logits are biases only
    install(net, lambda p: Dropout(p, scaling="classic"), Placement("existing", p=0.3))
    one = Trained(net.eval(), photo, torch.zeros(1).long(), photo, torch.zeros(1).long(), seed=0)
    moved = {name: MEASURES[f"moved/{name}"](one, "") for name in ("fold", "convert")}
    assert max(moved.values()) < 1e-5, moved
    assert MEASURES["moved/rate"](one, "0.1") > 0.1
