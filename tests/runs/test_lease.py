"""Laws of leases: of two starts in one folder the second is refused, and what was killed is not in the way."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from commands import exit_code
from run_folders import content
from small_disk import mounted, read_only

from dropout_lab.cli import UserError
from dropout_lab.runs import lease
from dropout_lab.runs.folder import read_status
from dropout_lab.runs.lease import NAME, alone_in, why_running

HERE = lease._boot()


def wrote(folder, age=0.0, **other):
    """Leave the lease of a process that wrote it so many seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    theirs = {"host": "there", "process": os.getppid(), "boot": "another", "slurm_job": None, **other}
    (folder / NAME).write_text(json.dumps(theirs))
    now = time.time()
    os.utime(folder / NAME, (now - age, now - age))


@contextmanager
def held(folder, **other):
    """A folder in which another start on this machine is at work."""
    wrote(folder, **{"boot": HERE, **other})
    with (folder / NAME).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def taken(folder):
    """Whether a start is let in; it has the folder for itself then, and leaves no lease."""
    try:
        with alone_in(folder):
            assert json.loads((folder / NAME).read_text())["process"] == os.getpid()
    except UserError:
        return False
    return not (folder / NAME).exists()


def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_start_is_refused_in_words_that_name_the_first(tmp_path):
    with held(tmp_path):
        before = content(tmp_path)
        with (
            pytest.raises(UserError, match=f"in use by process {os.getppid()} on there; wait, or choose"),
            alone_in(tmp_path),
        ):
            pass
        assert why_running(tmp_path) == f"is in use by process {os.getppid()} on there"
        assert content(tmp_path) == before
    assert taken(tmp_path)


def test_a_start_asks_once_and_leaves_nothing_however_it_ends(tmp_path):
    def interrupted():
        with alone_in(tmp_path / "run"):
            with alone_in(tmp_path / "run"):  # the job of a single run
                pass
            assert (tmp_path / "run" / NAME).exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not content(tmp_path)


def test_other_processes_of_a_job_do_not_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with held(tmp_path), alone_in(tmp_path):
        pass


def test_a_killed_process_is_not_in_the_way(tmp_path):
    wrote(tmp_path, boot=HERE)
    assert why_running(tmp_path) == "its process was killed"
    assert taken(tmp_path)


def test_a_folder_that_has_become_read_only_is_told_as_that(tmp_path):
    with mounted(tmp_path / "disk", "size=100k") as disk:
        (disk / "0").mkdir()
        read_only(disk)
        assert why_running(disk / "0") == (
            f"its end could not be written: {disk / '0'}: nothing can be written there: {disk / '0'}: "
            "Read-only file system"
        )


@pytest.mark.parametrize(
    ("age", "jobs", "free"),
    [(0, (None, None), False), (50, ("7", "8"), False), (70, (None, None), True), (0, ("7", "7"), True)],
)
@pytest.mark.parametrize("locks", [True, False])
def test_another_machine_has_a_minute_but_for_the_same_job_of_slurm(age, jobs, free, locks, tmp_path, monkeypatch):
    if not locks:
        without_locks(monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", jobs[1]) if jobs[1] else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    wrote(tmp_path, age=age, slurm_job=jobs[0])
    assert taken(tmp_path) == free


def test_the_same_job_of_slurm_is_refused_while_its_process_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with held(tmp_path, slurm_job="7"):
        assert not taken(tmp_path)
    with held(tmp_path, slurm_job="7", boot="another"):  # a server keeps the lock of a node that broke down
        assert taken(tmp_path)


def without_locks(monkeypatch):
    def refuses(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuses)
    monkeypatch.setattr(lease, "SETTLES", 0)


def test_without_locks_a_process_that_lives_is_asked_for(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    wrote(tmp_path, boot=HERE)
    assert not taken(tmp_path)
    wrote(tmp_path, boot=HERE, process=dead())
    assert taken(tmp_path)


def test_without_locks_one_of_two_that_begin_at_once_is_refused(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda _: wrote(tmp_path))
    assert not taken(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"host": "there"}'])
def test_a_lease_that_says_nothing_is_none(text, tmp_path):
    (tmp_path / NAME).write_text(text)
    assert taken(tmp_path)


def test_a_lease_lives_as_long_as_its_holder(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with alone_in(tmp_path):
        os.utime(tmp_path / NAME, (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / NAME).stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / NAME).stat().st_mtime > 1


@pytest.mark.slow
def test_a_run_or_a_sweep_that_is_at_work_is_left_alone_and_so_is_a_job_of_it(tmp_path, capsys):
    words = ["model=mlp", "model.widths=[8]", "trainer.max_epochs=1", "data.train_size=64", "logger=csv"]
    for key in ("run", "sweep"):
        with held(tmp_path / key):
            before = content(tmp_path / key)
            assert exit_code(*["-m"][: key == "sweep"], *words, f"hydra.{key}.dir={tmp_path / key}") == 2
            assert content(tmp_path / key) == before
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert "in use by process" in said
    with held(tmp_path / "sweep" / "0"):
        assert exit_code("-m", *words, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}") == 1
        assert [read_status(tmp_path / "sweep" / str(job))["status"] for job in (0, 1)] == ["missing", "ok"]
    assert "in use by process" in capsys.readouterr().err
