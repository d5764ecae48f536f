"""What holds for every test: it begins and ends in the same surroundings, whichever ran before it."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def environment_kept() -> Iterator[None]:
    """Lightning notes seeds and addresses there, from where they would reach whatever a later test starts."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's generator: else the weights of a test's model depend on the tests before it."""
    torch.manual_seed(0)
