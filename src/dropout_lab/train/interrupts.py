"""Ctrl-C while jobs run: what was done is told, and a folder in which none has begun is taken away again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dropout_lab.cli import interruptible


@contextmanager
def telling_what_was_done(folder: Path) -> Iterator[None]:
    """Let Ctrl-C within end the jobs in order, and say where that lies which they have done.

    Args:
        folder: of the run, or of the sweep.

    Raises:
        KeyboardInterrupt: after Ctrl-C, with that line.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        if not (new and _nothing_begun(folder)):
            raise KeyboardInterrupt(f"interrupted; what was done is in {folder}") from None
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # others have come into being within
            for path in new[1:]:
                path.rmdir()
        raise


def _nothing_begun(folder: Path) -> bool:
    """Whether a folder holds nothing but what Hydra writes before a job begins."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return all(path.name == "multirun.yaml" or path.parent.name == ".hydra" for path in files)
