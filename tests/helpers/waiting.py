"""Waiting for other processes, not for longer than they may take."""

import time
from collections.abc import Callable


def wait_until(happens: Callable[[], bool], deadline: float) -> None:
    """Look again and again until then, by `time.monotonic`; the test says what is wrong if it has not happened."""
    while not happens() and time.monotonic() < deadline:
        time.sleep(0.1)
