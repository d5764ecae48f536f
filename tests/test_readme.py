"""Every command in the README does what it says: it is run, with little data where it would train for long."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from dropout_lab.config import REPOSITORY
from dropout_lab.run_folder import read_status

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("   #")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
FORKED = re.findall(r"^# conf/dropout/(\w+)\.yaml$", README, flags=re.MULTILINE)  # strategies the reader adds
TRAINING = [
    line
    for line in COMMANDS
    if line.startswith(("scripts/train", "scripts/compare", "scripts/lab explain"))
    and not any(name in line for name in FORKED)  # tested in the fork below
]
PYTHON = [block for language, block in BLOCKS if language == "python" and "# src/" not in block]
# So that each takes seconds; what a command gives itself stays.
SMALL = {"trainer.max_epochs": "1", "data.train_size": "64", "logger": "csv", "threads": "1"}


def words_of(command, tmp_path):
    """The Python module and arguments of a command of scripts/."""
    script, *words = shlex.split(command)
    name = script.removeprefix("scripts/")
    if name == "lab":
        name, *words = words
        return name, words
    given = {word.partition("=")[0] for word in words}
    multirun = name == "compare" or "-m" in words
    words += [f"{key}={value}" for key, value in SMALL.items() if key not in given]
    if name == "compare" and "seed" not in given:
        words.append("seed=0,1")
    folder = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    return name, [*words, *([] if folder in given else [f"{folder}={tmp_path / 'runs'}"])]


def test_the_readme_has_commands():
    assert len(COMMANDS) > 10


@pytest.mark.slow
@pytest.mark.parametrize("command", TRAINING)
def test_training_commands_run(command, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    name, words = words_of(command, tmp_path)
    run = importlib.import_module(f"dropout_lab.{name}").main
    try:
        run(words)
        code = 0
    except SystemExit as ended:
        code = ended.code
    assert code in (0, None), capfd.readouterr().err
    for status in tmp_path.rglob("status.json"):
        assert read_status(status.parent)["status"] == "ok"


@pytest.mark.parametrize(("language", "block"), [(language, block) for language, block in BLOCKS if language == "yaml"])
def test_yaml_blocks_are_yaml(language, block):
    assert isinstance(yaml.safe_load(block), dict)


def test_every_file_the_readme_names_is_there():
    names = set(re.findall(r"`((?:src|conf|scripts|tests)/[\w./-]+)`", README))
    assert names
    given = set(re.findall(r"^# ((?:src|conf)/\S+)$", README, flags=re.MULTILINE))  # to be written by the reader
    for name in names - given:
        assert (REPOSITORY / name).exists() or "yours" in name or name == "conf/local/default.yaml", name


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [block for language, block in BLOCKS if language == "python" and "# src/" not in block]
)
def test_python_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.slow
def test_a_fork_adds_a_strategy_with_the_two_files_shown(tmp_path):
    """In a copy of the repository: exactly the files of the README, then its sweep."""
    import os
    import shutil
    import subprocess
    import sys

    copy = tmp_path / "fork"
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    written = []
    for _, block in BLOCKS:
        first, _, rest = block.partition("\n")
        if match := re.fullmatch(r"# ((?:src|conf)/\S+)", first):
            Path(copy / match[1]).write_text(rest)
            written.append(match[1])
    strategies = [name for name in written if name.startswith("conf/dropout/")]
    assert strategies
    sweep = next(line for line in COMMANDS if Path(strategies[0]).stem in line)
    words = words_of(sweep, tmp_path)[1]
    done = subprocess.run(
        [sys.executable, "-m", "dropout_lab.train", *words],
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    statuses = [read_status(path.parent)["status"] for path in (tmp_path / "runs").rglob("status.json")]
    assert statuses
    assert set(statuses) == {"ok"}
