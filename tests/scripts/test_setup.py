"""The shell entry points, run for real in a copy of the repository with a stand-in for Python: nothing is downloaded.

The stand-in appends a line to `installs.log` for each `pip install` and prints the arguments of anything else.
"""

import ast
import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
# Everything the scripts and the stand-in may rely on; flock is not everywhere.
TOOLS = "awk basename bash cat cp dirname env find flock grep ln mkdir mv readlink rm rmdir sed sh sleep tail tee touch"
TOOLS += " uname"
PYTEST = ["pytest", "--numprocesses=auto", "--maxprocesses=8", "--dist=loadfile", "--no-loadscope-reorder"]

STAND_IN = """#!/usr/bin/env bash
set -eu
[[ ${1:-} != -P ]] || shift
case "${1:-} ${2:-} ${3:-}" in
  "-V"*) echo "Python ${FAKE_VERSION:-3.12.4}" ;;
  "-m venv "*) mkdir -p "${!#}/bin"; cp "$0" "${!#}/bin/python" ;;
  "-m pip --version") [[ -e ${0%/python}/pip ]] ;;
  "-m ensurepip --default-pip") [[ ! -v FAKE_NO_PIP ]]; touch "${0%/python}/pip" ;;
  "-m pip install")
    echo "$0 in $PWD: ${!#}" >>"$FAKE_HOME/installs.log"
    echo "Collecting torch"
    [[ ! -v FAKE_CATCHES ]] || trap 'echo "ERROR: Operation cancelled by user" >&2; exit 1' INT # as pip does
    sleep "${FAKE_SECONDS:-0}"
    if [[ -v FAKE_FAILURE ]]; then echo "ERROR: $FAKE_FAILURE" >&2; exit 1; fi ;;
  *) printf '%s|' "$PWD" "$@"; exit "${FAKE_EXIT:-0}" ;;
esac
"""


