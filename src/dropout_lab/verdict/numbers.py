"""Numbers that only trained networks tell: measured once, kept in ``verdict.json``, and read where nothing is built."""

import hashlib
import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.read import Run
from dropout_lab.runs.replicates import Replicate
from dropout_lab.verdict.metrics import measure, measured
from dropout_lab.verdict.statement import Statement

VERDICT = "verdict.json"  # in the folder of the runs that are judged

log = logging.getLogger(__name__)


class Numbers:
    """The numbers of the runs in a folder that their networks have to be asked for.

    Args:
        folder: of the runs.
        measures: whether they are measured; else those in the folder's ``verdict.json`` are all there are.

    Attributes:
        unmeasured: the metrics, and arms whose filters, somebody has asked for in vain.
    """

    def __init__(self, folder: Path, measures: bool) -> None:
        self.folder, self.measures = folder, measures
        self.unmeasured: set[str] = set()
        self._numbers, self._filters = ({}, {}) if measures else _read(folder / VERDICT)

    def of(self, metric: str, *runs: Run) -> float:
        """A number of one run, or of two; NaN where there is none, or it is not measured."""
        of_metric, key = self._numbers.setdefault(metric, {}), _key(*runs)
        if key not in of_metric:
            if not self.measures:
                self.unmeasured.add(metric)
                return float("nan")
            of_metric[key] = measured(metric, *runs)
        return of_metric[key]

    def filters(self, arm: str, run: Run) -> np.ndarray | None:
        """The weights of a run's first layer as images, (units, H, W, C); None where they are not measured."""
        key = _key(run)
        if key not in self._filters:
            if not self.measures:
                self.unmeasured.add(f"filters of {arm}")
                return None
            from dropout_lab.verdict.trained_network import load  # torch takes seconds, and few experiments need it
            from dropout_lab.verdict.units import filters

            self._filters[key] = filters(load(run.folder))
        return self._filters[key]

    def measure_figures(self, statement: Statement, arms: Mapping[str, Mapping[Replicate, Run]]) -> None:
        """Measure what the pictures of an experiment show besides its claims."""
        for line in (line for plot in statement.figure for line in plot.lines.values()):
            for arm, metric, _ in line.points:
                for run in arms.get(arm, {}).values():
                    measure(run, metric, self.of)
        for arm in (arm for arm in statement.filters if arm in arms):
            self.filters(arm, arms[arm][min(arms[arm])])

    def write(self) -> None:
        """Write what is known into the folder, for the report; where that is not possible, say so."""
        numbers = {
            metric: {key: value if np.isfinite(value) else None for key, value in of_runs.items()}
            for metric, of_runs in self._numbers.items()
        }
        filters = {key: _encoded(images) for key, images in self._filters.items()}
        try:
            write_whole(self.folder / VERDICT, json.dumps({"numbers": numbers, "filters": filters}, indent=1).encode())
        except OSError as error:
            log.warning("%s: %s: reports will not show what was measured", self.folder / VERDICT, error.strerror)


def _key(*runs: Run) -> str:
    """What tells runs apart: their names, and digests of what they have left."""
    left = (hashlib.sha256(repr(run.about.get("sha256")).encode()).hexdigest()[:8] for run in runs)
    return ", ".join(f"{run.name} {digest}" for run, digest in zip(runs, left, strict=True))


def _read(file: Path) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """The numbers and filters in a file; none where there is no such file, or somebody else's."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        numbers = {
            metric: {key: float("nan" if value is None else value) for key, value in of_runs.items()}
            for metric, of_runs in content["numbers"].items()
        }
        return numbers, {key: _decoded(**images) for key, images in content["filters"].items()}
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be read, as if nothing was measured: %s", file, type(error).__name__)
        return {}, {}


def _encoded(images: np.ndarray) -> dict[str, Any]:
    """An array as JSON has it."""
    return {"shape": images.shape, "float32": b64encode(images.astype("<f4").tobytes()).decode()}


def _decoded(shape: list[int], float32: str) -> np.ndarray:
    """The array that was encoded, four dimensions of it.

    Raises:
        ValueError, TypeError: it is none.
    """
    units, *image = shape
    height, width, channels = image
    return np.frombuffer(b64decode(float32, validate=True), "<f4").reshape(units, height, width, channels)
