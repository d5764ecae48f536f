"""Provenance of a run: which code ran, with which versions, started by which command."""

import functools
import hashlib
import json
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dropout_lab.jobs.conf import ORIGIN, REPOSITORY

PACKAGES = ("dropout-lab", "torch", "torchvision", "lightning", "hydra-core", "wandb", "numpy")


@functools.cache
def provenance() -> dict[str, Any]:
    """The provenance of what runs now: git revision and changes (None outside a repository), versions, command line.

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


def _code_hash() -> str:
    """A fingerprint of every Python file in src/."""
    digest = hashlib.sha256()
    source = REPOSITORY / "src"
    for path in sorted(source.rglob("*.py")):
        digest.update(f"{path.relative_to(source)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    """The output of a git command in this repository; None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="replace")


def _version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
