"""Resuming a run where it was interrupted, so that it ends as if it had not been: same numbers, same files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.jobs.allowed import require_values
from dropout_lab.jobs.overrides import quoted
from dropout_lab.runs.atomic import UNFINISHED
from dropout_lab.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    STATUS,
    TABLES,
    checkpoints,
    is_of_earlier_version,
    read_config,
    read_status,
    status_of,
)
from dropout_lab.runs.provenance import provenance
from dropout_lab.runs.start_from import READ


def is_done(folder: Path, config_hash: str) -> bool:
    """Whether a folder holds a finished run of a configuration and of the code as it is now."""
    status = read_status(folder)
    same_code = status.get("code_hash") == provenance()["code_hash"]
    return status["status"] == "ok" and status.get("config_hash") == config_hash and same_code


def resumed_by_name(resume: str) -> bool:
    """Whether the value of ``resume`` is the folder of a run, and not a rule for whatever folder there is."""
    return resume not in ("auto", "never")


def with_those_of_resumed(arguments: Sequence[str]) -> list[str]:
    """The words of a command line; with resume=DIR those of the run that lies there, its folder, and what was given."""
    folder = next((word.partition("=")[2].strip("'\"") for word in arguments if word.startswith("resume=")), "auto")
    if folder in ("auto", "never", "") or not (Path(folder) / CONFIG).is_file():
        return list(arguments)
    config = read_config(Path(folder))
    words = OmegaConf.select(config, "run.overrides") or []
    require_values(words, Path(folder) / CONFIG)
    saved = list(words)
    for key in READ:
        if value := OmegaConf.select(config, key):  # as a path that does not depend on where the command is given
            saved = [*(word for word in saved if not word.startswith(f"{key}=")), f"{key}={quoted(value)}"]
    given = {word.partition("=")[0].lstrip("+") for word in arguments}
    again = [word for word in saved if word.partition("=")[0].lstrip("+") not in given]
    return [*again, *arguments, f"hydra.run.dir={quoted(str(Path(folder).absolute()))}"]


def require_own_run(folder: Path, config_hash: str, resume: str) -> None:
    """Refuse to touch a folder that holds something else, before anything starts.

    Raises:
        UserError: a run of another configuration is there, or one that met other masks than it would meet now, or
            nothing to go on from where that was asked for.
    """
    if resume != "never":
        _require_status(folder)
    status = read_status(folder)
    if resumed_by_name(resume):
        if not (folder / CONFIG).is_file() or not checkpoints(folder):
            raise UserError(f"resume={resume}: no interrupted run is there: it has {CONFIG} and {CHECKPOINTS}/*.ckpt")
        if status.get("config_hash") != config_hash:
            _refuse_earlier_version(folder)
            raise UserError(
                f"resume={resume}: that run has another configuration; give the same overrides as then "
                f"({status.get('command', 'its status.json names none')}), or start a run of its own"
            )
    elif resume == "auto" and status.get("config_hash", config_hash) != config_hash:
        _refuse_earlier_version(folder)
        raise UserError(
            f"{folder} holds a run of another configuration; choose another hydra.run.dir (or hydra.sweep.dir), "
            "or resume=never to overwrite it"
        )
    if _goes_on(status, config_hash, resume):
        _refuse_other_masks(folder)


def start_point(folder: Path, config_hash: str, resume: str, writes: bool = True) -> Path | None:
    """The checkpoint that a run goes on from; None: it starts anew, its folder cleared of what an earlier run left.

    Args:
        folder: the run folder.
        config_hash: of the configuration to run.
        resume: "never", "auto" or the folder itself.
        writes: whether this process may write into the folder (rank 0).

    Raises:
        UserError: ``resume`` names a folder in which no checkpoint can be read, or the run that would be gone on with
            met other masks than it would meet now; nothing was cleared.
    """
    from dropout_lab.runs.checkpoints import forget_later, newest

    found = newest(folder) if _goes_on(read_status(folder), config_hash, resume) else None
    if found is not None:
        _refuse_other_masks(folder)  # again: the folders of a search's trials were not known before
    elif resumed_by_name(resume):
        raise UserError(f"resume={resume}: none of its checkpoints can be read")
    if not writes:
        return found
    for path in folder.rglob(f"*{UNFINISHED}"):  # a kill has left them
        path.unlink(missing_ok=True)
    if found is not None:
        forget_later(folder, found)
    else:
        for path in [*checkpoints(folder), *(folder / name for name in TABLES)]:
            path.unlink(missing_ok=True)
    return found


def _goes_on(status: Mapping[str, Any], config_hash: str, resume: str) -> bool:
    """Whether a run goes on from the checkpoints in its folder, where there are any."""
    unfinished = status["status"] != "ok" and status.get("config_hash") == config_hash
    return resumed_by_name(resume) or (resume == "auto" and unfinished)


def _require_status(folder: Path) -> None:
    """Refuse a folder whose status is damaged: what lies there can't be told, and would be cleared for a new run."""
    try:
        status_of(folder)
    except OSError:
        return  # there is none
    except ValueError as error:
        raise UserError(
            f"{folder / STATUS} cannot be read: {error}; give a copy of it, choose another hydra.run.dir (or "
            "hydra.sweep.dir), or resume=never to begin anew"
        ) from error


def _refuse_other_masks(folder: Path) -> None:
    """Say of a run that it would meet other masks from now on, so that it would end as no uninterrupted run does."""
    if not checkpoints(folder):
        return  # nothing to go on from, and no need of torch
    from dropout_lab.runs.masks import why_other_masks

    if why := why_other_masks(folder):
        raise UserError(
            f"{folder} holds a run {why}: it can be evaluated (weight scaling), folded, looked at and reported, but "
            "not gone on with; choose another hydra.run.dir (or hydra.sweep.dir), resume=never to overwrite it, or "
            "the version of this package that began it"
        )


def _refuse_earlier_version(folder: Path) -> None:
    """Say of a run that an earlier version has begun why it can't be gone on with, which no overrides would change."""
    if is_of_earlier_version(folder):
        raise UserError(
            f"{folder} holds a run that an earlier version of this package has begun, whose configuration is another: "
            "it can be evaluated, folded, looked at and reported, but not gone on with; choose another hydra.run.dir "
            "(or hydra.sweep.dir), or resume=never to overwrite it"
        )
