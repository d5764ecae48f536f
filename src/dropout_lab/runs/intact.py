"""Files of a run that are not as it left them: a text that was edited is told, a checkpoint that differs is refused.

A run that has ended has left a checksum of each in its ``status.json``. One that is running or was interrupted has not,
nor has a run of before there were any: a checkpoint is checked by the sums within, a zip file's of each of its members.
"""

import logging
import zipfile
from functools import cache
from pathlib import Path

from dropout_lab.cli import UserError
from dropout_lab.runs.digests import digest
from dropout_lab.runs.folder import status_of

log = logging.getLogger(__name__)


def warn_of_edits(folder: Path, *names: str) -> None:
    """Tell, once, which of these files of a run folder changed since the run ended."""
    if changed := changes(folder, *names):
        _warn(f"{folder}: {changed}")


def changes(folder: Path, *names: str) -> str | None:
    """The words on those of these files of a run that are not as it left them; None: all are, or it left no checksums.

    Args:
        folder: the run folder.
        names: config.yaml and the tables.
    """
    sums = _checksums(folder)
    changed = [name for name in names if name in sums and _digest_if_there(folder / name) != sums[name]]
    return f"{' and '.join(changed)} changed since the run ended" if changed else None


def require_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint that is damaged, or is not the one that its run left.

    Raises:
        UserError: it is one of these.
    """
    left = _checksums(checkpoint.parent.parent).get(f"{checkpoint.parent.name}/{checkpoint.name}")
    if left is not None and _digest_if_there(checkpoint) != left:
        raise UserError(f"{checkpoint} is not as its run left it: its SHA-256 is not the one in status.json; {_CURE}")
    about = checkpoint.stat()
    if left is None and (why := _why_damaged(checkpoint, about.st_mtime_ns, about.st_size)):
        raise UserError(f"{checkpoint} cannot be read, it is damaged or cut off: {why}; {_CURE}")


_CURE = "take another one, ckpt=NAME, or a copy of it"


@cache
def _why_damaged(checkpoint: Path, *_: int) -> str | None:
    """What is wrong with a zip file as it was at that time and of that size."""
    try:
        with zipfile.ZipFile(checkpoint) as file:
            name = file.testzip()
    except Exception as error:  # whatever a broken file makes of the reader
        return " ".join(str(error).split()) or type(error).__name__
    return name and f"{name} does not have its checksum"


def _checksums(folder: Path) -> dict[str, str]:
    """Name -> checksum of the files that a run has left; none where its status can't be read, which is told."""
    try:
        return status_of(folder).get("sha256") or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _warn(f"{folder}: status.json cannot be read ({error}): whether files are as the run left them is not known")
        return {}


def _digest_if_there(file: Path) -> str | None:
    return digest(file) if file.is_file() else None


@cache
def _warn(text: str) -> None:
    log.warning(text)
