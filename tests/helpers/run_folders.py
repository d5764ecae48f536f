"""What runs have left in their folders."""

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
