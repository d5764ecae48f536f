"""The store at which the processes of a job on one machine meet: nobody else can reach it.

torch's own would take whatever anybody in the network sets in it.
"""

import os
import socket
import sys

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]

HERE = "127.0.0.1"


def store() -> TCPStore:
    """A store at whatever port is free, which listens as long as it is kept."""
    listening = socket.create_server((HERE, 0))
    port = listening.getsockname()[1]
    return TCPStore(HERE, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


def variables(meeting: TCPStore) -> dict[str, str]:
    """What the environment says of a store, so that processes meet there and none starts another one."""
    return {
        **{"MASTER_ADDR": HERE, "MASTER_PORT": str(meeting.port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",  # where gloo's processes listen to each other
    }


class Alone(LightningEnvironment):
    """The environment of a process that is a job's only one, whose strategy may have it meet itself."""

    @property
    def main_address(self) -> str:
        """The address of the store, which is opened when it is asked for."""
        if not hasattr(self, "_meeting"):
            self._meeting = store()
            os.environ.update(variables(self._meeting))
        return HERE

    @property
    def main_port(self) -> int:
        """The port of the store."""
        return int(self._meeting.port)
