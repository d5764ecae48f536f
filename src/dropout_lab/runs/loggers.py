"""Loggers that write beside the run: a CSV file that survives a kill, and TensorBoard."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from dropout_lab.cli import UserError
from dropout_lab.jobs.build_errors import arguments_of, unknown_key
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.folder import METRICS, require_writable


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

    Lightning would take a ``${`` in a text, such as the diff of a configuration, for OmegaConf's and stop the run; and
    it would hand wrong settings to TensorBoard only in the job, as if it were what is logged that is wrong.

    Args:
        save_dir, name, version: its files go to ``save_dir/name/version``.
        max_queue, flush_secs: how many values, and for how many seconds, are kept before they are written.
        settings: others of Lightning's logger and of ``torch.utils.tensorboard.SummaryWriter``.

    Raises:
        ValueError, TypeError: a setting that one of them would refuse.
    """

    def __init__(
        self,
        save_dir: str,
        name: str | None = None,
        version: int | str | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        **settings: Any,
    ) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        known = arguments_of(TensorBoardLogger) | arguments_of(SummaryWriter)
        known = {key: argument for key, argument in known.items() if key not in ("log_dir", "comment")}
        for key in settings.keys() - known.keys():
            raise ValueError(f"logger.tensorboard.{unknown_key(key, 'SummaryWriter', known)}")
        settings |= {"max_queue": int(max_queue), "flush_secs": int(flush_secs)}
        super().__init__(save_dir, None if name is None else str(name), version, **settings)
        if version is not None:
            _ = self.log_dir  # whose parts have to be texts

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged."""
        self.experiment.flush()


def require_places(loggers: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    """Refuse a logger whose files can't be written; where they lie in the run's folder, that is asked of the folder.

    Args:
        loggers: the section ``logger`` of a planned job.
        written: the same, its values as they are written.

    Raises:
        UserError: with the key of the first one.
    """
    for name, settings in loggers.items():
        for key in ("dir", "save_dir"):
            place = settings.get(key)
            if isinstance(place, str) and place and "${run." not in str(written[name][key]):
                try:
                    require_writable(Path(place).absolute())
                except UserError as error:
                    raise UserError(f"logger.{name}.{key}={error}") from None
