"""Laws of the order of training: which samples are in which batch, whatever the number of processes."""

import pytest
import torch

from dropout_lab.data import GlobalBatches


def batches(size=50, batch_size=12, seed=0, epoch=0, **where):
    sampler = GlobalBatches(size, batch_size, seed, **where)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_batch_is_a_function_of_seed_epoch_and_step():
    torch.manual_seed(1)
    first = batches(seed=3, epoch=2)
    torch.manual_seed(2)
    torch.rand(10)
    assert torch.equal(torch.stack(first), torch.stack(batches(seed=3, epoch=2)))
    used = GlobalBatches(50, 12, 3)
    for epoch in (0, 1):
        used.set_epoch(epoch)
        list(used)
    used.set_epoch(2)  # what was drawn before does not matter
    assert torch.equal(torch.stack(first), torch.stack(list(used)))


@pytest.mark.parametrize("other", [{"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}, {"seed": 2, "epoch": 3}])
def test_another_seed_or_epoch_is_another_order(other):
    assert not torch.equal(torch.stack(batches(seed=3, epoch=2)), torch.stack(batches(**other)))


def test_no_sample_comes_twice_in_an_epoch():
    indices = torch.cat(batches())
    assert len(indices.unique()) == len(indices)
    assert indices.min() >= 0
    assert indices.max() < 50


def test_the_short_last_batch_is_dropped_and_others_miss_out_in_other_epochs():
    missed = set()
    for epoch in range(20):
        found = batches(epoch=epoch)
        assert [len(batch) for batch in found] == [12] * 4 == [12] * len(GlobalBatches(50, 12, 0))
        missed |= {*range(50)} - set(torch.cat(found).tolist())
    assert len(missed) > 20


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 12])
def test_any_number_of_ranks_gives_the_batches_of_one(world_size):
    ranks = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, one in enumerate(batches()):
        rows = [rank[step] for rank in ranks]
        assert {len(own) for own in rows} == {12 // world_size}
        assert torch.equal(torch.cat(rows), one)  # contiguous rows, in the order of the ranks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 10, "batch_size": 11}, "data.batch_size=11 is larger than the training set of 10 samples"),
        ({"size": 50, "batch_size": 10, "world_size": 4}, "data.batch_size=10 .* divisible by their number, 4"),
    ],
)
def test_a_batch_size_that_cannot_be_had_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GlobalBatches(seed=0, **arguments)


def test_a_batch_may_be_the_whole_training_set():
    assert sorted(torch.cat(batches(size=10, batch_size=10)).tolist()) == list(range(10))
