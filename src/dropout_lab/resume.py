"""Going on where a run was interrupted, so that it ends as if it had not been: same numbers, same files."""

from pathlib import Path
from typing import Any

import lightning as L

from dropout_lab.errors import UserError
from dropout_lab.processes import rank
from dropout_lab.run_folder import provenance, read_status

TABLES = ("metrics.csv", "activations.csv")
CODE = ("git_sha", "git_diff")


def is_done(folder: Path, config_hash: str) -> bool:
    """Whether the folder holds a finished run of this configuration and of the code as it is now."""
    status = read_status(folder)
    now = provenance()
    same_code = all(status.get(key) == now[key] for key in CODE)
    return status["status"] == "ok" and status.get("config_hash") == config_hash and same_code


def check_folder(folder: Path, config_hash: str, resume: str) -> None:
    """Refuse to touch a folder that holds something else, before anything starts.

    Raises:
        UserError: a run of another configuration is there, or nothing to go on from where that was asked for.
    """
    status = read_status(folder)
    if resume not in ("auto", "never"):
        if not (folder / "config.yaml").is_file() or not list((folder / "checkpoints").glob("*.ckpt")):
            raise UserError(f"resume={resume}: no interrupted run is there: it has config.yaml and checkpoints/*.ckpt")
        if status.get("config_hash") != config_hash:
            raise UserError(
                f"resume={resume}: that run has another configuration; give the same overrides as then "
                f"({status.get('command', 'its status.json names none')}), or start a run of its own"
            )
    elif resume == "auto" and status.get("config_hash", config_hash) != config_hash:
        raise UserError(
            f"{folder} holds a run of another configuration; choose another hydra.run.dir (or hydra.sweep.dir), "
            "or resume=never to overwrite it"
        )


def start_point(folder: Path, config_hash: str, resume: str, writes: bool = True) -> Path | None:
    """The checkpoint to go on from; None: start anew, with the folder cleared of what an earlier run left.

    Args:
        folder: the run folder.
        config_hash: of the configuration to run.
        resume: "never", "auto" or the folder itself.
        writes: whether this process may write into the folder (rank 0).

    Raises:
        UserError: ``resume`` names a folder in which no checkpoint can be read.
    """
    from dropout_lab.checkpoints import newest

    status = read_status(folder)
    unfinished = status["status"] != "ok" and status.get("config_hash") == config_hash
    found = newest(folder) if resume != "never" and (unfinished or resume != "auto") else None
    if found is None and resume not in ("auto", "never"):
        raise UserError(f"resume={resume}: none of its checkpoints can be read")
    if found is None and writes:
        for path in [*(folder / "checkpoints").glob("*.ckpt"), *(folder / name for name in TABLES)]:
            path.unlink(missing_ok=True)
    return found


class Resume(L.Callback):
    """Puts into each checkpoint how long the run's tables are, and cuts them to that length when it is loaded.

    What was logged after the checkpoint is logged again. Steps can't tell the two apart: an epoch's last row and the
    next epoch's first may have the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Any]:
        """Lines of each table."""
        return {name: _lines(self.folder / name) for name in TABLES}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cut the tables; only the process that writes them has to."""
        if rank() == 0:
            for name, count in state_dict.items():
                _cut(self.folder / name, count)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _cut(path: Path, count: int) -> None:
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)[:count]
    if not lines:
        path.unlink()
        return
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_bytes(b"".join(lines))
    beside.replace(path)
