"""Going on where a run was interrupted, so that it ends as if it had not been: same numbers, same files."""

from pathlib import Path

from dropout_lab.errors import UserError
from dropout_lab.run_folder import provenance, read_status

TABLES = ("metrics.csv", "activations.csv")


def is_done(folder: Path, config_hash: str) -> bool:
    """Whether the folder holds a finished run of this configuration and of the code as it is now."""
    status = read_status(folder)
    same_code = status.get("code_hash") == provenance()["code_hash"]
    return status["status"] == "ok" and status.get("config_hash") == config_hash and same_code


def resumed_by_name(resume: str) -> bool:
    """Whether ``resume`` is the folder of a run, and not a rule for whatever folder there is."""
    return resume not in ("auto", "never")


def check_folder(folder: Path, config_hash: str, resume: str) -> None:
    """Refuse to touch a folder that holds something else, before anything starts.

    Raises:
        UserError: a run of another configuration is there, or nothing to go on from where that was asked for.
    """
    status = read_status(folder)
    if resumed_by_name(resume):
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
    if found is None and resumed_by_name(resume):
        raise UserError(f"resume={resume}: none of its checkpoints can be read")
    if found is None and writes:
        for path in [*(folder / "checkpoints").glob("*.ckpt"), *(folder / name for name in TABLES)]:
            path.unlink(missing_ok=True)
    return found
