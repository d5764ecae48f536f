"""Laws of a job: its folder says how it ended, whatever happens."""

import math
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import pandas as pd
import pytest
from commands import exit_code
from run_folders import same, stopped

from dropout_lab.cli import UserError
from dropout_lab.jobs import processes
from dropout_lab.jobs.plan import plan
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.divergence import DivergenceError
from dropout_lab.runs.folder import read_config, read_status
from dropout_lab.train import job as job_module
from dropout_lab.train import sweep as train
from dropout_lab.train.job import one_of_several

QUICK = ["trainer=ddp_cpu", "trainer.max_epochs=3", "data.train_size=256", "logger=csv"]


def test_devices_that_go_away_after_planning_are_a_failure_of_the_job(tmp_path, alone, capsys):
    def gone(cfg):
        raise UserError("this machine has no GPUs")

    job_plan = plan([*QUICK, f"hydra.run.dir={tmp_path}"])
    alone.setattr(job_module, "needed", gone)
    assert train.execute(job_plan) == 1
    assert read_status(tmp_path)["error"] == "this machine has no GPUs"
    assert "this machine has no GPUs" in capsys.readouterr().err


def test_a_job_that_fails_in_its_first_line_leaves_a_status_that_says_why(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no name for it")

    job_plan = plan([*QUICK, f"hydra.run.dir={tmp_path}"])
    monkeypatch.setattr(job_module, "describe", broken)
    assert train.execute(job_plan) == 1
    assert read_status(tmp_path)["error"] == "RuntimeError: no name for it"
    assert "RuntimeError: no name for it" in capsys.readouterr().err
    assert "config_hash" not in read_status(tmp_path)  # so that the same command can be given again


@pytest.mark.parametrize(("why", "code"), [(None, 0), ("train/loss is nan at step 7", 1)])
def test_loggers_end_with_the_exit_code_of_the_job_which_is_1_where_it_diverged(why, code):
    logger, module = Mock(), SimpleNamespace(diverged=why)
    with pytest.raises(DivergenceError) if why else nullcontext(), job_module._finishing([logger], module):
        pass
    logger.finish.assert_called_once_with(code)


@pytest.mark.slow
def test_a_process_that_cannot_note_why_it_failed_says_it_in_one_line(tmp_path):
    told = r"^dropout_lab\.cli\.UserError: .* has no config\.yaml; .*$"
    with pytest.raises(processes.ProcessError, match=told) as caught:
        processes.launch(2, one_of_several, tmp_path)
    assert "Traceback" in caught.value.trace


# Seven batches an epoch are four steps: ten end in the third epoch. A checkpoint every second step.
BY_STEPS = [
    *("model=mlp", "data.train_size=448", "trainer.accumulate_grad_batches=2", "optimizer.lr=0.08", "logger=csv"),
    *("trainer.max_epochs=-1", "trainer.max_steps=10", "trainer.log_every_n_steps=1", "dropout_schedule=linear"),
    *("lr_scheduler=warmup_cosine", "lr_scheduler.interval=step", "lr_scheduler.warmup=3"),
    *("callbacks=[default,lr_monitor]", "callbacks.recent.train_time_interval=null"),
    *("+callbacks.recent.every_n_train_steps=2", "callbacks.activation_stats.probe_masks=1"),
]


@pytest.fixture(scope="module")
def by_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_steps") / "run"
    assert exit_code(*BY_STEPS, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.mark.slow
def test_where_steps_alone_end_training_the_learning_rate_follows_them(by_steps):
    metrics = pd.read_csv(by_steps / "metrics.csv")
    found = metrics.dropna(subset="lr-SGD").drop_duplicates("step").set_index("step")["lr-SGD"]
    rise = [0.08 * (step + 1) / 4 for step in range(3)]
    fall = [0.04 * (1 + math.cos(math.pi * step / 7)) for step in range(7)]
    assert dict(found) == pytest.approx(dict(enumerate(rise + fall)), abs=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # where no validation is left, and it says so
@pytest.mark.parametrize("batch", [3, 12, 14, 17])
def test_where_steps_alone_end_training_an_interrupted_run_ends_as_the_whole_one(by_steps, batch, tmp_path):
    with stopped(Classifier, lambda module, number: module.trainer.current_epoch * 7 + number == batch):
        assert exit_code(*BY_STEPS, f"hydra.run.dir={tmp_path / 'run'}") == 1
    assert exit_code(*BY_STEPS, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert same(tmp_path / "run", by_steps, checkpoints=("last", "best"))


NOISY = """
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth

class Noisy(nn.Module):
    def __init__(self, input_shape, num_classes, draws=False):
        super().__init__()
        self.draws, self.depth = draws, StochasticDepth(0.5, "row")
        self.body, self.head = nn.Linear(64, 16), nn.Linear(16, num_classes)

    def forward(self, x):
        x = F.dropout(self.depth(self.body(x.flatten(1))), 0.5, self.training)
        return self.head(x * torch.rand(16) if self.draws and self.training else x)
"""


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A model with noise of its own."""
    folder = tmp_path_factory.mktemp("noisy")
    (folder / "noisy_model.py").write_text(NOISY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield ["model._target_=noisy_model.Noisy", "~model.widths", "~model.hidden", "~model.batch_norm"]


@pytest.mark.slow
def test_noise_of_a_networks_own_is_off_or_left_on_as_asked_for_and_told(noisy, tmp_path, capsys):
    words = ["trainer=cpu", *QUICK[1:], *noisy, "dropout=none", "callbacks=[activation_stats,checkpoint]"]
    for choice, told in {"remove": "switched off in the network", "keep": "left on in the network"}.items():
        assert exit_code(*words, f"other_noise={choice}", f"hydra.run.dir={tmp_path / choice}") == 0
        said = capsys.readouterr().out
        assert said.count(told) == 2
        assert "depth: StochasticDepth drops by itself, with p=0.5" in said
        noise = read_config(tmp_path / choice).noise
        assert [len(noise.off), len(noise.on)] == ([2, 0] if choice == "remove" else [0, 2])


@pytest.mark.slow
def test_noise_that_can_not_be_switched_off_is_refused_by_name(noisy, tmp_path, capsys):
    words = ["trainer=cpu", *QUICK[1:], *noisy, "+model.draws=true", f"hydra.run.dir={tmp_path / 'run'}"]
    assert exit_code(*words) == 2
    assert "draws random numbers of its own in its forward (Noisy)" in capsys.readouterr().err
    assert not (tmp_path / "run" / "status.json").exists()
    assert exit_code(*words, "other_noise=keep") == 0
