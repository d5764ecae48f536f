"""One progress bar for a whole sweep."""

from tqdm import tqdm


class SweepProgress:
    """Shows ``7/30 classic seed=2`` with a bar and the time that is left, on stderr.

    Args:
        total: number of jobs.
    """

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, bar_format="{n_fmt}/{total_fmt} {desc} |{bar}| {elapsed}<{remaining}")
        self._bar.set_description_str("starting")

    def start(self, job: str) -> None:
        """Show the job that is running."""
        self._bar.set_description_str(job)

    def done(self) -> None:
        """Count a finished job."""
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
