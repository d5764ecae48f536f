"""Progress of jobs that run in other processes, on other machines perhaps: their folders say when they are done."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dropout_lab.progress import SweepProgress
from dropout_lab.run_folder import read_status


@contextmanager
def watching(progress: SweepProgress, names: Mapping[Path, str], interval: float = 1.0) -> Iterator[None]:
    """Count jobs as done as their folders come to say so, while something inside waits for them.

    Args:
        progress: shows them.
        names: run folder -> what to call its job.
        interval: seconds between two looks.
    """
    waiting = {folder: _changed(folder) for folder in names}
    stop = threading.Event()

    def look() -> None:
        for folder, before in list(waiting.items()):
            if _changed(folder) != before and read_status(folder)["status"] in ("ok", "failed"):
                del waiting[folder]
                progress.start(names[folder])
                progress.done()

    def watch() -> None:
        while not stop.wait(interval):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


def _changed(folder: Path) -> int | None:
    """When the status of a run was last written."""
    try:
        return (folder / "status.json").stat().st_mtime_ns
    except OSError:
        return None
