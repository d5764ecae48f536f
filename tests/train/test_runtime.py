"""Laws of the surroundings of training: a job has the threads it asks for, W&B is closed where it was used."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer

from dropout_lab.train import runtime
from dropout_lab.train.__main__ import main as train_main


@pytest.mark.slow
def test_each_job_of_a_sweep_has_the_threads_it_asks_for(tmp_path, monkeypatch):
    seen = []
    fit = Trainer.fit

    def watched(*given, **named):
        seen.append(torch.get_num_threads())
        return fit(*given, **named)

    monkeypatch.setattr(Trainer, "fit", watched)
    runtime.set_threads(None)
    chosen = torch.get_num_threads()
    with pytest.raises(SystemExit):
        train_main(["-m", "threads=3,null", "debug=fast", f"hydra.sweep.dir={tmp_path}"])
    assert seen == [3, chosen]


@pytest.mark.slow
def test_lightning_is_quiet_also_where_it_is_imported_later():
    program = (
        "from dropout_lab.train.runtime import quieten_lightning; quieten_lightning()\n"
        "import lightning; lightning.Trainer(logger=False, enable_checkpointing=False, accelerator='cpu')"
    )
    words = [sys.executable, "-W", "ignore", "-c", program]
    assert not subprocess.run(words, capture_output=True, text=True, check=True).stderr


def test_threads_that_are_left_open_are_those_of_torch_whatever_an_earlier_job_had(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(runtime, "_chosen_threads", lambda: 2)
    for asked, expected in ((3, 3), (None, 2)):
        runtime.set_threads(asked)
        assert torch.get_num_threads() == expected
    torch.set_num_threads(before)


def test_wandb_is_closed_only_where_it_was_used(monkeypatch):
    closed = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(teardown=lambda: closed.append(1)))
    runtime.close_wandb()
    assert closed == [1]
    monkeypatch.delitem(sys.modules, "wandb")
    runtime.close_wandb()
    assert "wandb" not in sys.modules


def test_lightning_s_advice_that_does_not_apply_is_not_given_and_other_warnings_are():
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        runtime.quieten_lightning()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in given] == ["something else"]
