"""The folder of one run: the names of its files, and its configuration and status, written and read."""

import errno
import json
import logging
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropout_lab.cli import UserError, root_cause
from dropout_lab.jobs.config_files import names_in, text_of, written_out
from dropout_lab.modules.divergence import DivergenceError
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.digests import digests
from dropout_lab.runs.old_targets import has_old_targets, renewed
from dropout_lab.runs.provenance import provenance
from dropout_lab.runs.written import as_written

CONFIG, STATUS = "config.yaml", "status.json"
METRICS, ACTIVATIONS = "metrics.csv", "activations.csv"
TABLES = (METRICS, ACTIVATIONS)
CHECKPOINTS = "checkpoints"  # a folder of NAME.ckpt
LOG = "processes.log"  # what the processes of a job in a sweep print
OBJECTIVE = "objective.txt"  # what the first process of several tells the one that waits for them
LOOK, LOOK_PICTURE = "look.json", "look.png"  # what `look` leaves in a folder of its own, often below a run's
SKIPPED = "skipped.json"  # in a sweep's folder: the strategies that it left out

_TEXTS = ("error", "traceback", "git_sha", "git_diff", "code_hash", "command", "config_hash")
_KINDS = dict.fromkeys(_TEXTS, str) | {"versions": dict, "sha256": dict, "earlier_code_hashes": list}  # or null

log = logging.getLogger(__name__)


@dataclass
class RunFolder:
    """Writes ``config.yaml`` and ``status.json`` of a run; both are whole at any moment, also after a kill.

    Args:
        path: the folder; made when missing.
        config_hash: fingerprint of the configuration.
        writes: False on all but one of the processes that share the run: nothing is written then.
        objective: the run's result, for sweepers that look for the best; set before the end.
        earlier_code: fingerprints of other code that the run was begun with.
    """

    path: Path
    config_hash: str
    writes: bool = True
    objective: float | None = None
    earlier_code: list[str] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Say in ``status.json`` why a run fails within, before it is recorded; one that is there and whole stays."""
        try:
            yield
        except Exception as error:
            if read_status(self.path)["status"] not in ("ok", "running"):
                self._fail(error)
            raise

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep ``status.json`` right about what happens within: running, then ok, failed, diverged or interrupted."""
        self._write_status("running")
        try:
            yield
        except Exception as error:
            self._fail(error)
            raise
        except BaseException as error:  # Ctrl-C, SIGTERM
            self._end("interrupted", type(error).__name__, traceback.format_exc())
            raise
        self._write_status("ok")

    def go_on(self) -> None:
        """Go on with the run that is there: where it was begun with other code, a line and ``status.json`` say so."""
        before, now = read_status(self.path), provenance()["code_hash"]
        self.earlier_code = list(before.get("earlier_code_hashes") or [])
        if (then := before.get("code_hash", now)) != now:
            self.earlier_code.append(then)
            if self.writes:
                log.warning("src/ has changed since %s was begun: code_hash was %s, now %s", self.path, then, now)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved configuration to ``config.yaml``."""
        if self.writes:
            write_whole(self.path / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)).encode())

    def hand_over(self, objective: float) -> None:
        """Leave the run's result for the process that waits for those of a job."""
        if self.writes:
            write_whole(self.path / OBJECTIVE, repr(objective).encode())

    def take_objective(self) -> float:
        """The result that the processes of a job have handed over."""
        objective = float((self.path / OBJECTIVE).read_text())
        (self.path / OBJECTIVE).unlink()
        return objective

    def _fail(self, error: Exception) -> None:
        if isinstance(error, DivergenceError):
            return self._end("diverged", str(error))
        self._end("failed", root_cause(error), getattr(error, "trace", None) or traceback.format_exc())

    def _end(self, status: str, *why: str | None) -> None:
        """Write how a run has ended that did not end well; where that can't be written, why it ended is told anyway."""
        with suppress(OSError):
            self._write_status(status, *why)

    def _write_status(self, status: str, error: str | None = None, trace: str | None = None) -> None:
        """Write ``status.json``, in place of the old one also where the disk is full."""
        if not self.writes:
            return
        record = {
            "status": status,
            "error": error,
            "traceback": trace,
            **provenance(),
            "seconds": round(time.monotonic() - self._start, 3),
            "config_hash": self.config_hash,
            "objective": self.objective if self.objective is None or isfinite(self.objective) else None,
            "sha256": digests(self.path, self._left()) if status in ("ok", "diverged") else None,  # others go on
        }
        if not self.config_hash:  # it failed before that was known, so that any configuration may be run there
            del record["config_hash"]
        if self.earlier_code:
            record["earlier_code_hashes"] = self.earlier_code
        file = self.path / STATUS
        try:
            write_whole(file, json.dumps(record, indent=1).encode())
        except OSError as reason:
            if reason.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A full disk has room for one more only in place of the old one, and for none that is longer.
            file.unlink(missing_ok=True)
            file.write_text(json.dumps({**record, "traceback": None}, indent=1))

    def _left(self) -> list[Path]:
        """The files that make up a run, there or not."""
        return [*(self.path / name for name in (CONFIG, *TABLES)), *checkpoints(self.path)]


