"""The Lightning and Hydra part stands on its own."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from commands import run

from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.runs.folder import read_status

GUIDE = (REPOSITORY / "src" / "dropout_lab" / "README.md").read_text()
DELETE = re.search(r"^```bash\n(rm -r .*?)^```", GUIDE, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.slow
def test_what_is_about_dropout_can_be_deleted(tmp_path):
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "src" / "dropout_lab"
    subprocess.run(["bash", "-euc", DELETE], cwd=tmp_path, check=True)
    exports = (package / "dropout" / "__init__.py").read_text()
    for module, names in re.findall(r"^from dropout_lab\.dropout\.([\w.]+) import (.*)$", exports, re.MULTILINE):
        if not (package / "dropout" / f"{module.replace('.', '/')}.py").exists():
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
