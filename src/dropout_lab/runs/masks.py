"""Masks of a stored run: whether this package still draws those that it was trained with."""

from pathlib import Path

from dropout_lab.cli import UserError
from dropout_lab.dropout import MASKS_VERSION
from dropout_lab.runs.folder import checkpoints, read_config
from dropout_lab.runs.network import load_checkpoint


def why_other_masks(folder: Path) -> str | None:
    """Why a run met other masks than this package draws, as words to put behind "a run"; None: it met the same.

    Its checkpoints tell: each carries the version of the masks, those of before there were versions carry none and are
    version 1. A run with ``keyed=false`` draws from torch's generator, whose masks have no version, and a run without a
    checkpoint that can be read has nothing to go on from.

    Args:
        folder: the run folder.

    Raises:
        UserError: there is no configuration in it.
    """
    if not read_config(folder).get("keyed", True):
        return None
    for path in checkpoints(folder):
        try:
            version = load_checkpoint(path).get("masks_version", 1)
        except UserError:  # who reads its weights says so
            continue
        if version != MASKS_VERSION:
            return f"trained with masks of version {version}, and this package draws those of version {MASKS_VERSION}"
    return None