def require_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, without making it.

    Raises:
        UserError: it cannot be made there, its disk is full, or its name is no text.
    """
    if why := why_unnamed(folder):
        raise UserError(f"{folder}: {why}")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:  # permissions are not all: disks are read-only, or full
            file.write(bytes(2**16))
    except OSError as error:
        raise UserError(f"{folder}: nothing can be written there: {there}: {error.strerror}") from error


def why_unnamed(folder: Path) -> str | None:
    """Why a folder can't be used by its name, which torch, pages and tables take for UTF-8; None where it can."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        try:
            os.fsencode(folder).decode()
        except UnicodeDecodeError:
            return "its name is not UTF-8; rename it"
        return "its name is UTF-8, which Python does not expect here; set PYTHONUTF8=1"
    return None


def read_status(path: Path) -> dict[str, Any]:
    """``status.json`` of a run folder; ``{"status": "missing"}`` where there is none that can be read."""
    try:
        return status_of(path)
    except (OSError, ValueError):
        return {"status": "missing"}


def status_of(folder: Path) -> dict[str, Any]:
    """The content of ``status.json`` in a run folder.

    Raises:
        OSError, ValueError: it is not there, or is no status.
    """
    try:
        content = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("its values lie too deep") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, not names with values")
    if not isinstance(content.get("status"), str):
        raise ValueError("it does not say the status")
    if odd := [key for key, kind in _KINDS.items() if not isinstance(content.get(key), kind | None)]:
        raise ValueError(f"{odd[0]}: {type(content[odd[0]]).__name__} is no value for it")
    return content


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration in a run folder as plain containers, its ``_target_``s as they are called today.

    Raises:
        OSError, ValueError: it is not there, or is no configuration.
    """
    return as_written(renewed(_as_written(folder)))


def is_of_earlier_version(folder: Path) -> bool:
    """Whether an earlier version of this package has written the configuration in a run folder."""
    try:
        return has_old_targets(_as_written(folder))
    except (OSError, ValueError):
        return False


def read_config(folder: Path) -> DictConfig:
    """The configuration that a run wrote, for a command: where it can't be read, one line says so.

    Raises:
        UserError: there is none.
    """
    if why := why_unnamed(folder):
        raise UserError(f"{folder}: {why}")
    if not (folder / CONFIG).is_file():
        kind = f"is not a run folder: it has no {CONFIG}" if folder.is_dir() else "does not exist"
        raise UserError(f"{folder}: {kind}; give the folder of one run, e.g. runs/2026-01-31/12-00-00-000000")
    try:
        return OmegaConf.create(written_out(config_of(folder)))  # type: ignore[no-any-return]
    except (OSError, ValueError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {' '.join(str(error).split())}") from error


def checkpoint(folder: Path, name: str) -> Path:
    """The path of a run's checkpoint of this name, there or not: "best" (in validation), "last", or any other."""
    return folder / CHECKPOINTS / f"{name}.ckpt"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, in the order of their names."""
    return sorted((folder / CHECKPOINTS).glob("*.ckpt"))


def _as_written(folder: Path) -> dict[str, Any]:
    """The configuration in a run folder as it stands there."""
    if not (content := names_in(text_of(folder / CONFIG))):
        raise ValueError("it is empty")
    return content
