"""Every command in a README does what it says: it is run, if need be with little data, or planned."""

import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
import yaml
from commands import exit_code, main_of, run

from dropout_lab import dashboard
from dropout_lab.dropout import check
from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.jobs.devices import planned
from dropout_lab.jobs.plan import plan
from dropout_lab.runs.folder import read_status

DOCUMENTS = [
    REPOSITORY / folder / "README.md"
    for folder in (".", "conf", "conf/trainer", "src/dropout_lab", "src/dropout_lab/dropout")
]
README = "\n".join(path.read_text() for path in DOCUMENTS)
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
    and line != "scripts/compare"  # in test_compare.py
    and "logger=" not in line  # in test_loggers.py
    and not any(name in line for name in FORKED)  # tested in the fork below
]
AFTERWARDS = [line for line in COMMANDS if line.startswith("scripts/lab ") and line not in TRAINING]
PLANNED = [line for line in COMMANDS if line == "scripts/compare" or "logger=" in line]
PLANNED += [command for command in re.findall(r"`(scripts/(?:train|compare) [^`]+)`", README) if "yours" not in command]
ELSEWHERE = ("pip install ", "complete ", "eval ", "rm -r ", "cd ")  # downloads; below; in test_without_dropout.py
PYTHON = [block for language, block in BLOCKS if language == "python" and "# src/" not in block]
# So that each takes seconds; of what a command gives itself, one seed stands for all.
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
    small = {**SMALL, "data.train_size": "4096"} if "data=text" in words else SMALL  # characters
    words += [f"{key}={value}" for key, value in small.items() if key not in given]
    if multirun:
        words = [word for word in words if not word.startswith("seed=")]
        words.append("seed=0,1" if name == "compare" and "seed" not in given else "seed=0")
    folder = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    return name, [*words, *([] if folder in given else [f"{folder}={tmp_path / 'runs'}"])]


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "sh"])
def test_commands_for_several_machines_are_valid_and_have_as_many_processes_as_they_say(block):
    """They are planned only: there is one machine here."""
    words = shlex.split(block.replace("\\\n", " "))
    given = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
    key = "-m" if words[0] == "scripts/train" else "dropout_lab.train"
    job_plan = plan([*(["-m"] if key == "-m" else []), *words[words.index(key) + 1 :]])
    trainer = job_plan.jobs[0].alike["trainer"]
    if key == "-m":
        assert planned(trainer, job_plan.base.hydra.launcher) == 8
    else:
        assert (int(given["nnodes"]), int(given["nproc-per-node"])) == (trainer["num_nodes"], trainer["devices"])


def test_no_command_is_left_out():
    assert len(COMMANDS) > 30
    tested = {*TRAINING, *PLANNED, *AFTERWARDS, *(line for line in COMMANDS if any(name in line for name in FORKED))}
    assert not [line for line in COMMANDS if line not in tested and not line.startswith(ELSEWHERE)]


@pytest.mark.slow
@pytest.mark.parametrize("command", PLANNED)
def test_commands_can_be_planned(command):
    script, *words = shlex.split(command)
    assert plan([*(["-m"] if script == "scripts/compare" else []), *words]).known


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with what the commands find that come after training: an experiment's sweep, and weights."""
    folder = tmp_path_factory.mktemp("after")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "data.train_size=50", "logger=csv"]
        words = ["-m", "experiment=unscaled", "seed=0", "hydra.sweep.dir=runs/SWEEP", *small]
        assert exit_code(*words) == 0
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "vgg16.pth")  # of a smaller model
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", AFTERWARDS)
def test_commands_after_training_run(command, runs, monkeypatch):
    monkeypatch.chdir(runs)
    monkeypatch.setattr(dashboard, "RUNS", runs)
    monkeypatch.setitem(dashboard.DEFAULTS, "out", "dashboard.json")
    monkeypatch.setattr(dashboard, "_push", lambda *_: "its address")  # to a stand-in for W&B in test_dashboard.py
    for word, stand_in in (("vgg16 ", "squeezenet1_1 out=look "), ("DIR", "runs/SWEEP/0"), ("DIR", "runs/SWEEP/1")):
        command = command.replace(word, stand_in, 1)
    _, name, *words = shlex.split(command)
    main = main_of(f"dropout_lab.{name}").main
    if name == "diff":
        assert exit_code(*words, module="dropout_lab.diff") == 1  # they differ
    else:
        main([*words, *(["eval.samples=2"] if "eval.mode=monte_carlo" in words else [])])


@pytest.mark.parametrize("end", [0, -1])
def test_the_sweep_of_wandb_can_be_planned(end):
    sweep = yaml.safe_load((REPOSITORY / "scripts" / "wandb_sweep.yaml").read_text())
    assert sweep["command"][1:] == ["PYTHONSAFEPATH=1", "scripts/train", "${args_no_hyphens}"]
    values = {key: given.get("values") or [given["min"], given["max"]] for key, given in sweep["parameters"].items()}
    assert plan([f"{key}={some[end]}" for key, some in values.items()]).jobs


BENCHMARKS = REPOSITORY / "scripts" / "bench"


