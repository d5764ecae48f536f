"""Laws of the synthetic task: reproducible, balanced, as difficult as asked."""

import re

import pytest
import torch

from dropout_lab.data import Synthetic


def made(**options):
    defaults = {"size": 500, "shape": [2, 3, 4], "num_classes": 5, "noise": 2.0, "batch_size": 8, "seed": 0}
    return Synthetic(**{**defaults, **options})


def test_the_samples_are_a_function_of_the_split_seed_alone():
    torch.manual_seed(1)
    first = made(seed=0).load()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second, other = made(seed=1).load(), made(split_seed=1).load()
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets, second.targets)
    assert not torch.equal(first.inputs, other.inputs)
    assert torch.equal(before, torch.get_rng_state())


def test_shape_and_number_of_classes_are_as_asked():
    data = made(size=502)
    samples = data.load()
    assert samples.inputs.shape == (502, *data.shape) == (502, 2, 3, 4)
    assert torch.bincount(samples.targets).tolist() == [101, 101, 100, 100, 100]
    assert data.num_classes == 5


def test_the_noise_has_the_standard_deviation_that_was_asked_for():
    clean, noisy = made(noise=0.0).load(), made(noise=3.0).load()
    assert abs((noisy.inputs - clean.inputs).std() - 3) < 0.05
    for number in range(5):  # without noise a class is one image
        assert len(clean.inputs[clean.targets == number].unique(dim=0)) == 1
    assert len(clean.inputs.unique(dim=0)) == 5


def test_a_size_too_small_for_its_classes_is_refused():
    with pytest.raises(ValueError, match=r"data.test_fraction=0.3 is 3 of 10 samples"):
        made(size=10).setup()


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        ("size", [0, 2.5, "many", None], "an integer >= 1"),
        ("num_classes", [1, 2.5, "many", None, True], "an integer >= 2"),
        ("noise", [-1, float("nan"), float("inf"), "much", None, True], "a number >= 0"),
        (
            "shape",
            [8, [8, 8], [1, 0, 8], [1, 8.0, 8], "188", None],
            "a list of 3 integers >= 1: channels, height, width",
        ),
    ],
)
def test_a_task_that_cannot_be_made_is_refused_by_the_name_of_its_key(key, values, allowed):
    for value in values:
        with pytest.raises(ValueError, match=f"^{re.escape(f'data.{key}={value}: must be {allowed}')}$"):
            made(**{key: value})
