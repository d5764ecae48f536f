"""Runs of two arms that claim something."""

from dropout_lab.report.claims.data import read_claimed
from dropout_lab.runs.read import read_runs
from dropout_lab.verdict.numbers import Numbers

CLAIM = {"metric": "test/acc", "contrast": {"b": 1, "a": -1}}
HOLDS = CLAIM | {"says": "b is more accurate than a", "direction": "greater", "matters": 0.005}
FAILS = CLAIM | {"says": "b is less accurate <than> a", "direction": "less", "matters": 0.005}
EQUAL = CLAIM | {"says": "both are as accurate", "direction": "equal", "margin": 0.1}
PLOT = {"x": "units", "y": "accuracy", "log": ["x"], "reference": {"a law": {1: 0.9, 100: 0.95}}}
PLOT |= {"lines": {"a & b": {"metric": "test/acc", "arms": {"a": 10, "b": 100}}}}


def claimed(folder):
    """What the runs in a folder claim, and what comes out."""
    return read_claimed(read_runs(folder), Numbers(folder, measures=True))


def sweep(folder, write_run, *claims, figure=(), filters=(), seeds=8):
    """Two arms; b is more accurate by 0.02, give or take 0.001 at odd and even seeds."""
    verdict = {"claims": list(claims), "figure": list(figure), "filters": list(filters)}
    for seed in range(seeds):
        for arm, acc in (("a", 0.9), ("b", 0.92 + 0.001 * (-1) ** seed)):
            final = {"test/acc": acc + 0.01 * seed}
            write_run(folder / f"{arm}{seed}", arm=arm, seed=seed, final=final, config={"verdict": verdict}, epochs=1)
    return folder
