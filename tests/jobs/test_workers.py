"""Laws of workers: each has its share of the GPUs, and an error of a job reaches the process that asked for it."""

import pickle

import pytest
from hydra.core.utils import JobStatus
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.jobs.workers import _portable, share, without_result


@given(st.integers(0, 16), st.integers(1, 16))
def test_every_worker_has_as_many_gpus_and_none_is_idle_where_they_can_be_shared_out(count, size):
    gpus = [str(gpu) for gpu in range(count)]
    shares = [share(gpus, worker, size) for worker in range(size)]
    assert {len(own) for own in shares} == {0 if not count else max(count // size, 1)}
    assert all(len(set(own)) == len(own) for own in shares)
    times = [sum(gpu in own for own in shares) for gpu in gpus]
    if count >= size:  # nobody shares
        assert set(times) <= {0, 1}
        assert times.count(0) == count % size
    elif count:  # as evenly as can be
        assert max(times) - min(times) <= 1


class BrokenCopyError(Exception):
    """An error that pickle sends and can't make again."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (ValueError("p=2"), ValueError("p=2")),
        (BrokenCopyError("no", "copy"), RuntimeError("BrokenCopyError: no copy")),
        (RuntimeError(lambda: 0), None),  # its words have an address
    ],
)
def test_an_error_is_sent_as_it_is_or_by_its_words(error, sent):
    found = pickle.loads(pickle.dumps(_portable(error)))
    assert type(found) is type(sent or error)
    assert str(found).startswith(str(sent) if sent else "RuntimeError: <function ")


def test_a_job_without_a_result_has_ended_for_hydra():
    ended = without_result()
    assert ended.status == JobStatus.COMPLETED
    assert ended.return_value != ended.return_value  # NaN