class Machine:
    """A fresh machine: a clone of the repository, and a PATH with little more than a Python on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clone = home / "a clone"
        self.bin = home / "bin"
        self.bin.mkdir()
        for tool in filter(shutil.which, TOOLS.split()):
            (self.bin / tool).symlink_to(shutil.which(tool))
        stand_in(self.bin / "python3")
        self.copy_repository(self.clone)
        self.variables = {"PATH": str(self.bin), "HOME": str(home), "FAKE_HOME": str(home)}

    def copy_repository(self, to: Path) -> None:
        shutil.copytree(REPOSITORY / "scripts", to / "scripts")
        shutil.copy(REPOSITORY / "pyproject.toml", to)
        package = to / "src" / "dropout_lab"
        (package / "report").mkdir(parents=True)
        (package / "explain.py").write_text(
            '"""Show why one rescales.\n\nMore."""\nif __name__ == "__main__":\n    pass\n'
        )
        (package / "models.py").write_text('"""Not a command."""\n')
        (package / "train.py").write_text('"""Train one run."""\nif __name__ == "__main__":\n    pass\n')
        (package / "report" / "__main__.py").write_text('"""Write the report of a sweep."""\n')

    def start(self, script: str | Path, *arguments: str, cwd: Path | None = None, **variables: str):
        return subprocess.Popen(
            [str(self.clone / "scripts" / script), *arguments],
            cwd=cwd or self.home,
            env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a test run in the background of a script is started with SIGINT ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, script: str | Path, *arguments: str, cwd: Path | None = None, **variables: str):
        process = self.start(script, *arguments, cwd=cwd, **variables)
        stdout, stderr = process.communicate(timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def environment(self, name: str, *, python: bool = True) -> Path:
        (self.home / name / "bin").mkdir(parents=True)
        if python:
            stand_in(self.home / name / "bin" / "python")
        return self.home / name

    @property
    def installs(self) -> list[str]:
        log = self.home / "installs.log"
        return log.read_text().splitlines() if log.exists() else []


def stand_in(path: Path) -> None:
    path.write_text(STAND_IN)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(params=["flock", "no flock"])
def either_lock(request: pytest.FixtureRequest, machine: Machine) -> Machine:
    if request.param == "no flock":
        (machine.bin / "flock").unlink(missing_ok=True)
    elif not shutil.which("flock"):
        pytest.skip("this machine has no flock")
    return machine


def test_first_use_makes_an_environment_and_says_what_it_downloads(machine: Machine) -> None:
    done = machine.run("train", "seed=1")
    assert done.returncode == 0
    assert done.stdout == f"{machine.home}|-m|dropout_lab.train|seed=1|"
    assert "torch" in done.stderr
    assert "GB" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert machine.installs == [f"{machine.clone}/.venv/bin/python in {machine.clone}: ."]
    assert (machine.clone / ".venv" / "bin" / "pip").exists()


def test_second_call_installs_nothing_and_says_nothing(machine: Machine) -> None:
    machine.run("train")
    done = machine.run("compare")
    assert (done.stderr, len(machine.installs)) == ("", 1)


def test_changed_pyproject_installs_again(machine: Machine) -> None:
    machine.run("train")
    with (machine.clone / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    done = machine.run("train")
    assert "changed" in done.stderr
    assert len(machine.installs) == 2


def test_another_python_version_installs_again(machine: Machine) -> None:
    machine.run("train")
    machine.run("train", FAKE_VERSION="3.12.5")
    assert len(machine.installs) == 1, "a bug-fix release of Python keeps what is installed"
    machine.run("train", FAKE_VERSION="3.13.0")
    assert len(machine.installs) == 2


def test_tests_add_the_dev_extra_which_serves_the_others_too(machine: Machine) -> None:
    machine.run("train")
    done = machine.run("test", "-k", "a law")
    assert done.stdout == "|".join([f"{machine.clone}", "-m", *PYTEST, "-k", "a law", ""])
    assert "what the tests need" in done.stderr
    machine.run("train")
    machine.run("test")
    assert [line.rsplit(" ")[-1] for line in machine.installs] == [".", ".[dev]"]


def test_two_that_start_together_install_once(either_lock: Machine) -> None:
    both = [either_lock.start("train", FAKE_SECONDS="0.3") for _ in range(2)]
    told = [process.communicate(timeout=30)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(either_lock.installs) == 1
    assert sorted("waiting" in text for text in told) == [False, True]


def test_up_to_date_waits_for_nobody(machine: Machine) -> None:
    machine.run("train")
    with (machine.clone / ".venv" / ".dropout_lab.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert machine.run("train").stderr == ""


def test_lock_of_a_dead_process_does_not_block(machine: Machine) -> None:
    (machine.bin / "flock").unlink(missing_ok=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (machine.clone / ".venv").mkdir()
    (machine.clone / ".venv" / ".dropout_lab.lock.link").symlink_to(f"{os.uname().nodename}:{dead.pid}")
    both = [machine.start("train", FAKE_SECONDS="0.2") for _ in range(2)]
    assert [process.wait(timeout=30) for process in both] == [0, 0]
    assert len(machine.installs) == 1
    assert not list((machine.clone / ".venv").glob("*.link*"))
    for process in both:
        process.communicate()


def test_killed_set_up_goes_on_next_time(either_lock: Machine) -> None:
    started = either_lock.start("train", FAKE_SECONDS="5")
    while not either_lock.installs:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    assert either_lock.run("train").returncode == 0
    assert len(either_lock.installs) == 2


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_active_environment_is_used(machine: Machine, variable: str) -> None:
    active = machine.environment("my env")
    done = machine.run("train", **{variable: str(active)})
    assert done.returncode == 0
    assert machine.installs == [f"{active}/bin/python in {machine.clone}: ."]
    assert not (machine.clone / ".venv").exists()


def test_two_clones_that_share_an_environment_each_install(machine: Machine) -> None:
    shared = str(machine.environment("shared"))
    machine.copy_repository(machine.home / "second")
    machine.run("train", VIRTUAL_ENV=shared)
    machine.run(machine.home / "second" / "scripts" / "train", VIRTUAL_ENV=shared)
    machine.run(machine.home / "second" / "scripts" / "train", VIRTUAL_ENV=shared)
    assert [line.split(" in ")[1] for line in machine.installs] == [f"{machine.clone}: .", f"{machine.home}/second: ."]


def test_active_environment_without_python_is_refused(machine: Machine) -> None:
    done = machine.run("train", VIRTUAL_ENV=str(machine.environment("gone", python=False)))
    assert_one_line(done, "has no bin/python")


def test_failing_pip_shows_its_last_lines_and_leaves_no_stamp(machine: Machine) -> None:
    done = machine.run("train", FAKE_FAILURE="no space left")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ERROR: no space left\n" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dropout_lab: pip failed")
    assert machine.run("train").returncode == 0
    assert len(machine.installs) == 2


def test_failing_update_forgets_the_old_stamp(machine: Machine) -> None:
    machine.run("train")
    pyproject = machine.clone / "pyproject.toml"
    before = pyproject.read_text()
    pyproject.write_text(before + "# changed\n")
    machine.run("train", FAKE_FAILURE="half of it is installed")
    pyproject.write_text(before)
    machine.run("train")
    assert len(machine.installs) == 3


def test_missing_pip_is_told_in_one_line(machine: Machine) -> None:
    assert_one_line(machine.run("train", FAKE_NO_PIP="1"), "python3-venv", after=2)


@pytest.mark.parametrize("version", ["3.9.18", "3.10.1", "2.7.18"])
def test_old_python_is_refused(machine: Machine, version: str) -> None:
    done = machine.run("train", FAKE_VERSION=version)
    assert_one_line(done, "needs Python 3.11 or newer", version.rpartition(".")[0])
    active = machine.environment("old")
    assert_one_line(machine.run("train", FAKE_VERSION=version, VIRTUAL_ENV=str(active)), "needs Python 3.11", "old")


def test_no_python_at_all_is_told(machine: Machine) -> None:
    (machine.bin / "python3").unlink()
    assert_one_line(machine.run("train"), "needs Python 3.11 or newer", "found none")


def test_newer_python_beside_an_old_one_is_found(machine: Machine) -> None:
    stand_in(machine.bin / "python3.12")
    old = machine.bin / "python3"
    old.write_text(STAND_IN.replace("3.12.4", "3.9.6"))
    assert machine.run("train").returncode == 0


def test_broken_environment_is_made_anew(machine: Machine) -> None:
    (machine.clone / ".venv" / "bin").mkdir(parents=True)
    (machine.clone / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    (machine.clone / ".venv" / "left over").touch()
    assert machine.run("train").returncode == 0
    assert not (machine.clone / ".venv" / "left over").exists()


def test_arguments_arrive_unchanged(machine: Machine) -> None:
    arguments = ["a b", "c=[1, 2]", "x='*'", "", "$HOME", "p=0.5,0.75", "\\", "-m"]
    for script, words in [("train", ["dropout_lab.train"]), ("compare", ["dropout_lab.compare"]), ("test", PYTEST)]:
        done = machine.run(script, *arguments)
        assert done.stdout.split("|")[1:-1] == ["-m", *words, *arguments]
    done = machine.run("lab", "explain", *arguments)
    assert done.stdout.split("|")[1:-1] == ["-m", "dropout_lab.explain", *arguments]


@pytest.mark.parametrize("script", ["train", "compare", "test"])
def test_exit_code_passes_through(machine: Machine, script: str) -> None:
    assert machine.run(script, FAKE_EXIT="130").returncode == 130


def exists(group: int) -> bool:
    """Tell whether a process of a group is left; the system counts one that has ended until its parent has asked."""
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


@pytest.mark.parametrize("catches", [{}, {"FAKE_CATCHES": "1"}], ids=["killed", "caught"])
def test_ctrl_c_in_an_installation_is_one_line_and_130(either_lock: Machine, catches: dict[str, str]) -> None:
    process = either_lock.start("train", FAKE_SECONDS="30", **catches)
    log = either_lock.clone / ".venv" / ".dropout_lab.log"
    while not (log.exists() and "Collecting" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert [line for line in stderr.splitlines() if not line.startswith("dropout_lab:")] == ["interrupted"]
    assert not (either_lock.clone / ".venv" / ".dropout_lab.lock.link").is_symlink()
    wait_until(lambda: not exists(process.pid), time.monotonic() + 10)
    assert not exists(process.pid)
    assert either_lock.run("train").returncode == 0


def test_works_through_a_symlink_from_anywhere(machine: Machine) -> None:
    elsewhere = machine.home / "else where"
    elsewhere.mkdir()
    (elsewhere / "go").symlink_to("../a clone/scripts/train")
    done = machine.run(elsewhere / "go", cwd=elsewhere)
    assert done.stdout == f"{elsewhere}|-m|dropout_lab.train|"
    assert machine.installs == [f"{machine.clone}/.venv/bin/python in {machine.clone}: ."]


def test_lab_lists_its_commands_without_any_set_up(machine: Machine) -> None:
    done = machine.run("lab")
    assert done.returncode == 0
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()[2:]] == [
        ["explain", "Show why one rescales."],
        ["train", "Train one run."],
        ["report", "Write the report of a sweep."],
    ]
    assert machine.installs == []


@pytest.mark.parametrize("command", ["explian", "expl", "models", "../train", "-x", "explain report"])
def test_lab_refuses_an_unknown_command(machine: Machine, command: str) -> None:
    done = machine.run("lab", command)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "explain, train, report" in done.stderr
    assert machine.installs == []


def test_every_experiment_is_reproduced_or_those_that_are_named(machine: Machine) -> None:
    for name in ("depth", "rate"):
        (machine.clone / "conf" / "experiment").mkdir(parents=True, exist_ok=True)
        (machine.clone / "conf" / "experiment" / f"{name}.yaml").touch()
    for names in ([], ["rate"]):
        done = machine.run("reproduce", *names)
        assert done.returncode == 0
        assert re.findall(r"dropout_lab\.compare\|experiment=(\w+)", done.stdout) == (names or ["depth", "rate"])
        assert f"dropout_lab.report.results|{machine.clone}/runs/reproduce|{machine.clone}/RESULTS.md|" in done.stdout


@pytest.mark.parametrize("path", sorted((REPOSITORY / "scripts").rglob("*")), ids=lambda path: path.name)
def test_every_script_is_bash_or_python(path: Path) -> None:
    if path.suffix in ("", ".sh") and path.is_file() and "python" not in path.read_text().partition("\n")[0]:
        subprocess.run(["bash", "-n", path], check=True)
    elif path.suffix in ("", ".py") and path.is_file():
        ast.parse(path.read_text())


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str, after: int = 0) -> None:
    lines = done.stderr.splitlines()[after:]
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0]
