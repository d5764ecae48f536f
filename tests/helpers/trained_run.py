"""A short run with another strategy, rate and width than the defaults, for all tests that read one."""

import pytest

from dropout_lab.train.__main__ import main as train_main

QUICK = ["trainer.max_epochs=2", "data.train_size=128", "logger=csv", "callbacks.activation_stats.probe_masks=0"]


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A run that differs from the defaults in its width, rate and strategy."""
    folder = tmp_path_factory.mktemp("run") / "one"
    with pytest.raises(SystemExit) as ended:
        train_main([*QUICK, "dropout=classic", "dropout.p=0.3", "model.hidden=48", f"hydra.run.dir={folder}"])
    assert ended.value.code == 0
    return folder
