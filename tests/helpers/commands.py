"""The package's commands: in this process or as processes of their own, and what they leave running."""

import atexit
import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import weakref
from pathlib import Path

import pytest

from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.jobs.forkserver import begin, import_beforehand, server

import_beforehand("dropout_lab.train.job")

PACKAGE = REPOSITORY / "src" / "dropout_lab"
COMMANDS = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__main__")
    for path in PACKAGE.rglob("*.py")
    if re.search('^if __name__ == "__main__":', path.read_text(), re.MULTILINE)
)
PATIENCE = 1e6  # seconds until a command tells that it is still planning: never, as what it prints is compared


class Command:
    """One that has started: a fork of the server, so that no test waits for another import of torch.

    Args:
        words: of the command line.
        module: whose ``main`` it is.
        copy: of this repository, whose package it is instead.
        folder: it works in.
        environment: what differs from this process's.
    """

    def __init__(self, *words, module="dropout_lab.train", copy=None, folder=".", **environment):
        words, environment = [str(word) for word in words], {**os.environ, **environment}
        self.said = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self.said)
        output = [self.said / "stdout", self.said / "stderr"]
        for path in output:
            path.touch()
        self.process = server().Process(target=_main, args=(module, words, copy, folder, environment, output))
        self.process.start()
        atexit.register(self.process.kill)  # else Python would wait for what a failed test has left

    @property
    def returncode(self):
        """None while it runs."""
        return self.process.exitcode

    @property
    def stdout(self):
        return (self.said / "stdout").read_text()

    @property
    def stderr(self):
        return (self.said / "stderr").read_text()

    def send_signal(self, kind):
        if self.returncode is None:
            os.kill(self.process.pid, kind)

    def wait(self, seconds=400):
        self.process.join(seconds)
        if self.returncode is None:
            self.process.kill()
            raise TimeoutError(f"still running after {seconds} s:\n{self.stderr}")
        return self.returncode


def exit_code(*words, module="dropout_lab.train"):
    """Of a command in this very process."""
    with pytest.raises(SystemExit) as ended:
        main_of(module).main([str(word) for word in words])
    return ended.value.code


def main_of(module):
    """The module that has the command's main: of a room its __main__."""
    found = importlib.import_module(module)
    return importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found


def run(*words, **options):
    """A command that has ended."""
    command = Command(*words, **options)
    command.wait()
    return command


def working_in(folder):
    """Command lines of the processes that work in this folder: a command, and whatever it has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == folder:
                found.append((path / "cmdline").read_bytes())
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _main(module, words, copy, folder, environment, output):
    """What a process does by itself that is started from scratch."""
    begin(environment, [sys.executable, "-m", module, *words])
    os.chdir(folder)
    if copy:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("dropout_lab", "hydra_plugins")]:
            del sys.modules[name]
        sys.path[:] = [str(copy / "src"), *(path for path in sys.path if path != str(REPOSITORY / "src"))]
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    for number, path in enumerate(output, start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGUSR2])
    sys.argv = [module, *words]
    try:
        of = main_of(module)
        if "dropout_lab.train.patience" in sys.modules:  # planning may take its time on a busy machine
            sys.modules["dropout_lab.train.patience"].PATIENCE = PATIENCE
        assert not copy or Path(of.__file__).is_relative_to(copy)
        of.main(words)
    finally:
        atexit._run_exitfuncs()
