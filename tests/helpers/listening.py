"""At which addresses processes listen, and a job's process that tells it of itself and of the one that started it."""

import os
from pathlib import Path

import torch


def addresses(*processes: int) -> set[str]:
    """The addresses, without ports, of all sockets at which these processes of this machine (Linux) listen."""
    own = set()
    for process in processes:
        for link in Path(f"/proc/{process}/fd").iterdir():
            try:
                own.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
            except FileNotFoundError:  # closed by now
                continue
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in own}


def tell(parent: int, folder: Path) -> None:
    """Meet the others, then write the addresses of this process and of its parent to a file."""
    torch.distributed.init_process_group("gloo")
    (folder / os.environ["RANK"]).write_text(" ".join(addresses(os.getpid(), parent)))
    torch.distributed.barrier()
