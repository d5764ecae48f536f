"""The Lightning and Hydra part stands on its own."""

import re
import shutil

import pandas as pd
import pytest
from commands import run

from dropout_lab.config import REPOSITORY
from dropout_lab.run_folder import read_status

KEPT = {  # what an empty list of sites and activation statistics need
    "src/dropout_lab/dropout": {"attach", "graph", "keys", "layer", "maps", "noise", "philox", "placement", "rates"}
    | {"schedules", "sites", "unreached", "__init__"},
    "conf/dropout": {"none"},
    "conf/dropout_schedule": {"constant"},
    "conf/placement": {"none"},
    "conf/sweep": set(),
}
QUESTIONS = [
    "claims",
    "compare",
    "diff",
    "explain",
    "fold",
    "look",
    "measures",
    "replay",
    "report",
    "results",
    "verdict",
]


@pytest.mark.slow
def test_what_is_about_dropout_can_be_deleted(tmp_path):
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "src" / "dropout_lab"
    deleted = set()
    for folder, kept in KEPT.items():
        for path in (tmp_path / folder).iterdir():
            if path.stem not in kept:
                path.unlink()
                deleted.add(path.stem)
    for name in QUESTIONS:
        shutil.rmtree(package / name) if (package / name).is_dir() else (package / f"{name}.py").unlink()
    shutil.rmtree(tmp_path / "conf" / "experiment")
    exports = (package / "dropout" / "__init__.py").read_text()
    for module, names in re.findall(r"^from dropout_lab\.dropout\.(\w+) import (.*)$", exports, re.MULTILINE):
        if module in deleted:
            exports = exports.replace(f"from dropout_lab.dropout.{module} import {names}\n", "")
            for name in names.split(", "):
                exports = exports.replace(f'    "{name}",\n', "")
    (package / "dropout" / "__init__.py").write_text(exports)

    defaults = (tmp_path / "conf" / "train.yaml").read_text()
    defaults = defaults.replace("- dropout: inverted", "- dropout: none").replace(
        "- placement: default", "- placement: none"
    )
    (tmp_path / "conf" / "train.yaml").write_text(defaults)

    words = ["-m", "seed=0,1", "trainer.max_epochs=5", "logger=csv", f"hydra.sweep.dir={tmp_path / 'runs'}"]
    done = run(*words, copy=tmp_path)
    assert done.returncode == 0, done.stderr
    for job in "01":
        assert read_status(tmp_path / "runs" / job)["status"] == "ok"
        assert pd.read_csv(tmp_path / "runs" / job / "metrics.csv")["test/acc"].iloc[-1] > 0.8
