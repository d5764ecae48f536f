"""Progress as a person sees it: one bar for a sweep, wherever its jobs run, and one for the steps of a single run."""

import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path

from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm

from dropout_lab.modules.length import length_of
from dropout_lab.runs.folder import STATUS, read_status
from dropout_lab.train.patience import beside

ENDED = ("ok", "failed", "diverged")
APART = 0.1  # seconds between two drawings of a bar of steps


class SweepProgress:
    """A bar that shows ``7/30 classic seed=2``, the job that runs, with a bar and the time that is left, on stderr.

    Where stderr is no terminal (a log file, a batch system) it writes one line for each job that is done instead.

    Args:
        total: number of jobs.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._job = total, 0, ""
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()
        form = "{desc} |{bar}| {elapsed}<{remaining}"
        self._bar = tqdm(total=total, bar_format=form, dynamic_ncols=True, disable=not self._live)
        self._show("starting")

    def start(self, job: str) -> None:
        """Show which job is running."""
        self._job = job
        self._show(job)

    def done(self) -> None:
        """Count a finished job."""
        self._done += 1
        self._bar.update()
        if not self._live:
            seconds = time.monotonic() - self._start
            print(f"{self._done}/{self._total} {self._job} ({seconds:.0f} s in all)", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar on the terminal as it is."""
        self._bar.close()

    def _show(self, job: str) -> None:
        if self._live:
            self._bar.set_description_str(f"{self._done + 1}/{self._total} {job}")


@contextmanager
def counting_from_folders(
    progress: SweepProgress, names: Mapping[Path, str], done: Collection[Path] = (), interval: float = 1.0
) -> Iterator[None]:
    """Show jobs as running and count them as done as their folders come to say so, while something waits for them.

    Args:
        progress: shows them.
        names: run folder -> what to call its job.
        done: the folders that say so from the beginning, of jobs that have nothing to do.
        interval: seconds between two looks.
    """
    seen = {folder: None if folder in done else _changed(folder) for folder in names}
    stop = threading.Event()

    def look() -> None:
        for folder, before in list(seen.items()):
            if (now := _changed(folder)) == before:
                continue
            seen[folder] = now
            status = read_status(folder)["status"]
            if status in ("running", *ENDED):
                progress.start(names[folder])
            if status in ENDED:
                del seen[folder]
                progress.done()

    def watch() -> None:
        look()
        while not stop.wait(interval):
            look()

    try:
        with beside(watch, stop):
            yield
    finally:
        look()


def _changed(folder: Path) -> int | None:
    """When the status of a run was last written; None where it never was."""
    try:
        return (folder / STATUS).stat().st_mtime_ns
    except OSError:
        return None


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, which is drawn at every step or at one in so many: at 1.4 ms a step that is half of its time."""

    _drawn = -inf  # by time.monotonic()

    @property
    def total_train_batches(self) -> int | float:
        """Batches of the epoch that runs, fewer where ``max_steps`` ends training within it."""
        trainer = self.trainer
        done = trainer.current_epoch * trainer.num_training_batches
        return min(trainer.num_training_batches, length_of(trainer).batches - done)

    def _should_update(self, current: int, total: int | float) -> bool:
        if not self.is_enabled or (current != total and time.monotonic() - self._drawn < APART):
            return False
        self._drawn = time.monotonic()
        return True


current: SweepProgress | None = None  # of the sweep whose jobs run in this process
