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
MOST_NEW_FILES = 100  # a process of git each
MOST_NEW_BYTES = 2**18  # together: every run folder has them


@functools.cache
def provenance() -> dict[str, Any]:
    """The provenance of what runs now: git revision and changes (None outside a repository), versions, command line.

    Changes are a patch that ``git apply`` takes, with the files of src/ and conf/ that are new to git. ``code_hash``
    stands for the content of src/, whatever of it git knows; what conf/ says is in the configuration.
    """
    git = {
        "git_sha": sha.strip() if (sha := _git("rev-parse", "HEAD")) else None,
        "git_diff": None if (changes := _diff("HEAD")) is None else _new_files() + changes,
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


def _new_files() -> str:
    """A patch that makes the files of src/ and conf/ that git neither knows nor ignores; first, which it leaves out."""
    names = (_git("ls-files", "-z", "--others", "--exclude-standard", "--", "src", "conf") or "").split("\0")[:-1]
    if not names:
        return ""
    inside = (_git("rev-parse", "--show-prefix") or "").strip()  # the patch is of the whole repository, as the other is
    prefixes = [f"--src-prefix=a/{inside}", f"--dst-prefix=b/{inside}"]
    patches: list[str] = []
    left_out, size = [], 0
    for name in names:
        more = _size_of_text(REPOSITORY / name)
        if more is None or size + more > MOST_NEW_BYTES or len(patches) == MOST_NEW_FILES:
            left_out.append(name)
            continue
        size += more
        patches.append(_diff("--no-index", *prefixes, "--", "/dev/null", name) or "")
    told = f"new files that are too large, too many or no text to be here: {', '.join(left_out)}\n" if left_out else ""
    return told + "".join(patches)


def _size_of_text(path: Path) -> int | None:
    """The bytes of a file that a patch can make; None for any other one."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_NEW_BYTES:
        return None
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        return None
    return None if b"\0" in content else len(content)


def _diff(*arguments: str) -> str | None:
    """A patch as git makes it, whatever its user has chosen to see."""
    return _git("diff", "--no-ext-diff", "--no-color", *arguments)


def _git(*arguments: str) -> str | None:
    """The output of a git command in this repository; None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True)
    except OSError:
        return None
    # 1 says that two files differ.
    return done.stdout.decode(errors="replace") if done.returncode in (0, 1) else None


def _version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
