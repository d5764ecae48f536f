"""Laws of images: what the model sees of them."""

import pytest
import torch
import torch.nn.functional as F
from numbered import Numbered, made, numbers

NAN = float("nan")


def test_pixels_are_standardised_by_the_training_part_alone():
    data = made(train_size=60)
    seen = data.prepare(data.train.inputs)
    assert abs(seen.mean()) < 1e-5
    assert abs(seen.std() - 1) < 1e-5
    outside = sorted({*range(200)} - set(numbers(data.train)))

    class Moved(Numbered):
        """A data set whose samples but for the training part are somewhere else."""

        def load(self):
            samples = super().load()
            samples.inputs[outside] += 1e4
            return samples

    moved = made(Moved, train_size=60)
    assert (moved.mean, moved.std) == (data.mean, data.std)
    assert torch.equal(moved.prepare(moved.train.inputs), seen)
    assert moved.prepare(moved.test.inputs).mean() > 100


@pytest.mark.parametrize("size", [3, 9])
def test_images_are_resized_and_grey_ones_repeated(size):
    data = made(image_size=size, channels=3)
    seen = data.prepare(data.val.inputs)
    assert seen.shape[1:] == data.shape == (3, size, size)
    assert torch.equal(seen[:, 0], seen[:, 2])
    expected = F.interpolate((data.val.inputs - data.mean) / data.std, (size, size), mode="bilinear", antialias=True)
    assert torch.allclose(seen[:, :1], expected, atol=1e-5)


def test_images_are_left_in_their_shape_by_default():
    data = made()
    assert data.prepare(data.val.inputs).shape[1:] == data.shape == (1, 4, 6)


def test_a_model_decides_only_what_was_left_open():
    data = made(image_size=9)
    data.suit(3, 224)
    assert data.shape == (3, 9, 9)
    data = made()
    data.suit(3, 224)
    assert data.shape == (3, 224, 224)


def test_channels_that_are_not_there_are_refused():
    class Colour(Numbered):
        native_shape = (3, 4, 6)

    assert made(Colour, channels=3).shape == (3, 4, 6)
    with pytest.raises(ValueError, match=r"data.channels=1: these images have 3"):
        _ = made(Colour, channels=1).shape


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        ("channels", [0, 2.5, "grey", True], "an integer >= 1, or null"),
        ("image_size", [0, 8.5, "large", True], "an integer >= 1, or null"),
        ("augment", ["rotate", 3, True], "crop_flip or resized_crop_flip, or null"),
        ("mixup", [-0.1, NAN, float("inf"), "much", None, True], r"a number >= 0, the alpha of Beta\(alpha, alpha\); "),
    ],
)
def test_a_value_that_an_argument_cannot_have_is_refused_with_what_it_may_be(key, values, allowed):
    for value in values:
        with pytest.raises(ValueError, match=f"^data.{key}={value}: must be {allowed}"):
            made(**{key: value}, setup=False)
