"""Loggers that write beside the run: a CSV file that survives a kill, and TensorBoard."""

import csv
from argparse import Namespace
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.folder import METRICS


class Csv(Logger):
    """``metrics.csv``: one row for each ``log_metrics`` call, columns ``epoch, step`` and the keys in order of arrival.

    Every row is on the disk when the call returns. A key that was not seen before rewrites the file once with its
    column, beside the old one and then in its place.

    Args:
        dir: folder of the file; an existing file is continued, without a last line that a kill left unfinished.
    """

    def __init__(self, dir: str) -> None:
        super().__init__()
        self.path = Path(dir) / METRICS
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Kind of logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Nothing: the folder says which run it is."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        row: dict[str, float | str] = {
            "epoch": int(metrics["epoch"]) if "epoch" in metrics else "",
            "step": "" if step is None else step,
        }
        row |= {key: float(value) for key, value in metrics.items() if key != "epoch"}
        if not self._columns and self.path.exists():
            self._continue()
        new = [key for key in row if key not in self._columns]
        if new:
            self._add_columns(new)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(row)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration is in ``config.yaml``."""

    def _continue(self) -> None:
        """Read the columns of an existing file, and remove a last line that a killed process left unfinished."""
        with self.path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        with self.path.open(newline="") as file:
            self._columns = next(csv.reader(file), [])

    def _add_columns(self, new: list[str]) -> None:
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        self._columns += new
        text = StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, text.getvalue().encode())


class TensorBoard(TensorBoardLogger):
    """TensorBoard, without Lightning's ``hparams.yaml``: the configuration is in ``config.yaml``.

    Lightning would take a ``${`` in a text, such as the diff of a configuration, for OmegaConf's and stop the run.
    """

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged."""
        self.experiment.flush()
