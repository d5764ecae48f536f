"""Laws of splits, label noise and statistics a channel, for images in bytes and in floating point."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.data import InMemoryData, Samples, Synthetic
from dropout_lab.data.samples import mean_and_std, mislabel, split


def bytes_of(count, *shape, seed=0):
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


class Photos(InMemoryData):
    """A data set of 300 images in three channels of different mean and contrast."""

    native_shape, num_classes, as_bytes = (3, 4, 5), 5, True

    def load(self):
        scale, shift = torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1), torch.tensor([100, 20, 0]).view(3, 1, 1)
        images = (bytes_of(300, 3, 4, 5) * scale + shift).to(torch.uint8)
        return Samples(images if self.as_bytes else images.float() / 255, torch.arange(300) % 5)


class Floats(Photos):
    as_bytes = False


def made(kind=Photos, **options):
    data = kind(**{"batch_size": 8, "seed": 0, **options})
    data.setup()
    return data


@given(
    counts=st.lists(st.integers(1, 12), min_size=2, max_size=5), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 9)
)
def test_both_parts_of_a_split_have_every_class_or_it_is_refused_by_the_key(counts, fraction, seed):
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    samples = Samples(torch.arange(len(classes)), classes)
    parts, told = (), ""
    try:
        parts = split(samples, "val_fraction", fraction, len(classes), len(counts), seed)
    except ValueError as error:
        told = str(error)
    refused = (
        rf"data.val_fraction={fraction}( is \d+|: class \d has \d+) of {len(classes)} samples, .* (both|two) parts"
    )
    assert bool(parts) != bool(re.match(refused, told))
    assert all((part.targets.bincount(minlength=len(counts)) > 0).all() for part in parts)
    assert not parts or torch.equal(torch.cat([part.inputs for part in parts]).sort().values, samples.inputs)


@pytest.mark.parametrize(
    ("rare", "fraction", "remedy"),
    [(1, 0.5, "give it at least 2"), (2, 0.1, "give it more, or change data.val_fraction")],
)
def test_a_class_too_rare_for_both_parts_is_named(rare, fraction, remedy):
    samples = Samples(torch.zeros(40 + rare), torch.tensor([0, 2] * 20 + [1] * rare))
    expected = (
        rf"^data.val_fraction={fraction}: folder 1 has {rare} of {40 + rare} samples, too few .* two parts; {remedy}$"
    )
    with pytest.raises(ValueError, match=expected):
        split(samples, "val_fraction", fraction, 40, 3, 0, "folder {}".format)


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 1.0])
def test_exactly_the_given_share_of_the_training_labels_is_wrong(fraction):
    clean, noisy = made(), made(label_noise=fraction)
    wrong = noisy.train.targets != clean.train.targets
    assert wrong.sum() == round(fraction * len(clean.train.targets))
    assert noisy.train.targets.min() >= 0
    assert noisy.train.targets.max() < 5
    assert torch.equal(noisy.train.inputs, clean.train.inputs)
    assert torch.equal(noisy.train_eval.targets, noisy.train.targets[: len(noisy.train_eval.targets)])


def test_the_share_is_of_the_training_samples_that_are_used():
    clean, noisy = made(train_size=40), made(train_size=40, label_noise=0.3)
    assert (clean.train.targets != noisy.train.targets).sum() == 12
    assert torch.equal(clean.train.inputs, noisy.train.inputs)


def test_validation_and_test_labels_stay_right():
    clean, noisy = made(), made(label_noise=1.0)
    for part in ("val", "test"):
        for before, after in zip(getattr(clean, part), getattr(noisy, part), strict=True):
            assert torch.equal(before, after)


def test_label_noise_follows_the_split_seed_and_nothing_else():
    torch.manual_seed(1)
    first = made(label_noise=0.5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    same, other = made(label_noise=0.5, seed=1), made(label_noise=0.5, split_seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.train.targets, same.train.targets)
    assert not torch.equal(first.train.targets, other.train.targets)


def test_each_other_class_is_as_likely_and_so_is_each_sample():
    count = 40000
    clean = Samples(torch.zeros(count, 1, 1, 1), torch.arange(count) % 5)
    noisy = mislabel(clean, 0.5, 5, seed=0)
    counts = torch.zeros(5, 5).index_put((clean.targets, noisy.targets), torch.ones(()), accumulate=True)
    counts.fill_diagonal_(1000)
    assert ((counts - 1000) ** 2 / 1000).sum() < 52  # chi-square, 20 cells: above with probability 1e-4
    wrong = (clean.targets != noisy.targets).view(40, 1000).sum(1)
    assert (wrong - 500).abs().max() < 70  # 4.4 standard deviations


def test_synthetic_data_take_label_noise_too():
    options = {"size": 200, "shape": [1, 2, 2], "num_classes": 4, "noise": 1.0}
    clean, noisy = (made(Synthetic, **options, label_noise=noise) for noise in (0.0, 0.2))
    assert (clean.train.targets != noisy.train.targets).sum() == round(0.2 * len(clean.train.targets))


def test_mean_and_standard_deviation_are_of_each_channel():
    images = bytes_of(50, 3, 7, 9)
    images[:, 1] //= 2
    mean, std = mean_and_std(images)
    for channel in range(3):
        pixels = images[:, channel].double() / 255
        assert mean[channel].item() == pytest.approx(pixels.mean().item(), rel=1e-6)
        assert std[channel].item() == pytest.approx(pixels.std().item(), rel=1e-6)
    for exact, found in zip((mean, std), mean_and_std(images.double() / 255), strict=True):
        assert torch.allclose(exact, found, rtol=1e-6)
        assert exact.shape == found.shape == (3, 1, 1)
        assert exact.dtype == found.dtype == torch.float32


def test_every_channel_of_the_training_part_is_standardised():
    data = made()
    seen = data.prepare(data.train.inputs)
    assert seen.mean((0, 2, 3)).abs().max() < 1e-5
    assert (seen.std((0, 2, 3)) - 1).abs().max() < 1e-5
    assert data.mean.max() - data.mean.min() > 0.1


def test_bytes_give_the_numbers_that_floats_give():
    data, floats = made(), made(Floats)
    assert data.train.inputs.dtype == torch.uint8
    assert torch.allclose(data.mean, floats.mean, rtol=1e-6)
    assert torch.allclose(data.std, floats.std, rtol=1e-6)
    floats.mean, floats.std = data.mean, data.std
    assert torch.equal(data.prepare(data.val.inputs), floats.prepare(floats.val.inputs))


def test_preparing_a_batch_leaves_the_images_as_they_are():
    for data in (made(), made(Floats)):
        before = data.train.inputs.clone()
        data.prepare(data.train.inputs)
        data.prepare(data.train.inputs.half() if data.train.inputs.is_floating_point() else data.train.inputs)
        assert torch.equal(data.train.inputs, before)


@pytest.mark.parametrize("kind", [Photos, Floats])
@pytest.mark.parametrize("value", [0, 7, 77, 171, 255])
def test_a_channel_without_contrast_is_no_division_by_rounding_errors(value, kind):
    class Grey(kind):
        def load(self):
            images, classes = super().load()
            images[:, 1] = value if self.as_bytes else value / 255
            return Samples(images, classes)

    data = made(Grey)
    assert data.prepare(data.test.inputs)[:, 1].abs().max() < 1e-6


def test_half_precision_images_are_standardised_in_float32():
    data = made(Floats)
    rounded = data.test.inputs.bfloat16()
    seen = data.prepare(rounded)
    assert seen.dtype == torch.bfloat16
    assert torch.equal(seen, ((rounded.float() - data.mean) / data.std).bfloat16())
