"""The folder of one run: its configuration, how it was started, and how it ended."""

import functools
import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from dropout_lab.config import ORIGIN, REPOSITORY

PACKAGES = ("dropout-lab", "torch", "torchvision", "lightning", "hydra-core", "wandb", "numpy")


@dataclass
class RunFolder:
    """Writes ``config.yaml`` and ``status.json`` of a run; both are whole at any moment, also after a kill.

    Args:
        path: the folder; made when missing.
        config_hash: fingerprint of the configuration.
        writes: False on all but one of the processes that share the run: nothing is written then.
        objective: the run's result, for sweepers that look for the best; set before the end.
    """

    path: Path
    config_hash: str
    writes: bool = True
    objective: float | None = None
    _start: float = field(default_factory=time.monotonic)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep ``status.json`` right about what happens inside: running, then ok, failed or interrupted."""
        self._write_status("running")
        try:
            yield
        except Exception as error:
            self._write_status("failed", root_cause(error), getattr(error, "trace", None) or traceback.format_exc())
            raise
        except BaseException as error:  # Ctrl-C, SIGTERM
            self._write_status("interrupted", type(error).__name__, traceback.format_exc())
            raise
        self._write_status("ok")

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved configuration."""
        if self.writes:
            write_whole(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())

    def _write_status(self, status: str, error: str | None = None, trace: str | None = None) -> None:
        if not self.writes:
            return
        record = {
            "status": status,
            "error": error,
            "traceback": trace,
            **provenance(),
            "seconds": round(time.monotonic() - self._start, 3),
            "config_hash": self.config_hash,
            "objective": self.objective,
        }
        write_whole(self.path / "status.json", json.dumps(record, indent=1).encode())


def read_status(path: Path) -> dict[str, Any]:
    """``status.json`` of a run folder; ``{"status": "missing"}`` where there is none that can be read."""
    try:
        status = json.loads((path / "status.json").read_text())
        return status if isinstance(status, dict) else {"status": "missing"}
    except (OSError, ValueError):
        return {"status": "missing"}


@functools.cache
def provenance() -> dict[str, Any]:
    """Which code ran: git revision and uncommitted changes (None outside a repository), versions, command line."""
    git = {
        "git_sha": sha.strip() if (sha := _git("rev-parse", "HEAD")) else None,
        "git_diff": _git("diff", "--no-ext-diff", "--no-color", "HEAD"),  # whole, so that `git apply` takes it
    }
    if ORIGIN.exists():
        git = {key: json.loads(ORIGIN.read_text())[key] for key in git}
    return {
        **git,
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}},
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
    }


def root_cause(error: BaseException) -> str:
    """One line: the error itself, not that instantiating something failed because of it.

    The kind of error stands in front, but for those that are about values and files and say all there is to say.
    """
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    if text and isinstance(error, ValueError | FileNotFoundError | ChildProcessError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole at any moment: beside it, onto the disk, then in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="replace")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
