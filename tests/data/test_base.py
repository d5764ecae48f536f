"""Laws of data in parts: the split, the sizes of its parts, folds, and batches over processes."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered import Numbered, made, numbers

from dropout_lab.data import DataModule, Samples, Undivided

PARTS = ("train", "val", "test")
NAN = float("nan")


class Line(Undivided):
    """100 samples whose one feature is their number, and whose target is ten times that."""

    shape = (1,)

    def load(self):
        number = torch.arange(100.0)[:, None]
        return Samples(number, 10 * number)

    def prepare(self, inputs):
        return inputs


class Official(DataModule):
    """A data set whose test part is given: samples 80 to 99 of a line."""

    shape = (1,)

    def parts(self):
        whole = made(Line, setup=False).load()
        return (*self.without_val(whole.take(slice(80))), whole.take(slice(80, None)))

    def prepare(self, inputs):
        return inputs


def lines(samples):
    return samples.inputs[:, 0].long().tolist()


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
    assert [len(getattr(data, part).targets) for part in PARTS] == [130, 20, 50]


def test_every_part_has_the_shares_of_classes_of_the_whole():
    data = made()
    for part in PARTS:
        counts = torch.bincount(getattr(data, part).targets)
        assert (counts / counts.sum() - torch.tensor([0.4, 0.3, 0.2, 0.1])).abs().max() < 0.02


def test_images_keep_their_classes():
    whole = made(setup=False).load()
    data = made(train_size=40)
    for part in (*PARTS, "train_eval"):
        samples = getattr(data, part)
        assert torch.equal(samples.targets, whole.targets[numbers(samples)])


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
    assert len(data.train_eval.targets) == len(data.val.targets)


def test_train_eval_is_all_of_a_training_set_smaller_than_validation():
    data = made(train_size=12)
    assert sorted(numbers(data.train_eval)) == sorted(numbers(data.train))


@pytest.mark.parametrize("size", [8, 14, 37, 110])
def test_a_training_subset_has_as_many_of_each_class_as_can_be(size):
    whole, counts = torch.bincount(made().train.targets), torch.bincount(made(train_size=size).train.targets)
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
        ("folds", [0, 1, 2.5, "all", True], "an integer >= 2, or null"),
        ("fold", [1, -1, 0.5, None], "0 without data.folds=K, the number of folds"),
        ("one_batch", [1, "yes", None], "true or false"),
    ],
)
def test_a_value_that_an_argument_cannot_have_is_refused_with_what_it_may_be(key, values, allowed):
    for value in values:
        with pytest.raises(ValueError, match=f"^data.{key}={value}: must be {allowed}"):
            made(**{key: value}, setup=False)


@pytest.mark.parametrize("value", [0, 1, np.float32(0.5)])
def test_ends_and_numbers_of_any_kind_are_taken(value):
    assert made(label_noise=value, split_seed=np.int64(3), setup=False).label_noise == value


@pytest.mark.parametrize(("shift", "there"), [(0, "0 to 3"), (1, "1 to 4"), (-1, "-1 to 2")])
def test_classes_without_an_output_are_refused(shift, there):
    class Shifted(Numbered):
        num_classes = 4 if shift else 3

        def load(self):
            samples = made(setup=False).load()
            return Samples(samples.inputs, samples.targets + shift)

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


def test_the_batch_hook_prepares_images_and_keeps_classes():
    data = made()
    images, classes = data.on_after_batch_transfer((data.val.inputs, data.val.targets), 0)
    assert torch.equal(images, data.prepare(data.val.inputs))
    assert classes is data.val.targets


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
        data.val = Samples(data.val.inputs[:1].expand(size, -1, -1, -1), torch.zeros(size).long())
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


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 12), st.integers(0, 3))
def test_the_test_parts_of_all_folds_are_the_whole_each_sample_once_with_its_classes_evenly_spread(folds, seed):
    each = [made(folds=folds, fold=fold, split_seed=seed) for fold in range(folds)]
    assert sorted(number for data in each for number in numbers(data.test)) == list(range(200))
    for counts in torch.stack([torch.bincount(data.test.targets, minlength=4) for data in each]).T:
        assert counts.max() - counts.min() <= 1
    for data in each:
        assert len({*numbers(data.train), *numbers(data.val), *numbers(data.test)}) == 200


def test_folds_of_numbers_are_the_whole_too_and_follow_the_split_seed():
    each = [lines(made(Line, folds=5, fold=fold).test) for fold in range(5)]
    assert sorted(number for test in each for number in test) == list(range(100))
    assert lines(made(Line, folds=5, split_seed=1).test) not in each


def test_where_the_test_part_is_given_folds_are_validation_parts():
    each = [made(Official, folds=4, fold=fold) for fold in range(4)]
    assert sorted(number for data in each for number in lines(data.val)) == list(range(80))
    assert all(lines(data.test) == list(range(80, 100)) for data in each)


def test_folds_of_what_says_its_parts_itself_are_refused_not_left_out():
    class Fixed(Numbered):
        def parts(self):
            whole = self.load()
            return whole, whole, whole

    assert made(Fixed).train is not None
    with pytest.raises(ValueError, match=r"^data.folds=5: must be null: Fixed says itself what training, validation"):
        made(Fixed, folds=5, fold=1)


@pytest.mark.parametrize(("kind", "folds", "few"), [(Line, 101, "there are 100"), (Numbered, 21, "class has 20")])
def test_more_folds_than_samples_are_refused(kind, folds, few):
    with pytest.raises(ValueError, match=f"^data.folds={folds}: .*{few}; take fewer"):
        made(kind, folds=folds)


def test_numbers_keep_to_their_samples_are_split_at_random_and_cut_to_the_first():
    data = made(Line)
    for part in PARTS:
        samples = getattr(data, part)
        assert torch.equal(samples.targets, 10 * samples.inputs)
    assert [len(getattr(data, part).targets) for part in PARTS] == [55, 15, 30]
    assert lines(made(Line, train_size=20).train) == lines(data.train)[:20]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 56}, "data.train_size=56: must be between 1 and 55, or null for all"),
        ({"label_noise": 0.1}, "data.label_noise=0.1: must be 0 here, as targets are numbers and no classes"),
        ({"val_fraction": 0.001}, "data.val_fraction=0.001 is 0 of 70 samples, but both parts need one$"),
    ],
)
def test_what_numbers_do_not_have_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        made(Line, **options)


@pytest.mark.parametrize("targets", [torch.arange(100), torch.arange(100.0), torch.full((100, 1), NAN)])
def test_targets_that_are_no_finite_numbers_are_refused(targets):
    class Other(Line):
        def load(self):
            return Samples(torch.arange(100.0)[:, None], targets)

    with pytest.raises(ValueError, match=r"^the targets of Other must be finite numbers \(N, k\), or classes"):
        made(Other)


def test_one_batch_is_the_same_samples_as_they_are_whatever_changes_training_batches():
    data = made(one_batch=True, mixup=1.0, augment="crop_flip")
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, training=True, precision_plugin=None)
    loader = data.train_dataloader()
    batch = next(iter(loader))
    seen = data.on_after_batch_transfer(batch, 0)
    assert len(loader) == 1
    assert torch.equal(seen[0], data.prepare(batch[0]))
    assert torch.equal(seen[1], batch[1])
    loader.sampler.set_epoch(1)
    assert sorted(numbers(Samples(*next(iter(loader))))) == sorted(numbers(Samples(*batch)))


def test_a_model_of_images_is_refused_where_samples_are_none():
    with pytest.raises(ValueError, match=r"^the model takes images, but samples of Line have the shape \(1,\)"):
        made(Line).suit(3, 224)
