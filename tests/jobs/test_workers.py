"""Laws of workers: each has its share of the GPUs, and an error of a job reaches the process that asked for it."""

import math
import os
import pickle
import time

import pytest
from forked import who
from hydra.core.utils import JobStatus
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.jobs import workers
from dropout_lab.jobs.workers import Worker, _portable, share, visible_gpus, without_result


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


def test_every_worker_has_its_share_of_the_gpus():
    gpus = ["0", "1", "2", "3"]
    assert [share(gpus, worker, 2) for worker in range(2)] == [["0", "1"], ["2", "3"]]
    assert [share(gpus, worker, 4) for worker in range(4)] == [["0"], ["1"], ["2"], ["3"]]
    assert [share(["0", "1"], worker, 3) for worker in range(3)] == [["0"], ["1"], ["0"]]
    assert share([], 1, 2) == []


def test_the_gpus_that_are_hidden_are_not_shared_out(monkeypatch):
    for visible, expected in {"2,5": ["2", "5"], "": [], "-1": [], "GPU-a1": ["GPU-a1"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("cores", "idle", "free"), [(2, 1.9, 2), (2, 1.2, 1), (2, 0.0, 1), (2, 30.0, 2), (64, 40.2, 40), (4, None, 4)]
)
def test_free_are_the_cores_that_it_may_use_and_that_are_idle(cores, idle, free, monkeypatch):
    clock = iter([100.0, 100.25])
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    counts = iter([None] if idle is None else [5.0, 5.0 + idle / 4])
    monkeypatch.setattr(workers, "_idle_seconds", lambda: next(counts))
    assert workers.free_cores.__wrapped__() == free


@pytest.mark.parametrize(
    ("n_jobs", "gpus", "free", "told"),
    [
        (None, 0, 1, (1, "1 of 4 cores is free")),
        (None, 0, 3, (3, "3 of 4 cores are free")),
        (None, 1, 3, (1, "1 GPU")),
        (None, 2, 3, (2, "2 GPUs")),
        (5, 2, 3, (5, "n_jobs=5")),
    ],
)
def test_jobs_run_side_by_side_where_there_is_room_or_as_many_as_asked_for(n_jobs, gpus, free, told, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    monkeypatch.setattr(workers, "free_cores", lambda: free)
    monkeypatch.setattr(workers, "visible_gpus", lambda: ["GPU"] * gpus)
    assert workers.at_a_time(n_jobs) == told


def test_idle_time_is_that_of_the_cores_it_may_use(monkeypatch):
    lines = ["cpu 9 9 9 900 90 9", "cpu0 9 9 9 100 10 9", "cpu1 9 9 9 200 20 9", "cpu2 9 9 9 400 40 9", "intr 1 2"]
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: "\n".join(lines))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    assert workers._idle_seconds() == 5.5


@pytest.mark.slow
def test_a_worker_keeps_its_process_its_gpus_and_its_threads(monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    worker = Worker(["4", "7"], threads=3)
    first, second = (worker.run(who, [], job) for job in range(2))
    assert first == second
    assert first[1:] == ("4,7", "7")
    assert first[0] != os.getpid()
    assert math.isnan(worker.run(who, ["die"], 2).return_value)
    assert capfd.readouterr().err == "failed: job 2: its process was killed: SIGKILL(-9)\n"
    again = worker.run(who, [], 3)
    assert again[0] != first[0]
    assert again[1:] == first[1:]
    worker.end()
    monkeypatch.delenv("OMP_NUM_THREADS")
    other = Worker([], threads=3)
    assert other.run(who, [], 0)[1:] == ("0,1", "3")
    other.end()
