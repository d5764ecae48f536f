"""The digits are scikit-learn's, in the form that models want."""

import pytest
import torch
from sklearn.datasets import load_digits

from dropout_lab.data import Digits


@pytest.fixture(scope="module")
def data():
    digits = Digits(batch_size=64, seed=0)
    digits.setup()
    return digits


def test_the_images_are_scikit_learns_between_0_and_1(data):
    samples, (images, classes) = data.load(), load_digits(return_X_y=True)
    assert samples.inputs.shape == (1797, *data.shape) == (1797, 1, 8, 8)
    assert samples.inputs.dtype == torch.float32
    assert torch.equal(samples.inputs.flatten(1) * 16, torch.as_tensor(images, dtype=torch.float32))
    assert samples.targets.dtype == torch.int64
    assert samples.targets.tolist() == classes.tolist()
    assert data.num_classes == 10


def test_the_parts_are_988_270_and_539_images(data):
    assert [len(part.targets) for part in (data.train, data.val, data.test)] == [988, 270, 539]


def test_every_part_has_the_ten_digits_in_equal_shares(data):
    for part in (data.train, data.val, data.test):
        share = torch.bincount(part.targets) / len(part.targets)
        assert len(share) == 10
        assert (share - 0.1).abs().max() < 0.01


def test_what_a_job_does_to_its_samples_does_not_reach_the_next(data):
    samples, again = data.load(), data.load()
    samples.inputs.zero_()
    samples.targets.zero_()
    assert again.inputs.any()
    assert torch.equal(data.load().inputs, again.inputs)
    assert torch.equal(data.load().targets, again.targets)
