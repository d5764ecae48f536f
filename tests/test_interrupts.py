"""Ctrl-C at any moment of a command's life: exit code 130, one line, nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import pytest
import stopping
from commands import COMMANDS, PACKAGE, working_in
from waiting import wait_until

from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.runs.folder import read_status

TRAIN = ["dropout_lab.train", "model=mlp", "trainer=cpu", "trainer.max_epochs=1", "logger=csv"]
SIDE_BY_SIDE = ["-m", "seed=range(10)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]

pytestmark = pytest.mark.slow


class Stopped:
    """A command that waits at a moment, see stopping.py."""

    def __init__(self, words, moment, folder, **environment):
        self.stops, self.work, hook = (folder / name for name in ("stops", "work", "hook"))
        for path in (self.stops, self.work, hook):
            path.mkdir()
        self.temporary = Path(tempfile.mkdtemp())  # short: a socket lies there
        weakref.finalize(self, shutil.rmtree, self.temporary, ignore_errors=True)
        self.stderr = folder / "stderr"
        shutil.copy(stopping.__file__, hook / "sitecustomize.py")
        paths = os.pathsep.join([str(hook), str(REPOSITORY / "src")])
        stop = {"STOP_AT": moment, "STOP_IN": str(self.stops), "PYTHONPATH": paths, "TMPDIR": str(self.temporary)}
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.work,
                env={**os.environ, **stop, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                process_group=0,
            )
        self.wait()

    def wait(self):
        """For the moment, or the next one."""
        here = self.stops / "here"
        wait_until(lambda: here.exists() or self.process.poll() is not None, time.monotonic() + 120)
        assert here.exists(), self.stderr.read_text()
        here.unlink()
        self.before = self.stderr.read_text()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def interrupt_all(self):
        """As a terminal does: whatever the command has started hears it, too."""
        os.killpg(self.process.pid, signal.SIGINT)

    def go_on(self):
        (self.stops / "on").touch()

    def end(self):
        """The exit code, and what was said on stderr since the moment."""
        return self.process.wait(120), self.stderr.read_text().removeprefix(self.before)

    def left(self):
        """Processes and files that are there within a second after its end; torch keeps what it has compiled."""
        wait_until(lambda: not working_in(self.work), time.monotonic() + 1)
        files = [*self.temporary.iterdir(), *self.work.iterdir()]
        return working_in(self.work) + [path for path in files if "torchinductor_" not in path.name]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_interrupted_while_it_imports(command, tmp_path):
    stopped = Stopped([command], "dropout_lab.cli", tmp_path)
    stopped.interrupt()
    assert stopped.end() == (130, "interrupted\n")
    assert stopped.left() == []


@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"], ["--help"], ["--cfg", "job"]], ids=" ".join)
def test_planning_and_asking_are_interrupted(words, tmp_path):
    stopped = Stopped([*TRAIN, *words], "mlp.yaml", tmp_path)
    stopped.interrupt()
    assert stopped.end() == (130, "interrupted\n")
    assert stopped.left() == []


@pytest.mark.parametrize(("words", "moment"), [(SIDE_BY_SIDE, "torch"), ([], "sklearn.datasets")])
def test_the_check_of_the_jobs_is_interrupted_and_so_is_the_server_that_imports_meanwhile(words, moment, tmp_path):
    stopped = Stopped([*TRAIN, *words], moment, tmp_path)
    stopped.interrupt_all()
    assert stopped.end() == (130, "interrupted\n")
    assert stopped.left() == []


def test_a_second_one_while_the_first_is_answered_is_not_heard(tmp_path):
    stopped = Stopped([*TRAIN, *SIDE_BY_SIDE], "torch", tmp_path, STOP_TWICE="1")
    stopped.interrupt_all()
    stopped.wait()
    assert stopped.before == "interrupted\n"
    stopped.interrupt_all()
    stopped.go_on()
    assert stopped.end() == (130, "")
    assert stopped.left() == []


def test_a_job_that_runs_notes_it_and_its_folder_is_named(tmp_path):
    folder = tmp_path / "run"
    stopped = Stopped([*TRAIN, f"hydra.run.dir={folder}"], "metrics.csv", tmp_path)
    stopped.interrupt_all()
    told = f"interrupted; what was done is in {folder}; to go on: the same command with hydra.run.dir={folder}\n"
    assert stopped.end() == (130, told)
    assert read_status(folder)["status"] == "interrupted"
    assert stopped.left() == []


def test_a_folder_in_which_no_job_has_begun_is_taken_away(tmp_path):
    folder = tmp_path / "of today" / "sweep"
    stopped = Stopped([*TRAIN, "-m", "seed=0,1", f"hydra.sweep.dir='{folder}'"], "status.json.*.unfinished", tmp_path)
    stopped.interrupt()
    assert stopped.end() == (130, "interrupted\n")
    assert not folder.parent.exists()
    assert stopped.left() == []


def test_at_the_very_end_the_work_is_done(tmp_path):
    stopped = Stopped(["dropout_lab.train", "--help"], stopping.AT_THE_END, tmp_path)
    stopped.interrupt()
    stopped.go_on()
    assert stopped.end() == (0, "")


def test_hydra_full_error_shows_where_it_was(tmp_path):
    stopped = Stopped(TRAIN, "hydra", tmp_path, HYDRA_FULL_ERROR="1")
    stopped.interrupt()
    assert stopped.end()[1].endswith("KeyboardInterrupt\n")


def test_a_command_in_the_background_of_a_script_hears_none(tmp_path):
    """It was started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stopped = Stopped(["dropout_lab.train", "--help"], "hydra", tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    stopped.interrupt()
    stopped.go_on()
    assert stopped.end() == (0, "")


HANDLER = "import signal, dropout_lab; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
AS_COMMAND = "import sys; sys.argv, sys.orig_argv = ['-m'], ['python', '-m', 'dropout_lab.train']\n"


def python(code, *, command=True):
    """Run code in a process of its own, which takes itself for a command."""
    words = [sys.executable, "-c", (AS_COMMAND if command else "") + code]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONUNBUFFERED": ""}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=30)


def test_a_library_leaves_signals_alone(tmp_path):
    assert python(HANDLER).stdout == "False\n"
    assert python(HANDLER, command=False).stdout == "True\n"
    (tmp_path / "fork").mkdir()
    (tmp_path / "fork" / "__init__.py").write_text(HANDLER)  # imported while Python looks for the module
    (tmp_path / "fork" / "train.py").touch()
    paths = os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])
    words = [sys.executable, "-m", "fork.train"]
    assert subprocess.check_output(words, text=True, env={**os.environ, "PYTHONPATH": paths}) == "True\n"


