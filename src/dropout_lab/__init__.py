"""Dropout Lab: a Lightning + Hydra research template about dropout."""

import sys


def _starts() -> bool:
    """Whether Python is looking for one of our commands, to run it: ``python -m dropout_lab.train``."""
    return sys.argv[:1] == ["-m"] and any(w.removeprefix("-m").startswith(f"{__name__}.") for w in sys.orig_argv)


if _starts() and not sys.flags.safe_path and sys.path[0] != __path__[0].removesuffix(f"/{__name__}"):
    del sys.path[0]  # the folder in which the command is given: a torch.py there is not the torch that is meant

import atexit  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402

__version__ = "0.1.0"


def end_at_once(number: int = signal.SIGINT, frame: object = None, line: str = "interrupted") -> None:
    """End this process and what it has started, as the handler of Ctrl-C: one line, exit code 130.

    Libraries answer a KeyboardInterrupt with tracebacks while they are imported, or take it for an error of their own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # keys are often pressed twice
    signal.signal(signal.SIGALRM, lambda *_: os._exit(130))
    signal.alarm(10)  # seconds, whatever the functions below wait for
    os.write(2, ("\n" * os.isatty(2) + f"{line}\n").encode())
    atexit._run_exitfuncs()
    os._exit(130)


if _starts():
    os.environ["PYTHONSAFEPATH"] = "1"  # for what the command starts
if _starts() and os.environ.get("HYDRA_FULL_ERROR") != "1" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Python's last moments, in which it has no handlers
    signal.signal(signal.SIGINT, end_at_once)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
