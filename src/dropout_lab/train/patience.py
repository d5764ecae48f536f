"""A sign of life on stderr while something takes longer than a person waits without wondering, and its thread."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 3.0  # seconds
IN_A_LOG = 60.0  # between two lines where stderr is no terminal


@contextmanager
def beside(watch: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Have a thread watch what is done within; the event tells it to end."""
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Tell every second on a terminal, and every minute in a log, that something goes on; first after three seconds.

    Args:
        what: is going on, "planning".
    """
    start, done, live = time.monotonic(), threading.Event(), sys.stderr.isatty()

    def tell() -> None:
        pause = PATIENCE
        while not done.wait(pause):
            text = f"{what}, {time.monotonic() - start:.0f} s"
            print(f"\r{text} " if live else f"{text} ...", end="" if live else "\n", file=sys.stderr, flush=True)
            pause = 1.0 if live else IN_A_LOG

    try:
        with beside(tell, done):
            yield
    finally:
        if live and time.monotonic() - start > PATIENCE:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
