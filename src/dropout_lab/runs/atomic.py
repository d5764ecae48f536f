"""Files that are whole at any moment, also after a kill or on a full disk."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"  # ends the name of what is being written, which a kill may leave


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole at any moment."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, beside the one that it replaces once it is whole and on the disk.

    Raises:
        OSError: it can't be written; it names the file, also where torch says no more than "unexpected pos".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")  # of this process alone
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)  # a full disk needs its room
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError) and cause.errno and cause.filename in (None, str(beside)):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
