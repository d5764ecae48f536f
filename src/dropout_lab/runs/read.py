"""The reader of run folders: one run for a notebook, or all runs below a folder for a table.

    from dropout_lab.runs import read

    run = read.open("runs/2026-01-31/12-00-00-000000")
    run.metrics["val/acc"], run.activations, run.network()

What cannot be read or counted is kept, with the reason.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dropout_lab.cli import UserError, plain
from dropout_lab.modules.columns import Column, declared
from dropout_lab.runs.folder import (
    ACTIVATIONS,
    CONFIG,
    METRICS,
    SKIPPED,
    STATUS,
    TABLES,
    config_of,
    read_config,
    status_of,
    why_unnamed,
)
from dropout_lab.runs.intact import changes
from dropout_lab.runs.layer_order import in_depth_order, natural
from dropout_lab.runs.replicates import Replicate, replicate
from dropout_lab.runs.search import RUN_FILES, gaps, name_of, search
from dropout_lab.runs.tracks import Tracks, read_activations, read_metrics, read_tracks

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)  # frames have no yes-or-no equality
class Run:
    """One run folder, or what was found where one should be.

    Attributes:
        name: its path below the folder that was read.
        status: ok, failed, diverged, interrupted, running, unreadable, foreign, missing or duplicate.
        reason: why it is not counted; None for a run that is.
        config: its configuration, in plain containers.
        about: what its ``status.json`` says.
        metrics: index ``step``, columns ``epoch`` and one for each scalar metric (``test/acc`` ...); empty where no
            file can be read.
        tracks: mode (train, eval, probe) -> statistics of the layers over training, thinned to what a picture shows.
        note: what is missing in a run that counts all the same, or of one that does not, in its tables.
    """

    folder: Path
    name: str
    status: str
    reason: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    tracks: Mapping[str, Tracks] = field(default_factory=dict)
    note: str | None = None

    @property
    def counted(self) -> bool:
        """Whether the run is part of the table."""
        return self.reason is None

    @property
    def seed(self) -> Any:
        """The run's seed as its config says it, or None."""
        return self.config.get("seed")

    @cached_property
    def replicate(self) -> Replicate:
        """What tells the run from the others of its row."""
        return replicate(self.config)

    @property
    def columns(self) -> list[Column]:
        """The numbers that the run measures."""
        return declared([self.config])

    @property
    def ended(self) -> datetime:
        """When the run ended, by the time of its last status; a copy may have changed it."""
        return datetime.fromtimestamp((self.folder / STATUS).stat().st_mtime, UTC)

    @cached_property
    def activations(self) -> pd.DataFrame:
        """Every statistic of every layer, a row each: columns step, epoch, mode, layer, stat, value.

        Raises:
            UserError: the run has left none, or they cannot be read.
        """
        table, why = _load(self.folder, ACTIVATIONS, read_activations)
        if why:
            raise UserError(f"{self.folder}: {why}")
        return table

    def network(self, checkpoint: str = "best") -> "nn.Module":
        """The trained network, with its dropout layers, in eval mode on the CPU.

        Args:
            checkpoint: "best" (in validation), "last", or any other there is.

        Raises:
            UserError: no such checkpoint, data that is not there, or weights that do not fit the network.
        """
        from dropout_lab.runs.network import restore  # torch takes seconds

        return restore(self.folder, checkpoint).net

    def final(self, key: str) -> float:
        """The last value that was logged of a scalar metric; NaN where there is none."""
        return _last(self.metrics[key].dropna().to_numpy()) if key in self.metrics else float("nan")

    def at_layer(self, mode: str, stat: str, layer: str) -> float:
        """The last value of a layer's statistic; NaN where there is none."""
        return _last(self.tracks[mode].logged(stat, layer)) if mode in self.tracks else float("nan")

    @cached_property
    def layers(self) -> list[str]:
        """Every monitored tensor of the network, in depth order; the input of dropout layer L is called ``L_in``."""
        return in_depth_order({layer for tracks in self.tracks.values() for _, layer in tracks.columns})

    @cached_property
    def dropout_layers(self) -> list[str]:
        """The dropout layers of the run's network, first to last: those with a gain."""
        columns = (key for tracks in self.tracks.values() for key in tracks.columns)
        return in_depth_order({layer for stat, layer in columns if stat == "gain"})