@pytest.mark.parametrize("name", [path.name for path in sorted(BENCHMARKS.glob("[!_]*.py"))])
def test_benchmarks_can_be_started(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert "--rounds" in capsys.readouterr().out


@pytest.mark.slow
def test_a_benchmark_prints_its_table_and_leaves_its_figures(tmp_path, monkeypatch, capsys):
    """The quickest one."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", ["data.py", "--rounds=1", "--images=128"])
    monkeypatch.setenv("BENCH_RECORDS", str(tmp_path / "records"))
    runpy.run_path(str(BENCHMARKS / "data.py"), run_name="__main__")
    assert "crop and flip" in capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()]
    assert {record["met"] for record in records} <= {True, False, None}
    assert len({record["name"] for record in records}) == len(records) > 3


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
    if "=DIR" in command:
        small = (f"{key}={value}" for key, value in SMALL.items())
        assert exit_code(*small, f"hydra.run.dir={tmp_path / 'before'}") == 0
        command = command.replace("=DIR", f"={tmp_path / 'before'}")
    name, words = words_of(command, tmp_path)
    if "seed=" in command:
        plan(["-m", *(word for word in shlex.split(command)[1:] if word != "-m")])
    main = main_of(f"dropout_lab.{name}").main
    try:
        main(words)
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
    names |= set(re.findall(r"\bscripts/[\w./]*\w", README))
    assert names
    given = set(re.findall(r"^# ((?:src|conf)/\S+)$", README, flags=re.MULTILINE))  # to be written by the reader
    for name in names - given:
        assert (REPOSITORY / name).exists() or "yours" in name or name.startswith("conf/local/"), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parent.name)
def test_every_link_between_documents_leads_somewhere(document):
    links = re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", document.read_text())
    for name, anchor in links:
        target = document.parent / name if name else document
        assert target.exists(), name
        heads = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE) if anchor else []
        assert anchor in ("", *(re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads)), anchor


def test_the_readme_is_short():
    assert len(DOCUMENTS[0].read_text().splitlines()) <= 225


def test_the_tour_goes_through_every_room():
    package = REPOSITORY / "src" / "dropout_lab"
    table = README[README.index("## A tour of the code") :].partition("\n`conf/")[0]
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| `")]
    rooms = {room for _, names, *_ in rows for room in re.findall(r"`(\w+)/`", names)}
    assert rooms == {path.parent.name for path in package.glob("*/__init__.py")}
    for _, names, _, files, _ in rows:
        (room, *_), files = re.findall(r"`(\w+)/`", names), re.findall(r"`(\w+\.py)`", files)
        assert files
        assert all(any((package / each / name).is_file() for each in rooms) for name in files), room


def test_an_environment_is_active_where_its_commands_are_used():
    assert README.index("`source .venv/bin/activate`") < README.index("pip install")


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON)
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:.*smaller than the log")
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in re.findall(r"read\.open\(\"(.*?)\"\)", block):
        shutil.copytree(REPOSITORY / "tests" / "runs" / "before_the_rooms" / "0", folder)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "runs" / "yours" / "activations.csv").exists() == ("ActivationStats" in block)


def added(kind):
    """The Python and the YAML file that the README adds, by path, and the command that tries them."""
    end = next(index for index, (_, block) in enumerate(BLOCKS) if block.startswith(f"# conf/{kind}/"))
    (python, code), (yaml_, settings), (bash, sweep) = BLOCKS[end - 1 : end + 2]
    assert (python, yaml_, bash) == ("python", "yaml", "bash")
    files = (block.partition("\n") for block in (code, settings))
    return {first.removeprefix("# "): rest for first, _, rest in files}, sweep.strip()


def test_code_that_is_there_already_is_shown_as_it_is():
    files = (block.partition("\n") for language, block in BLOCKS if language == "python" and block.startswith("# src/"))
    shown = {REPOSITORY / first.removeprefix("# "): text for first, _, text in files}
    there = {path for path in shown if path.exists()}
    assert [path.name for path in there] == ["r_drop.py"]
    assert all(path.read_text() == shown[path] for path in there)


KINDS = ["dropout", "model", "data", "module", "callbacks"]


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """A copy of the repository with exactly the files of the README."""
    copy = tmp_path_factory.mktemp("fork")
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    for kind in KINDS:
        for name, text in added(kind)[0].items():
            (copy / name).write_text(text)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_adds_it_with_the_two_files_shown(kind, fork, tmp_path):
    a_small_medmnist(tmp_path / "bloodmnist.npz")
    done = run(*words_of(added(kind)[1], tmp_path)[1], copy=fork, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    statuses = [read_status(path.parent)["status"] for path in (tmp_path / "runs").rglob("status.json")]
    assert len(statuses) >= 2
    assert set(statuses) == {"ok"}


@pytest.mark.slow
def test_a_number_that_a_fork_declares_is_in_table_page_dashboard_and_evaluation(fork, tmp_path):
    runs = tmp_path / "runs"
    words = [*words_of(added("module")[1], tmp_path)[1], f"hydra.sweep.dir={runs}", "logger=csv"]
    assert run(*words, copy=fork, folder=tmp_path).returncode == 0
    assert "test Brier score" in run(runs, module="dropout_lab.report", copy=fork, folder=tmp_path).stdout
    table = pd.read_csv(runs / "table.csv")
    assert table["test_brier_score_mean"].notna().tolist() == [False, True]
    assert "validation Brier score" in (runs / "report.html").read_text()
    said = run(f"run={runs / '1'}", module="dropout_lab.evaluate", copy=fork, folder=tmp_path).stdout
    assert repr(float(table["test_brier_score_mean"][1])) in said
    board = tmp_path / "board.json"
    run(f"runs={runs}", f"out={board}", module="dropout_lab.dashboard", copy=fork, folder=tmp_path)
    assert {"val/brier", "test/brier"} <= set(re.findall(r"[a-z]+/brier", board.read_text()))


@pytest.mark.slow
def test_linters_and_types_have_nothing_against_what_a_fork_adds(fork):
    """As in CI, whose cache of types spares most of the time."""
    files = [name for kind in KINDS for name in added(kind)[0] if name.endswith(".py")]
    types = ["mypy", f"--cache-dir={REPOSITORY / '.mypy_cache'}"]
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], types):
        done = subprocess.run([sys.executable, "-m", *tool, *files], cwd=fork, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


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
