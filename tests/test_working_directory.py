"""Standing in a folder that somebody sent, a command imports nothing from there."""

import os
import subprocess
import sys

import pytest

from dropout_lab.jobs.conf import REPOSITORY

SHADOWED = ("torch", "html", "numpy", "yaml", "multiprocessing")


@pytest.mark.slow
def test_a_command_and_what_it_starts_import_nothing_from_where_it_is_given(tmp_path):
    received, customized = tmp_path / "received", tmp_path / "customized"
    received.mkdir()
    customized.mkdir()
    for name in SHADOWED:
        (received / f"{name}.py").write_text(f"open({name!r}, 'w')\nraise SystemExit(3)\n")
    start = "lambda: subprocess.run([sys.executable, '-S', '-c', 'import html; print(7)'])"
    text = f"import atexit, subprocess, sys\natexit.register({start})\n"
    (customized / "sitecustomize.py").write_text(text)  # runs before Python looks here, and again at the end
    environment = {**os.environ, "PYTHONPATH": str(customized)}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, "-m", "dropout_lab.explain", "p=0.75"]
    done = subprocess.run(command, cwd=received, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "gain" in done.stdout
    assert "7" in done.stdout.splitlines()
    assert {path.suffix for path in received.iterdir()} == {".py"}  # none has run


def test_every_script_starts_python_without_the_folder_in_which_it_is_called():
    for path in (REPOSITORY / "scripts").iterdir():
        if path.is_file() and path.name != "rename":  # Python's own line #! names the file, whose folder it searches
            lines = [line for line in path.read_text().splitlines() if '" -m ' in line]
            assert lines == [], f"{path.name} calls Python without -P"
    assert "PYTHONSAFEPATH=1" in (REPOSITORY / "scripts" / "wandb_sweep.yaml").read_text()
    for line in (REPOSITORY / "conf" / "README.md").read_text().splitlines():
        assert not line.startswith("torchrun")
