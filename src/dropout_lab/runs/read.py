"""Read every run folder below a folder; what cannot be read or counted is kept, with the reason."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml  # type: ignore[import-untyped]

from dropout_lab.runs.layer_names import in_depth_order, natural
from dropout_lab.runs.tracks import Tracks, read_activations, read_metrics

RUN_FILES = ("status.json", "config.yaml", "metrics.csv")


NOT_RUNS = {"wandb", "checkpoints", "tensorboard", "code", "__pycache__"}  # left beside or inside run folders


@dataclass(frozen=True, eq=False)  # frames have no yes-or-no equality
class Run:
    """One run folder, or what was found where one should be.

    Attributes:
        name: its path below the folder that was read.
        status: ok, failed, interrupted, running, unreadable, foreign, missing or duplicate.
        reason: why it is not counted; None for a run that is.
        metrics: one row per step, columns ``epoch`` and one for each scalar metric (``test/acc`` ...).
        activations: mode (train, eval, probe) -> statistics of the layers over training.
        note: what is missing in a run that counts all the same.
    """

    folder: Path
    name: str
    status: str
    reason: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    activations: Mapping[str, Tracks] = field(default_factory=dict)
    note: str | None = None

    @property
    def counted(self) -> bool:
        """Whether the run is part of the table."""
        return self.reason is None

    @property
    def seed(self) -> Any:
        """The run's seed as its config says it, or None."""
        return self.config.get("seed")

    def final(self, key: str) -> float:
        """The last value that was logged of a scalar metric; NaN where there is none."""
        return _last(self.metrics[key].dropna().to_numpy()) if key in self.metrics else float("nan")

    def at_layer(self, mode: str, stat: str, layer: str) -> float:
        """The last value of a layer's statistic; NaN where there is none."""
        return _last(self.activations[mode].logged(stat, layer)) if mode in self.activations else float("nan")

    @cached_property
    def layers(self) -> list[str]:
        """Every monitored tensor, in depth order; the input of dropout layer L is called ``L_in``."""
        return in_depth_order({layer for tracks in self.activations.values() for _, layer in tracks.columns})

    @cached_property
    def dropout_layers(self) -> list[str]:
        """The dropout layers, first to last: those with a gain."""
        columns = (key for tracks in self.activations.values() for key in tracks.columns)
        return in_depth_order({layer for stat, layer in columns if stat == "gain"})


def read_runs(folder: str | Path) -> list[Run]:
    """Read all runs below a folder, in the order of their names ("2" before "10").

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}; give a run folder, a sweep, or a folder above them")
    found, foreign = _search(folder, set())
    if not found and not read_skipped(folder):
        raise FileNotFoundError(f"no runs in {folder}: a run is a folder with {', '.join(RUN_FILES)}, made by training")
    runs = [_read(path, _name(path, folder)) for path in found]
    runs += [Run(path, _name(path, folder), "foreign", reason) for path, reason in foreign]
    runs += [Run(path, _name(path, folder), "missing", "there is no such folder") for path in _gaps(found, folder)]
    return sorted(runs, key=lambda run: natural(run.name))


def read_skipped(folder: Path) -> dict[str, str]:
    """Strategies a sweep left out: {arm or strategy: reason}, from every ``skipped.json`` below the folder."""
    skipped: dict[str, str] = {}
    for path in sorted(folder.rglob("skipped.json")):
        content, _ = _load(path, _json)
        skipped |= {str(name): one_line(reason) for name, reason in (content or {}).items()}
    return skipped


def one_line(text: object) -> str:
    """The first line of a message that says something."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "no reason given")


def _search(folder: Path, seen: set[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Run folders in a tree, and the topmost folders that hold none, with the reason."""
    if folder.resolve() in seen:  # a link back up
        return [], []
    seen.add(folder.resolve())
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        return [], [(folder, f"cannot be opened: {error.strerror}")]
    files = {entry.name for entry in entries if not entry.is_dir()}
    if "status.json" in files:
        return [folder], []
    runs: list[Path] = []
    foreign: list[tuple[Path, str]] = []
    for entry in entries:
        if entry.is_dir() and entry.name not in NOT_RUNS and not entry.name.startswith("."):
            inner_runs, inner_foreign = _search(folder / entry.name, seen)
            runs += inner_runs
            foreign += inner_foreign
    if runs:
        return runs, foreign
    if files & set(RUN_FILES):
        return [folder], []
    if any(folder.rglob("look.json")):  # of networks without a run
        return [], []
    return [], [(folder, f"not a run: has none of {', '.join(RUN_FILES)}" if entries else "an empty folder")]


def _name(path: Path, folder: Path) -> str:
    return path.name if path == folder else path.relative_to(folder).as_posix()


def _read(folder: Path, name: str) -> Run:
    about, no_about = _load(folder / "status.json", _json)
    config, no_config = _load(folder / "config.yaml", _yaml)
    status = "unreadable" if no_about else str(about.get("status"))
    run = Run(folder, name, status, config=config or {}, about=about or {})
    if no_about:
        return replace(run, reason=no_about)
    if status != "ok":
        return replace(run, reason=_why_not_counted(run))
    if no_config:
        return replace(run, status="unreadable", reason=no_config)
    metrics, no_metrics = _load(folder / "metrics.csv", read_metrics)
    if no_metrics:
        return replace(run, status="unreadable", reason=no_metrics)
    activations, no_activations = _load(folder / "activations.csv", read_activations)
    callbacks = run.config.get("callbacks")
    if callbacks is not None and "activation_stats" not in callbacks:
        no_activations = None  # nobody asked for them
    run = replace(run, metrics=metrics, activations=activations or {}, note=no_activations)
    absent = [key for key in ("test/acc", "test/loss", "gap/loss") if not math.isfinite(run.final(key))]
    return replace(run, note=f"metrics.csv has no finite {', '.join(absent)}") if absent else run


def _load(path: Path, parse: Callable[[Path], Any]) -> tuple[Any, str | None]:
    """What a file holds, and, where it cannot be read, why."""
    try:
        return parse(path), None
    except FileNotFoundError:
        return None, f"half-written: {path.name} is missing"
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: bad JSON, bad UTF-8, pandas' parser errors
        return None, f"{path.name} cannot be read: {one_line(error)}"


def _json(path: Path) -> dict[str, Any]:
    return _mapping(json.loads(path.read_text(encoding="utf-8")))


def _yaml(path: Path) -> dict[str, Any]:
    # The C loader is ten times as fast, which is 20 s for 500 runs.
    return _mapping(yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _mapping(content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, not names with values")
    return content


def _why_not_counted(run: Run) -> str:
    error = run.about.get("error")
    if run.status == "running":
        return "still running, or killed: status.json says running"
    if run.status in ("failed", "interrupted"):
        return f"{run.status}: {one_line(error)}" if error else run.status
    return f"status.json says {run.status!r}, not ok, failed, interrupted or running"


def _gaps(found: list[Path], folder: Path) -> list[Path]:
    """Folders a sweep's numbering (0, 1, 2, ...) leaves out; of a single run that was asked for, none."""
    numbers: dict[Path, set[int]] = {}
    for path in found:
        if path.name.isdigit() and path != folder:
            numbers.setdefault(path.parent, set()).add(int(path.name))
    return [parent / str(n) for parent, taken in numbers.items() for n in range(max(taken)) if n not in taken]


def _last(values: np.ndarray) -> float:
    return float(values[-1]) if len(values) else float("nan")
