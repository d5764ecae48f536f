"""Where the metrics go: a CSV file that survives a kill, and W&B that never stops a run."""

import csv
import logging
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


class Csv(Logger):
    """``metrics.csv``: one row for each ``log_metrics`` call, columns ``epoch, step`` and the keys in order of arrival.

    Every row is on the disk when the call returns. A key that was not seen before rewrites the file once with its
    column, beside the old one and then in its place.

    Args:
        dir: folder of the file; an existing file is continued.
    """

    def __init__(self, dir: str) -> None:
        super().__init__()
        self.path = Path(dir) / "metrics.csv"
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
        row = {"epoch": metrics.get("epoch", ""), "step": "" if step is None else step}
        row |= {key: float(value) for key, value in metrics.items() if key != "epoch"}
        if not self._columns and self.path.exists():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
        new = [key for key in row if key not in self._columns]
        if new:
            self._add_columns(new)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration is in ``config.yaml``."""

    def _add_columns(self, new: list[str]) -> None:
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        self._columns += new
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        beside.replace(self.path)


class Wandb(WandbLogger):
    """W&B that never prompts, never blocks for long and never stops the run: offline where online cannot be had.

    Args:
        mode: "auto" (``WANDB_MODE``, else online where a key is stored, else offline), "online", "offline" or
            "disabled". Each run has its own mode; nothing is put into the environment of later ones.
        save_dir: its files go to ``save_dir/wandb``.
        init_timeout, finish_timeout: seconds to wait for the server.
        settings: project, entity, name, group, ... as for ``wandb.init``.
    """

    def __init__(
        self,
        mode: str = "auto",
        save_dir: str = ".",
        init_timeout: float = 20,
        finish_timeout: float = 120,
        **settings: Any,
    ) -> None:
        if mode not in ("auto", "online", "offline", "disabled"):
            raise ValueError(f"logger.wandb.mode={mode}: must be auto, online, offline or disabled")
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        super().__init__(
            save_dir=save_dir,
            mode=_mode() if mode == "auto" else mode,  # not WandbLogger(offline=True): it sets WANDB_MODE for good
            reinit="create_new",  # one run for each logger, also in a sweep within one process
            settings=wandb.Settings(
                init_timeout=init_timeout, finish_timeout=finish_timeout, silent=True, console="off"
            ),
            **settings,
        )
        self._wandb_init.pop("anonymous", None)  # deprecated, and Lightning always passes it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, made at the first call."""
        if self._experiment is None:
            try:
                return super().experiment
            except wandb.errors.Error as error:  # no key, no network, no permission
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                log.warning("W&B cannot go online (%s); logging offline, upload later with `wandb sync`", reason)
                self._wandb_init["mode"] = "offline"
                return super().experiment
        return self._experiment

    @property
    def offline(self) -> bool:
        """Whether the run is (or will be) kept on this machine."""
        return bool(self._wandb_init["mode"] == "offline")

    def finish(self, exit_code: int) -> None:
        """End the run; a failed job's is marked as failed."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None


def _mode() -> str:
    asked = os.environ.get("WANDB_MODE")
    if asked:
        return asked
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
