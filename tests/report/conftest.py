"""What the tests of the report share."""

import pytest
from pages import HOSTILE

from dropout_lab.report import build

ACCURACIES = (0.95, 0.96, 0.97)  # of three seeds: mean 0.96, standard deviation 0.01


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, write_run):
    """A folder with a report on three seeds of each of four strategies."""
    folder = tmp_path_factory.mktemp("sweep")
    number = 0
    for kind, shift in (("inverted", 0.01), ("classic", 0.0), ("unscaled", -0.2), ("none", 0.0)):
        for seed, accuracy in enumerate(ACCURACIES):
            # The differences to "none" are shift - 0.001, shift and shift + 0.001.
            wobble = 0.0 if kind == "none" else 0.001 * (seed - 1)
            final = {"test/acc": accuracy + shift + wobble, "test/loss": 0.2 - shift, "gap/loss": 0.03 + shift}
            write_run(folder / str(number), kind=kind, arm=kind, seed=seed, final=final)
            number += 1
    (folder / "skipped.json").write_text('{"gaussian": "no"}')
    (folder / "table.txt").write_text(build(folder).text)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory, write_run):
    """The page of two seeds of four strategies, one of them swept over p, with names that try to break HTML."""
    folder = tmp_path_factory.mktemp("sweep")
    arms = [("inverted", None, 0.5), ("inverted", None, 0.2), ("none", "none", 0.5), ("unscaled", HOSTILE, 0.5)]
    for n, (kind, arm, p) in enumerate(arms):
        for seed in (0, 1):
            write_run(folder / f"{n}{seed}", kind=kind, arm=arm, p=p, seed=seed, epochs=4)
    write_run(folder / "90", kind="spatial", status={"status": "failed", "error": f"ValueError: {HOSTILE}"})
    return build(folder).page
