"""Every command in the README does what it says: it is run, with little data where it would train for long."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from dropout_lab.config import REPOSITORY, plan
from dropout_lab.dropout import check
from dropout_lab.processes import planned
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
FORKED = re.findall(r"^# conf/\w+/(\w+)\.yaml$", README, flags=re.MULTILINE)  # what the reader adds
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


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "sh"])
def test_commands_for_several_machines_are_valid_and_have_as_many_processes_as_they_say(block):
    """They are planned only: there is one machine here."""
    words = shlex.split(block.replace("\\\n", " "))
    given = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
    key = "-m" if words[0] == "scripts/train" else "dropout_lab.train"
    job = plan([*(["-m"] if key == "-m" else []), *words[words.index(key) + 1 :]]).jobs[0]
    if key == "-m":
        assert planned(job) == 8
    else:
        assert (int(given["nnodes"]), int(given["nproc-per-node"])) == (job.trainer.num_nodes, job.trainer.devices)


def test_the_readme_has_commands():
    assert len(COMMANDS) > 10


@pytest.mark.slow
def test_the_shell_completes_what_can_be_overridden():
    (block,) = (block for language, block in BLOCKS if language == "bash" and "complete" in block)
    line = "scripts/train dropout=inv"
    ask = f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_CWORD=1; hydra_bash_completion; echo ${{COMPREPLY[@]}}"
    words = ["bash", "-c", f"{block}\n{ask}"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["dropout=inverted"]


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
        assert (REPOSITORY / name).exists() or "yours" in name or name.startswith("conf/local/"), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [block for language, block in BLOCKS if language == "python" and "# src/" not in block]
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:.*smaller than the log")
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dropout", "model", "data", "callbacks"])
def test_a_fork_adds_it_with_the_two_files_shown(kind, tmp_path):
    """In a copy of the repository: exactly the files of the README, then its sweep."""
    copy = tmp_path / "fork"
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    end = next(index for index, (_, block) in enumerate(BLOCKS) if block.startswith(f"# conf/{kind}/"))
    (python, code), (yaml_, settings), (bash, sweep) = BLOCKS[end - 1 : end + 2]
    assert (python, yaml_, bash) == ("python", "yaml", "bash")
    for block in (code, settings):
        first, _, rest = block.partition("\n")
        (copy / first.removeprefix("# ")).write_text(rest)
    a_small_medmnist(tmp_path / "bloodmnist.npz")
    done = subprocess.run(
        [sys.executable, "-m", "dropout_lab.train", *words_of(sweep.strip(), tmp_path)[1]],
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    statuses = [read_status(path.parent)["status"] for path in (tmp_path / "runs").rglob("status.json")]
    assert len(statuses) >= 2
    assert set(statuses) == {"ok"}


def a_small_medmnist(path):
    chance = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 96), ("val", 32), ("test", 32)):
        arrays[f"{part}_images"] = chance.integers(0, 256, (size, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(size) % 8).reshape(-1, 1).astype(np.uint8)
    np.savez(path, **arrays)


@pytest.mark.slow
def test_the_strategy_shown_keeps_every_law(tmp_path, monkeypatch):
    (tmp_path / "drop_block.py").write_text(next(block for _, block in BLOCKS if "class DropBlock" in block))
    monkeypatch.syspath_prepend(tmp_path)
    card = check(importlib.import_module("drop_block").DropBlock(0.3))
    assert not card.failed, card