def open(folder: str | Path) -> Run:
    """Read one run folder, whatever became of the run.

    Example:
        >>> from dropout_lab.runs import read
        >>> run = read.open("runs/2026-01-31/12-00-00-000000")
        >>> run.metrics, run.activations, run.network()

    Raises:
        UserError: the folder is no run's but a sweep's, or nothing of a run; or its configuration cannot be read.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in RUN_FILES) and (inside := search(folder)[0]):
        first = min(inside, key=lambda path: natural(str(path)))
        raise UserError(f"{folder}: not a run but {len(inside)}: read_runs reads all, open reads one, e.g. {first}")
    run = _begun(folder, folder.name)
    if not run.config:
        read_config(folder)  # one line says why, and what a run folder is
    return _with_tables(run)


def read_runs(folder: str | Path) -> list[Run]:
    """Read all runs below a folder, in the order of their names ("2" before "10").

    Raises:
        FileNotFoundError: there is no such folder, or no run in it, or its name is no text.
    """
    folder = Path(folder)
    if why := why_unnamed(folder):
        raise FileNotFoundError(f"{folder}: {why}")
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}; give a run folder, a sweep, or a folder above them")
    found, foreign = search(folder)
    if not found and not read_skipped(folder):
        raise FileNotFoundError(f"no runs in {folder}: a run is a folder with {', '.join(RUN_FILES)}, made by training")
    runs = [_read(path, name_of(path, folder)) for path in found]
    runs += [Run(path, name_of(path, folder), "foreign", reason) for path, reason in foreign]
    runs += [Run(path, name_of(path, folder), "missing", "there is no such folder") for path in gaps(found, folder)]
    return sorted(runs, key=lambda run: natural(run.name))


def read_skipped(folder: Path) -> dict[str, str]:
    """Strategies a sweep left out: {arm or strategy: reason}, from every ``skipped.json`` below the folder."""
    skipped: dict[str, str] = {}
    for path in sorted(folder.rglob(SKIPPED)):
        content, _ = _load(path.parent, SKIPPED, lambda folder: json.loads((folder / SKIPPED).read_text("utf-8")))
        if isinstance(content, dict):
            skipped |= {name: one_line(reason) for name, reason in content.items()}
    return skipped


def one_line(text: object) -> str:
    """The first line of a message that says something."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "no reason given")


def _read(folder: Path, name: str) -> Run:
    """A run; of one that does not count, its tables are not read."""
    run = _begun(folder, name)
    return _with_tables(run) if run.counted else run


def _begun(folder: Path, name: str) -> Run:
    """A run by its status and configuration, with the reason if these say that it does not count."""
    if why := why_unnamed(folder):
        return Run(folder, name, "unreadable", reason=why)
    about, no_about = _load(folder, STATUS, status_of)
    config, no_config = _load(folder, CONFIG, config_of)
    status = "unreadable" if no_about else str(about.get("status"))
    run = Run(folder, name, status, reason=no_about, config=config or {}, about=about or {})
    if no_about:
        return run
    if status != "ok":
        return replace(run, reason=_why_not_counted(run))
    return replace(run, status="unreadable", reason=no_config) if no_config else run


def _with_tables(run: Run) -> Run:
    """A run with its metrics and tracks, and what is missing there: in one that counts, without metrics it does not."""
    metrics, no_metrics = _load(run.folder, METRICS, read_metrics)
    tracks, no_tracks = _load(run.folder, ACTIVATIONS, read_tracks)
    callbacks = run.config.get("callbacks")
    if callbacks is not None and "activation_stats" not in callbacks:
        no_tracks = None  # nobody asked for them
    run = replace(run, metrics=run.metrics if no_metrics else metrics, tracks=tracks or {})
    if no_metrics:
        return replace(run, status="unreadable", reason=no_metrics) if run.counted else replace(run, note=no_metrics)
    keys = [column.of("test") for column in run.columns if "/" not in column.key]
    absent = [key for key in [*keys, "gap/loss"] if not math.isfinite(run.final(key))]
    no_number = f"{METRICS} has no finite {', '.join(absent)}" if absent else None
    changed = changes(run.folder, CONFIG, *TABLES)
    return replace(run, note="; ".join(filter(None, (changed, no_number or no_tracks))) or None)


def _load(folder: Path, name: str, parse: Callable[[Path], Any]) -> tuple[Any, str | None]:
    """What the file of this name in a folder holds, its texts as they can be shown, and, where it is unread, why."""
    try:
        return plain(parse(folder)), None
    except FileNotFoundError:
        return None, f"half-written: {name} is missing"
    except (OSError, ValueError) as error:  # ValueError: bad JSON, bad UTF-8, pandas' parser errors
        return None, plain(f"{name} cannot be read: {one_line(error)}")


def _why_not_counted(run: Run) -> str:
    error = run.about.get("error")
    if run.status == "running":
        return f"still running, or killed: {STATUS} says running"
    if run.status in ("failed", "diverged", "interrupted"):
        return f"{run.status}: {one_line(error)}" if error else run.status
    return f"{STATUS} says {run.status!r}, not ok, failed, diverged, interrupted or running"


def _last(values: np.ndarray) -> float:
    return float(values[-1]) if len(values) else float("nan")
