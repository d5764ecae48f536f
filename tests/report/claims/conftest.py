"""What the tests of claims share."""

import numpy as np
import pytest


@pytest.fixture
def weights(monkeypatch):
    """Those of three units that see 2x2 images: each its own pattern, at a scale that says arm and seed."""
    patterns = np.array([[[1, 0], [0, -2]], [[0, 4], [0, 0]], [[-8, 8], [-8, 8]]], dtype=np.float32)
    monkeypatch.setattr("dropout_lab.verdict.trained_network.load", lambda folder: folder.name)
    scale = {"a0": 1e-3, "b0": 1e3}
    monkeypatch.setattr("dropout_lab.verdict.units.filters", lambda name: patterns[..., None] * scale[name])
