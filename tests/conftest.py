"""What holds for every test: it begins and ends in the same surroundings, whichever ran before it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest_plugins = ["fake_runs", "trained_run"]

# Begun first: else one worker has them at the end, while the others have nothing left to do.
LONGEST = [
    Path(__file__).parent.joinpath(*room, f"test_{name}.py")
    for *room, name in (
        *(["hydra_plugins", "slurm"], ["jobs", "processes"], ["runs", "resume"]),
        *(["hydra_plugins", "dropout_lab_launchers"], ["readme"], ["runs", "wandb_logger"], ["torchvision_models"]),
        *(["train", "main"], ["dropout", "folding", "fold"], ["data", "image_folder"], ["browser"]),
        *(["baselines"], ["scripts", "rename"], ["compiled_models"], ["compare"], ["experiments"]),
        *(["report", "report"], ["dropout", "philox_triton"]),
    )
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest, then the others, each in its own order."""
    items.sort(key=lambda item: LONGEST.index(item.path) if item.path in LONGEST else len(LONGEST))


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
