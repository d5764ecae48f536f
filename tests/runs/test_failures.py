"""Laws of failures on several processes: what failed first is told, not what only saw it."""

import importlib
import json
import os
import signal
import time

import pytest

from dropout_lab.jobs import processes
from dropout_lab.modules.divergence import DivergenceError
from dropout_lab.runs.failures import failing_as_one, first_failure_told, note_failure
from dropout_lab.runs.folder import RunFolder, read_status
from dropout_lab.train.job import one_of_several


def test_the_first_process_writes_down_why_also_when_it_is_told_to_end(tmp_path, monkeypatch):
    """Torchrun ends it as soon as another one has failed, whatever it is at."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)

    def told_to_end():
        with RunFolder(tmp_path, "").recording(), failing_as_one(tmp_path):
            (tmp_path / "failure-1.json").write_text('{"error": "rank 1: it", "traceback": ""}')
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    try:
        with pytest.raises(processes.ProcessError):
            told_to_end()
        os.kill(os.getpid(), signal.SIGTERM)  # which is of no account any more
    finally:
        signal.signal(signal.SIGTERM, before)
    assert read_status(tmp_path)["status"] == "failed"
    assert read_status(tmp_path)["error"] == "rank 1: it"


def test_the_first_failure_is_the_one_that_is_told(tmp_path, monkeypatch):
    """Not that of the process that ended first."""
    spawn = importlib.import_module("torch.multiprocessing.spawn")  # beside which torch has a function of that name

    class Group:
        processes = ()

        def join(self):
            for number, error in ((1, "first"), (0, "connection closed by peer")):
                text = json.dumps({"error": f"rank {number}: {error}", "traceback": f"trace of {number}"})
                (tmp_path / f"failure-{number}.json").write_text(text)
                os.utime(tmp_path / f"failure-{number}.json", ns=(10 - number, 10 - number))
            raise spawn.ProcessExitedException("it ended", error_index=0, error_pid=1, exit_code=1)

    monkeypatch.setattr(spawn, "start_processes", lambda *args, **kwargs: Group())
    with pytest.raises(processes.ProcessError, match=r"^rank 1: first$") as caught, first_failure_told(tmp_path):
        processes.launch(2, one_of_several, tmp_path)
    assert caught.value.trace == "trace of 1"


def test_what_has_diverged_in_all_processes_is_told_as_that(tmp_path):
    def diverged():
        note_failure(tmp_path, DivergenceError("val/loss is nan at step 7"))
        raise processes.ProcessError("it ended", None)

    with pytest.raises(DivergenceError, match=r"^val/loss is nan at step 7$"), first_failure_told(tmp_path):
        diverged()


@pytest.mark.parametrize(
    ("noted", "told"), [([0], "was killed"), ([0, 1], "rank 1: its own"), ([1], "rank 1: its own")]
)
def test_a_killed_process_is_told_as_that_unless_it_has_said_why_itself(noted, told, tmp_path):
    """The others only saw that it was gone; one that was aborted at its end has noted its failure before."""

    def failing():
        with first_failure_told(tmp_path):
            for moment, number in enumerate(sorted(noted, reverse=True)):
                path = tmp_path / f"failure-{number}.json"
                text = "its own" if number == 1 else "Connection reset by peer"
                path.write_text(json.dumps({"error": f"rank {number}: {text}", "traceback": ""}))
                os.utime(path, (moment, moment))
            raise processes.KilledError("process 1 was killed", 1)

    with pytest.raises(processes.ProcessError, match=told):
        failing()
