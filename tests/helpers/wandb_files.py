"""Read W&B's offline runs in tests, without a server: the records of a ``run-*.wandb`` file, put together."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropout_lab.runs.wandb_files import records


@dataclass
class OfflineRun:
    """What one run logged to its offline files.

    Attributes:
        run: id, name, project, entity, group, job_type, tags, notes.
        config, summary: nested as they were given; the summary has the last value of each key.
        history: one dictionary for each call of ``log``.
        metrics: one dictionary for each ``define_metric``: name, glob, step.
        files: names of files that were saved with the run.
        exit_code: None where the run was never finished.
    """

    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None

    def series(self, key: str, x: str = "trainer/global_step") -> list[tuple[Any, Any]]:
        """Pairs (x, value) of a key, wherever it was logged."""
        return [(row.get(x), row[key]) for row in self.history if key in row]


def read_all(folder: Path, timeout: float = 10) -> list[OfflineRun]:
    """Every finished run of ``folder/wandb``, in order of its name (of its start, where they are seconds apart)."""
    return [read_finished(path, timeout) for path in sorted((folder / "wandb").glob("offline-run-*"))]


def read_finished(path: Path, timeout: float = 10) -> OfflineRun:
    """One run, once it is complete: ``finish()`` returns before the file is.

    Args:
        path: a ``.wandb`` file or its ``offline-run-*`` folder.
        timeout: seconds to wait for the record of the exit.
    """
    end = time.monotonic() + timeout
    while (found := read(path)).exit_code is None and time.monotonic() < end:
        time.sleep(0.05)
    return found


def read(path: Path) -> OfflineRun:
    """One run as far as it was written; a last record that a kill left unfinished is left out."""
    found = OfflineRun()
    for record in records(next(path.glob("run-*.wandb")) if path.is_dir() else path):
        _add(found, record)
    return found


def _add(found: OfflineRun, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        found.run = {
            "id": run.run_id,
            "name": run.display_name,
            "project": run.project,
            "entity": run.entity,
            "group": run.run_group,
            "job_type": run.job_type,
            "tags": list(run.tags),
            "notes": run.notes,
        }
        _put_all(found.config, run.config.update)
    elif kind == "config":
        _put_all(found.config, record.config.update)
    elif kind == "summary":
        _put_all(found.summary, record.summary.update)
    elif kind == "history":
        row: dict[str, Any] = {}
        _put_all(row, record.history.item)
        found.history.append(row)
        found.summary |= row
    elif kind == "metric":
        metric = record.metric
        found.metrics.append({"name": metric.name, "glob": metric.glob_name, "step": metric.step_metric})
    elif kind == "files":
        found.files += [file.path for file in record.files.files]
    elif kind == "exit":
        found.exit_code = record.exit.exit_code


def _put_all(into: dict[str, Any], items: Iterable[Any]) -> None:
    for item in items:
        *outer, last = item.nested_key or [item.key]
        node = into
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)
