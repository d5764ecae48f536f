"""A command that stops at a moment of its life that a test has chosen, and waits there to be interrupted.

Python runs this file at its start, where it lies as ``sitecustomize.py`` on PYTHONPATH, in every process that the
command starts as well. STOP_AT names the moment: a module that is imported, a pattern of a file that is opened, or
AT_THE_END, after all that Python calls then; STOP_TWICE: also before all that. In the folder STOP_IN the file ``here``
says that the moment has come, and ``on`` lets the command go on.
"""

import atexit
import os
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

AT_THE_END = "the end"


def stop() -> None:
    """Wait, as Python's code does, which hears signals."""
    folder = Path(os.environ["STOP_IN"])
    (folder / "here").touch()
    while not (folder / "on").exists():
        time.sleep(0.01)


def look(event, arguments) -> None:
    """Stop where Python tells of the moment, before it does what it tells of."""
    moment = os.environ["STOP_AT"]
    if (event == "import" and arguments[0] == moment) or (
        event == "open" and fnmatch(str(arguments[0]), f"*/{moment}")
    ):
        if "STOP_TWICE" in os.environ:
            atexit.register(stop)
        stop()


if __name__ == "sitecustomize":
    if os.environ["STOP_AT"] == AT_THE_END:
        atexit.register(stop)  # called last, as it is registered first
    sys.addaudithook(look)
