"""One progress bar for a whole sweep."""

import sys
import time

from tqdm import tqdm


class SweepProgress:
    """Shows ``7/30 classic seed=2``, the job that runs, with a bar and the time that is left, on stderr.

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
        """Show the job that is running."""
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
        """Leave the bar as it is."""
        self._bar.close()

    def _show(self, job: str) -> None:
        if self._live:
            self._bar.set_description_str(f"{self._done + 1}/{self._total} {job}")
