"""What takes long says so, and what does not is silent."""

import io
import re
import sys
import threading

import pytest

from dropout_lab.train import patience
from dropout_lab.train.patience import telling


class Stderr(io.StringIO):
    """A stream on which one can wait for something to be written."""

    def __init__(self, live):
        super().__init__()
        self.live, self.written = live, threading.Event()

    def isatty(self):
        return self.live

    def flush(self):
        self.written.set()


def test_what_is_done_soon_is_not_mentioned(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr := Stderr(live=True))
    with telling("planning"):
        pass
    assert stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("live", "form"), [(False, r"planning, \d s \.\.\.\n"), (True, r"(\rplanning, \d s )+\r\x1b\[K")]
)
def test_a_log_gets_one_line_and_a_terminal_one_that_is_wiped(live, form, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.01)
    monkeypatch.setattr(sys, "stderr", stderr := Stderr(live))
    with telling("planning"):
        assert stderr.written.wait(60)
    assert re.fullmatch(form, stderr.getvalue())
