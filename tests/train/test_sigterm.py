"""A law of SIGTERM: after the callback it ends the process at once, whatever Lightning had set."""

import os
import signal

import pytest

from dropout_lab.train.sigterm import EndAtOnce


@pytest.mark.parametrize("stage", ["on_train_start", "on_test_start"])
def test_sigterm_ends_the_process_in_training_and_in_testing(stage):
    def lightnings(signum, frame):
        raise AssertionError("Lightning's own answer is a broadcast")

    before = signal.signal(signal.SIGTERM, lightnings)
    try:
        getattr(EndAtOnce(), stage)(None, None)
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
