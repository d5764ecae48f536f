"""The folder of one run: its configuration, how it was started, and how it ended."""

import functools
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from dropout_lab.config import ORIGIN, REPOSITORY
from dropout_lab.errors import UserError

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
        file = self.path / "status.json"
        try:
            write_whole(file, json.dumps(record, indent=1).encode())
        except OSError:  # a full disk has room for one more only in place of the old one, and for none that is longer
            file.unlink(missing_ok=True)
            file.write_text(json.dumps({**record, "traceback": None}, indent=1))


def check_place(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, without making it.

    Raises:
        UserError: it cannot be made there, or its disk is full.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:  # permissions are not all: disks are read-only, or full
            file.write(bytes(2**16))
    except OSError as error:
        raise UserError(f"{folder}: nothing can be written there: {there}: {error.strerror}") from error


def read_status(path: Path) -> dict[str, Any]:
    """``status.json`` of a run folder; ``{"status": "missing"}`` where there is none that can be read."""
    try:
        status = json.loads((path / "status.json").read_text())
        return status if isinstance(status, dict) else {"status": "missing"}
    except (OSError, ValueError):
        return {"status": "missing"}


@functools.cache
def provenance() -> dict[str, Any]:
    """Which code ran: git revision and uncommitted changes (None outside a repository), versions, command line.

    ``code_hash`` stands for the content of src/, whatever of it git knows; what conf/ says is in the configuration.
    """
    git = {
        "git_sha": sha.strip() if (sha := _git("rev-parse", "HEAD")) else None,
        "git_diff": _git("diff", "--no-ext-diff", "--no-color", "HEAD"),  # whole, so that `git apply` takes it
    }
    if ORIGIN.exists():
        git = {key: json.loads(ORIGIN.read_text())[key] for key in git}
    return {
        **git,
        "code_hash": _code_hash(),
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
    """Write a file that is whole at any moment."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, beside the one that it replaces once it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)  # a full disk needs its room
        raise


def _code_hash() -> str:
    digest = hashlib.sha256()
    source = REPOSITORY / "src"
    for path in sorted(source.rglob("*.py")):
        digest.update(f"{path.relative_to(source)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


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