def test_on_a_terminal_the_line_does_not_begin_behind_what_is_there():
    ours, its = os.openpty()
    words = [sys.executable, "-c", AS_COMMAND + "import dropout_lab, os\nos.kill(os.getpid(), 2)"]
    assert subprocess.call(words, stderr=its, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}) == 130
    assert os.read(ours, 100) == b"\r\ninterrupted\r\n"


def test_a_fork_is_not_the_command():
    code = "import dropout_lab, os, signal\nif os.fork():\n    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    code += "os._exit(0 if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 1)"
    assert python(code).returncode == 0


WITHIN = """
import os, signal
from dropout_lab.cli import interruptible, one_line_errors, undisturbed

def press():
    os.kill(os.getpid(), signal.SIGINT)

with one_line_errors():
    try:
        with interruptible():
            try:
                press()
            finally:
{again}
                print("in order")
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; it is in order") from None
"""


@pytest.mark.parametrize(
    ("again", "stdout", "stderr"),
    [
        ("", "in order\n", "interrupted; it is in order\n"),
        ("press()", "", "interrupted\n"),
        ("with undisturbed(): press()", "in order\n", "interrupted; it is in order\n"),
    ],
)
def test_what_has_to_be_put_in_order_is(again, stdout, stderr):
    done = python(WITHIN.replace("{again}", 16 * " " + again))
    assert (done.returncode, done.stdout, done.stderr) == (130, stdout, stderr)


def test_an_interrupt_that_a_library_took_for_an_error_does_not_count_for_the_next():
    code = WITHIN.replace("press()\n            finally", "press()\n            except KeyboardInterrupt")
    done = python(code.replace("{again}", "") + "    press()")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_what_is_waited_for_at_the_end_is_waited_for_ten_seconds():
    code = "import atexit, os, signal, threading, dropout_lab\n"
    code += "signal.alarm = lambda seconds, alarm=signal.alarm: alarm(seconds // 10)\n"
    code += "atexit.register(threading.Event().wait)\nos.kill(os.getpid(), signal.SIGINT)"
    done = python(code)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
