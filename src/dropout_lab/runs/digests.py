"""Digests of files: what tells that one is not the same any more."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def digest(file: Path) -> str:
    """The SHA-256 of a file's content, read in parts; once for a file that stays as it is.

    Raises:
        OSError: it can't be read.
    """
    about = file.stat()
    return _digest(file, about.st_mtime_ns, about.st_size)


def digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of those files below a folder that are there, by their paths from it."""
    return {file.relative_to(folder).as_posix(): digest(file) for file in files if file.is_file()}


@cache
def _digest(file: Path, *_: int) -> str:
    """The digest of a file as it was at that time and of that size."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
