"""What runs have left in their folders."""

import json
from contextlib import contextmanager

import pytest
import torch


def same(ours, theirs, checkpoints=("last",)):
    """Metrics, activation statistics and weights, bit for bit; it fails where they differ."""
    for name in ("metrics.csv", "activations.csv"):  # the latter where there are statistics
        one, two = (folder / name for folder in (ours, theirs))
        assert one.exists() == two.exists()
        assert not one.exists() or one.read_text() == two.read_text(), name
    for name in checkpoints:
        one, two = (torch.load(folder / "checkpoints" / f"{name}.ckpt") for folder in (ours, theirs))
        assert one["global_step"] == two["global_step"]
        for key, value in two["state_dict"].items():
            assert torch.equal(one["state_dict"][key], value), f"{name}: {key}"
    return True


@contextmanager
def stopped(kind, when):
    """Let training with a class of modules fail within, at the step of which ``when(module, batch_idx)`` is true."""
    step = kind.training_step

    def stopping(self, batch, batch_idx):
        if when(self, batch_idx):
            raise KeyError("stopped")
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "training_step", stopping)
        yield


def unfinished(folder):
    """Let a run have been interrupted after its last checkpoint."""
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "status": "interrupted", "sha256": None}))
    return folder


def without_checksums(folder):
    """Let a run be of before there were checksums."""
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "sha256": None}))
    return folder


def with_masks_of(version, folder):
    """Let a run have been trained with the masks of another version; None: of before there were versions."""
    for path in (folder / "checkpoints").glob("*.ckpt"):
        checkpoint = torch.load(path)
        del checkpoint["masks_version"]
        torch.save(checkpoint | ({} if version is None else {"masks_version": version}), path)
    return without_checksums(folder)


def content(folder):
    """Every file in a folder, with what is in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
