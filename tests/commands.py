"""The package's commands as processes of their own, and what they leave running."""

import atexit
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

from dropout_lab.forks import begin, server


class Command:
    """One that has started: a fork of the server, so that no test waits for another import of torch.

    Args:
        words: of the command line.
        module: whose ``main`` it is.
        cold: started from scratch instead, as from a shell: it imports what the environment says, and all processes
            that it starts know its environment.
        environment: what differs from this process's.
    """

    def __init__(self, *words, module="dropout_lab.train", cold=False, **environment):
        words, environment = [str(word) for word in words], {**os.environ, **environment}
        self.said = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self.said)
        out, err = self.said / "stdout", self.said / "stderr"
        if cold:
            command = [sys.executable, "-m", module, *words]
            with out.open("wb") as stdout, err.open("wb") as stderr:
                # SIGINT is ignored where the tests run with nohup, and so it would be there.
                usual = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
                self.process = subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr, **usual)
        else:
            self.process = server().Process(target=_main, args=(module, words, environment, out, err))
            self.process.start()
            atexit.register(self.process.kill)  # else Python would wait for what a failed test has left

    @property
    def returncode(self):
        """None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

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
        deadline = time.monotonic() + seconds
        while self.returncode is None:
            if time.monotonic() > deadline:
                self.process.kill()
                raise TimeoutError(f"still running after {seconds} s:\n{self.stderr}")
            time.sleep(0.01)
        return self.returncode


def run(*words, **options):
    """A command that has ended."""
    command = Command(*words, **options)
    command.wait()
    return command


def marked(mark):
    """Command lines of the processes that were started with this MARK in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK={mark}\0".encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes())
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _main(module, words, environment, out, err):
    """What a process does by itself that is started from scratch."""
    begin(environment, [sys.executable, "-m", module, *words])
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    for number, path in enumerate((out, err), start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGUSR2])
    sys.argv = [module, *words]
    try:
        importlib.import_module(module).main(words)
    finally:
        atexit._run_exitfuncs()
