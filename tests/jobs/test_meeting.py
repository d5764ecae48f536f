"""The processes of a job on one machine meet where no other machine can."""

import os
import socket
import sys

import listening
import pytest
import torch

from dropout_lab.jobs import meeting
from dropout_lab.jobs.devices import environment
from dropout_lab.jobs.processes import launch, leaving_nothing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there can be seen who listens where")
HERE = "0100007F"  # 127.0.0.1


def test_a_store_listens_on_this_machine_alone():
    store = meeting.store()
    for address, answers in (("127.0.0.1", True), ("127.0.0.2", False)):  # one that listens everywhere hears both
        with socket.socket() as other:
            assert (other.connect_ex((address, store.port)) == 0) == answers
    store.set("key", "value")
    assert store.get("key") == b"value"


def test_a_process_that_meets_itself_does_so_there(alone):
    where = environment()
    with leaving_nothing():
        os.environ |= {"MASTER_ADDR": where.main_address, "MASTER_PORT": str(where.main_port)}  # as Lightning does
        torch.distributed.init_process_group("gloo", rank=where.global_rank(), world_size=where.world_size())
        assert listening.addresses(os.getpid()) == {HERE}
    assert "TORCHELASTIC_USE_AGENT_STORE" not in os.environ


@pytest.mark.slow
def test_two_processes_meet_there(tmp_path, alone):
    launch(2, listening.tell, os.getpid(), tmp_path)
    assert {(tmp_path / number).read_text() for number in "01"} == {HERE}
