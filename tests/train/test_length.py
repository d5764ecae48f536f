"""Laws of the length of training: batches, steps and the first validation are those of Lightning's loop."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.cli import UserError
from dropout_lab.train.length import batches, planned_length, require_validation


@pytest.mark.parametrize(("limit", "count"), [(None, 8), (3, 3), (30, 8), (0.5, 4), (0.99, 7), (1.0, 8), (1, 1)])
def test_a_limit_is_a_number_of_batches_or_a_fraction_of_those_there_are(limit, count):
    assert batches({"limit_val_batches": limit}, "val", 8) == count


def test_a_fraction_of_less_than_one_batch_is_refused():
    with pytest.raises(UserError, match=r"^trainer\.limit_test_batches=0\.1: .* one batch of 8"):
        batches({"limit_test_batches": 0.1}, "test", 8)


def simulated(trainer, epoch):
    """Optimizer steps of a loop over epochs and batches as Lightning's, and after how many of them it validates first.

    The gradients of an epoch's last batches make a step of their own.
    """
    every, interval = trainer["check_val_every_n_epoch"], trainer["val_check_interval"]
    within = interval if isinstance(interval, int) else max(1, int(epoch * interval))
    done, seen, first = 0, 0, None
    for number in range(trainer["max_epochs"]) if trainer["max_epochs"] > 0 else count():
        for batch in range(epoch):
            seen += 1
            done += (batch + 1) % trainer["accumulate_grad_batches"] == 0 or batch + 1 == epoch
            due = seen if every is None else batch + 1
            if first is None and due % within == 0 and (every is None or (number + 1) % every == 0):
                first = done
            if done == trainer["max_steps"]:
                return done, first
    return done, first


trainers = st.fixed_dictionaries(
    {
        "max_epochs": st.sampled_from([-1, 1, 2, 3, 4]),
        "max_steps": st.sampled_from([-1, 1, 2, 3, 5, 8]),
        "accumulate_grad_batches": st.integers(1, 3),
        "check_val_every_n_epoch": st.sampled_from([1, 2, 3, None]),
        "val_check_interval": st.one_of(st.integers(1, 6), st.sampled_from([0.3, 0.5, 1.0])),
    }
)


ending = trainers.filter(lambda trainer: trainer["max_epochs"] + trainer["max_steps"] > -2)


@given(ending, st.integers(1, 6))
def test_steps_and_the_first_validation_are_those_of_a_loop(trainer, epoch):
    every, interval = trainer["check_val_every_n_epoch"], trainer["val_check_interval"]
    done, first = simulated(trainer, epoch)
    assert planned_length(trainer, epoch).steps == done
    never = (every is None) != isinstance(interval, int) and every is None
    if never or (every is not None and isinstance(interval, int) and interval > epoch) or first is None:
        with pytest.raises(UserError, match=r"^trainer\.(max|val|check)"):
            require_validation(trainer, epoch)
    else:
        require_validation(trainer, epoch)


def test_a_length_has_the_batches_that_a_limit_leaves():
    """Of eight batches five: three steps of two, two and one."""
    limited = {"max_epochs": 4, "limit_train_batches": 5, "accumulate_grad_batches": 2}
    assert planned_length(limited, 8) == (4, 12, 20)
    assert planned_length({**limited, "max_epochs": -1, "max_steps": 8}, 8) == (3, 8, 14)


def test_what_comes_too_late_is_named_with_when_it_would_come():
    with pytest.raises(UserError, match=r"^trainer\.max_steps=3: .* after 4 steps;"):
        require_validation({"max_epochs": 9, "max_steps": 3}, 4)
    with pytest.raises(UserError, match=r"^trainer\.max_steps=3: .* after 4 steps;"):
        require_validation({"max_epochs": -1, "max_steps": 3}, 4)
    with pytest.raises(UserError, match=r"^trainer\.max_epochs=2: .* after 3 epochs;"):
        require_validation({"max_epochs": 2, "check_val_every_n_epoch": 3}, 4)


def test_validation_by_the_clock_is_not_foreseen():
    require_validation({"max_epochs": 1, "max_steps": 1, "val_check_interval": "00:00:10:00"}, 4)
