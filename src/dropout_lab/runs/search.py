"""The search for run folders below a folder: which there are, what lies there that is none, and which are missing."""

import os
from pathlib import Path

from dropout_lab.cli import plain
from dropout_lab.runs.folder import CHECKPOINTS, CONFIG, LOOK, METRICS, STATUS

RUN_FILES = (STATUS, CONFIG, METRICS)
NOT_RUNS = {"wandb", CHECKPOINTS, "tensorboard", "code", "__pycache__"}  # left beside or inside run folders


def search(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The run folders in and below a folder, and the topmost folders that hold none, with the reason."""
    return _search(folder, set())


def gaps(found: list[Path], folder: Path) -> list[Path]:
    """Folders a sweep's numbering (0, 1, 2, ...) leaves out; of a single run that was asked for, none."""
    numbers: dict[Path, set[int]] = {}
    for path in found:
        if path.name.isdigit() and path != folder:
            numbers.setdefault(path.parent, set()).add(int(path.name))
    return [parent / str(n) for parent, taken in numbers.items() for n in range(max(taken)) if n not in taken]


def _search(folder: Path, seen: set[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The search below one folder; ``seen`` are those that it has been in."""
    if folder.resolve() in seen:  # a link back up
        return [], []
    seen.add(folder.resolve())
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        return [], [(folder, f"cannot be opened: {error.strerror}")]
    files = {entry.name for entry in entries if not entry.is_dir()}
    if STATUS in files:
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
    if any(folder.rglob(LOOK)):  # of networks without a run
        return [], []
    return [], [(folder, f"not a run: has none of {', '.join(RUN_FILES)}" if entries else "an empty folder")]


def name_of(path: Path, folder: Path) -> str:
    """The name of a run: its path below the folder that is read, or that folder's own name, as text."""
    name = path.name if path == folder else path.relative_to(folder).as_posix()
    return str(plain(os.fsencode(name).decode(errors="replace")))
