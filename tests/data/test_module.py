"""Laws of data in memory: the split, the sizes of its parts, what the model sees, and evaluation over processes."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dropout_lab.data import InMemoryData, Samples

PARTS = ("train", "val", "test")
NAN = float("nan")


class Numbered(InMemoryData):
    """A data set of 200 images; the one pixel that is not noise is the number of the sample."""

    native_shape = (1, 4, 6)
    num_classes = 4
    size = 200

    def load(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.size, *self.native_shape, generator=generator) * 3 + 5
        images[:, 0, 0, 0] = torch.arange(self.size)
        shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
        classes = torch.arange(self.num_classes).repeat_interleave((shares * self.size).round().long())
        return Samples(images, classes)


def made(kind=Numbered, setup=True, **options):
    data = kind(**{"batch_size": 8, "seed": 0, **options})
    if setup:
        data.setup()
    return data


def numbers(samples):
    return samples.images[:, 0, 0, 0].long().tolist()


def loaded(loader):
    return [batch for batch, _ in loader]


def on_rank(data, rank, world_size):
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    return data


def test_no_sample_is_in_two_parts_and_none_is_lost():
    data = made()
    found = [number for part in PARTS for number in numbers(getattr(data, part))]
    assert sorted(found) == list(range(200))


def test_the_parts_have_the_sizes_that_were_asked_for():
    data = made(val_fraction=0.1, test_fraction=0.25)
    assert [len(getattr(data, part).classes) for part in PARTS] == [130, 20, 50]


def test_every_part_has_the_shares_of_classes_of_the_whole():
    data = made()
    for part in PARTS:
        counts = torch.bincount(getattr(data, part).classes)
        assert (counts / counts.sum() - torch.tensor([0.4, 0.3, 0.2, 0.1])).abs().max() < 0.02


def test_images_keep_their_classes():
    whole = made(setup=False).load()
    data = made(train_size=40)
    for part in (*PARTS, "train_eval"):
        samples = getattr(data, part)
        assert torch.equal(samples.classes, whole.classes[numbers(samples)])


def test_the_split_follows_its_own_seed_and_not_the_seed_of_training():
    first, same, other = made(seed=0), made(seed=1), made(seed=0, split_seed=1)
    for part in PARTS:
        assert numbers(getattr(first, part)) == numbers(getattr(same, part))
        assert set(numbers(getattr(first, part))) != set(numbers(getattr(other, part)))


def test_the_order_of_training_follows_the_seed_and_the_epoch():
    def order(seed, epoch):
        loader = made(seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat(loaded(loader))[:, 0, 0, 0].long().tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_training_and_evaluation_leave_torchs_generator_alone():
    data = made()
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), *data.val_dataloader(), data.test_dataloader()):
        loaded(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_train_eval_is_a_part_of_training_as_large_as_validation():
    data = made()
    assert set(numbers(data.train_eval)) < set(numbers(data.train))
    assert len(data.train_eval.classes) == len(data.val.classes)


def test_train_eval_is_all_of_a_training_set_smaller_than_validation():
    data = made(train_size=12)
    assert sorted(numbers(data.train_eval)) == sorted(numbers(data.train))


@pytest.mark.parametrize("size", [8, 14, 37, 110])
def test_a_training_subset_has_as_many_of_each_class_as_can_be(size):
    whole, counts = torch.bincount(made().train.classes), torch.bincount(made(train_size=size).train.classes)
    assert counts.sum() == size
    most = counts.max()
    assert all(count >= most - 1 or count == all_of for count, all_of in zip(counts, whole, strict=True))


def test_training_subsets_lie_within_each_other_and_leave_the_other_parts_alone():
    found = [made(train_size=size) for size in (8, 30, 100)] + [made()]
    for smaller, larger in pairwise(found):
        assert set(numbers(smaller.train)) < set(numbers(larger.train))
        assert numbers(smaller.val) == numbers(larger.val)
        assert numbers(smaller.test) == numbers(larger.test)


def test_all_training_samples_by_number_are_the_same_as_all_by_default():
    assert numbers(made(train_size=110).train) == numbers(made().train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, r"data.train_size=0: must be an integer >= 1, or null$"),
        ({"train_size": 111}, r"data.train_size=111: must be between 4 \(one a class\) and 110, or null for all"),
        ({"train_size": 3, "batch_size": 2}, "data.train_size=3: must be between 4"),
        ({"train_size": 7}, "data.train_size=7: must be at least data.batch_size=8"),
        ({"val_fraction": 0.01}, "data.val_fraction=0.01 is 2 of 140 samples, but both parts need one of each of 4"),
        ({"val_fraction": 0.7}, "data.val_fraction=0.7 is 140 of 140"),
        ({"test_fraction": 0.99}, "data.test_fraction=0.99 is 198 of 200"),
    ],
)
def test_sizes_that_cannot_be_had_are_refused_by_the_name_of_their_key(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        ("split_seed", [-1, 2**32, 1.5, "0", None, True], r"an integer with 0 <= split_seed < 2\^32"),
        ("val_fraction", [0, 1, 1.5, NAN, "half", None, True], "a number with 0 < val_fraction < 1"),
        ("test_fraction", [0.0, 1.0, -0.5, NAN, "half", None, False], "a number with 0 < test_fraction < 1"),
        ("train_size", [0, 100.5, "all", True], "an integer >= 1, or null"),
        ("label_noise", [-0.1, 1.1, NAN, "much", None, True], "a number with 0 <= label_noise <= 1"),
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


@pytest.mark.parametrize("value", [0, 1, np.float32(0.5)])
def test_ends_and_numbers_of_any_kind_are_taken(value):
    assert made(label_noise=value, mixup=value, split_seed=np.int64(3), setup=False).label_noise == value


@pytest.mark.parametrize(("shift", "there"), [(0, "0 to 3"), (1, "1 to 4"), (-1, "-1 to 2")])
def test_classes_without_an_output_are_refused(shift, there):
    class Shifted(Numbered):
        num_classes = 4 if shift else 3

        def load(self):
            samples = made(setup=False).load()
            return Samples(samples.images, samples.classes + shift)

    with pytest.raises(ValueError, match=f"^the classes of Shifted are numbered {there}, but num_classes="):
        made(Shifted)


def test_more_classes_than_outputs_are_refused_before_a_split_that_has_too_few_samples_for_them():
    class Three(Numbered):
        num_classes = 3

        def load(self):
            return made(setup=False).load()

    with pytest.raises(ValueError, match=r"^the classes of Three are numbered 0 to 3, but num_classes=3"):
        made(Three, test_fraction=0.015)


def test_a_batch_larger_than_the_training_set_is_refused_when_training_starts():
    data = made(batch_size=111)
    with pytest.raises(ValueError, match=r"data.batch_size=111 is larger than the training set of 110 samples"):
        data.train_dataloader()


def test_pixels_are_standardised_by_the_training_part_alone():
    data = made(train_size=60)
    seen = data.prepare(data.train.images)
    assert abs(seen.mean()) < 1e-5
    assert abs(seen.std() - 1) < 1e-5
    outside = sorted({*range(200)} - set(numbers(data.train)))

    class Moved(Numbered):
        """A data set whose samples but for the training part are somewhere else."""

        def load(self):
            samples = super().load()
            samples.images[outside] += 1e4
            return samples

    moved = made(Moved, train_size=60)
    assert (moved.mean, moved.std) == (data.mean, data.std)
    assert torch.equal(moved.prepare(moved.train.images), seen)
    assert moved.prepare(moved.test.images).mean() > 100


def test_the_batch_hook_prepares_images_and_keeps_classes():
    data = made()
    images, classes = data.on_after_batch_transfer((data.val.images, data.val.classes), 0)
    assert torch.equal(images, data.prepare(data.val.images))
    assert classes is data.val.classes


@pytest.mark.parametrize("size", [3, 9])
def test_images_are_resized_and_grey_ones_repeated(size):
    data = made(image_size=size, channels=3)
    seen = data.prepare(data.val.images)
    assert seen.shape[1:] == data.shape == (3, size, size)
    assert torch.equal(seen[:, 0], seen[:, 2])
    expected = F.interpolate((data.val.images - data.mean) / data.std, (size, size), mode="bilinear", antialias=True)
    assert torch.allclose(seen[:, :1], expected, atol=1e-5)


def test_images_are_left_in_their_shape_by_default():
    data = made()
    assert data.prepare(data.val.images).shape[1:] == data.shape == (1, 4, 6)


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


def test_ranks_train_on_the_batches_of_one():
    one = loaded(made().train_dataloader())
    two = [loaded(on_rank(made(), rank, 2).train_dataloader()) for rank in (0, 1)]
    assert len(one) == 13
    for whole, *halves in zip(one, *two, strict=True):
        assert torch.equal(torch.cat(halves), whole)


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_evaluate_the_batches_of_one_in_contiguous_rows(world_size):
    """Contiguous, so that the first batch, which the probe runs, is the same at any number of ranks."""
    for which in (0, 1):
        one = loaded(made(batch_size=3).val_dataloader()[which])
        many = [loaded(on_rank(made(batch_size=3), n, world_size).val_dataloader()[which]) for n in range(world_size)]
        assert len(one) == 3
        for whole, *parts in zip(one, *many, strict=True):
            assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_covers_every_sample_once_at_any_number_of_ranks(world_size):
    data = made(batch_size=7 if world_size == 7 else 6)
    loaders = [(data.val, 0), (data.train_eval, 1)]
    for samples, which in loaders:
        found = [loaded(on_rank(data, rank, world_size).val_dataloader()[which]) for rank in range(world_size)]
        seen = torch.cat([batch for batches in found for batch in batches])
        assert sorted(seen[:, 0, 0, 0].long().tolist()) == sorted(numbers(samples))
    found = [loaded(on_rank(data, rank, world_size).test_dataloader()) for rank in range(world_size)]
    seen = torch.cat([batch for batches in found for batch in batches])
    assert sorted(seen[:, 0, 0, 0].long().tolist()) == sorted(numbers(data.test))


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_every_rank_evaluates_as_many_batches(world_size):
    """Ranks whose weights are sharded (FSDP) meet in each forward pass: one batch more would wait for ever."""
    for size in range(28, 42):
        data = made(batch_size=1)
        data.val = Samples(data.val.images[:1].expand(size, -1, -1, -1), torch.zeros(size).long())
        found = {len(loaded(on_rank(data, rank, world_size).val_dataloader()[0])) for rank in range(world_size)}
        assert len(found) == 1, size


def test_evaluation_batches_are_at_most_four_training_batches():
    for batch_size in (1, 3, 8, 110):
        sizes = [len(batch) for batch in loaded(made(batch_size=batch_size).test_dataloader())]
        assert max(sizes) <= 4 * batch_size
        assert sum(sizes) == 60


def test_setting_up_again_changes_nothing():
    data = made()
    before = data.train
    data.setup("test")
    assert data.train is before
