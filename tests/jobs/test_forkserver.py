"""Forks of the server know what this process knows."""

import os
from multiprocessing import forkserver

import pytest
from forked import told

from dropout_lab.cli import UserError
from dropout_lab.jobs.forkserver import server


@pytest.mark.slow
def test_a_fork_has_the_environment_the_command_and_the_threads_it_is_given():
    here, there = server().Pipe()
    environment = {**os.environ, "SINCE": "then", "OMP_NUM_THREADS": "3"}
    process = server().Process(target=told, args=(there, environment, ["scripts/train", "seed=1"]))
    process.start()
    assert here.recv() == (environment, ["scripts/train", "seed=1"], 3)
    process.join()


def test_a_folder_with_too_long_a_path_for_a_socket_is_named(monkeypatch):
    def too_long():
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(forkserver, "ensure_running", too_long)
    with pytest.raises(
        UserError, match=r"^TMPDIR=.*: no socket can be made there \(AF_UNIX path too long\); give a sho"
    ):
        server()
