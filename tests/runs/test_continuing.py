"""A run of whatever settings, killed at whatever moment, ends as if it had not been: every file, every tensor.

Combinations are drawn by their number. `KILLS=50` tries as many others.
"""

import os
import random

import pytest
import torch

from dropout_lab.jobs.plan import plan
from dropout_lab.modules.base import Module
from dropout_lab.runs import checkpoints
from dropout_lab.runs.folder import TABLES, read_status
from dropout_lab.train import sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),  # of an epoch that ends unvalidated
    pytest.mark.filterwarnings("ignore:.*val_check_interval"),
]

ALL = [
    *("trainer=cpu", "model=mlp", "trainer.max_epochs=3", "trainer.num_sanity_val_steps=0", "logger=csv"),
    *("callbacks.recent.train_time_interval=null", "callbacks.activation_stats.probe_masks=1"),
]
ONE_OF = [
    [["data.train_size=64", "data.batch_size=8", "model.widths=[8]"]] * 2
    + [["data=tabular", "module=regression", "model.widths=[8]", "data.batch_size=64"]],
    [["dropout=inverted"], ["dropout=classic"], ["dropout=spatial"], ["dropout_schedule=linear"], ["dropout_schedule=early"]],
    [["keyed=true"], ["keyed=false"]],
    [["optimizer=sgd"], ["optimizer=adam"], ["optimizer=adamw"]],
    [["lr_scheduler=cosine"], ["lr_scheduler=warmup_cosine", "lr_scheduler.warmup=2"]],
    [["lr_scheduler.interval=epoch"], ["lr_scheduler.interval=step"]],
    [["trainer.precision=32-true"], ["trainer.precision=64-true"], ["trainer.precision=bf16-true"], ["trainer.precision=bf16-mixed"]],
    [["trainer.accumulate_grad_batches=1"]] * 2 + [["trainer.accumulate_grad_batches=2"], ["trainer.accumulate_grad_batches=3"]],
    [[], ["trainer.val_check_interval=2"], ["trainer.val_check_interval=3"], ["trainer.check_val_every_n_epoch=2"]],
    [["+callbacks.recent.every_n_train_steps=1"], ["+callbacks.recent.every_n_train_steps=2"], ["+callbacks.recent.every_n_train_steps=3"]],
    [["callbacks.activation_stats.every_n_steps=1"], ["callbacks.activation_stats.every_n_steps=3"]],
    [["trainer.log_every_n_steps=1"], ["trainer.log_every_n_steps=5"]],
    [[], ["trainer.gradient_clip_val=0.1"], ["trainer.max_steps=13"], ["trainer.reload_dataloaders_every_n_epochs=1"]],
    [[], ["callbacks=[default,weight_averaging]"], ["callbacks=[default,max_norm]", "callbacks.max_norm.radius=0.5"]]
    + [["callbacks=[default,early_stopping,lr_monitor]", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=9"]],
    [[], ["+callbacks.more={_target_: dropout_lab.runs.checkpoints.Checkpoint, filename: '{epoch}-{step}', save_top_k: 2, monitor: val/loss}"]],
    [[], ["+callbacks.also={_target_: dropout_lab.runs.checkpoints.Checkpoint, filename: 's{step}', every_n_train_steps: 2, save_top_k: -1}"]],
]  # fmt: skip


class KillError(Exception):
    """Stands for whatever ends a process."""


def moments(patch, last=0):
    """Count the moments at which a run may be killed from now on; it is, at the last of them."""
    passed = []

    def watched(kind, name, after):
        original = getattr(kind, name)

        def method(self, *arguments, **options):
            result = original(self, *arguments, **options) if after else None
            passed.append(f"{name} {len(passed) + 1}")
            if len(passed) == last:
                raise KillError
            return result if after else original(self, *arguments, **options)

        patch.setattr(kind, name, method)

    watched(checkpoints.AtomicCheckpointIO, "save_checkpoint", after=True)
    for name in (
        "training_step",
        "validation_step",
        "on_validation_epoch_end",
        "on_train_epoch_end",
        "on_test_epoch_end",
    ):
        watched(Module, name, after=False)
    return passed


def left(folder):
    """What a run has left: its tables as they are, its checkpoints as they are loaded."""
    tables = {name: (folder / name).read_bytes() for name in TABLES if (folder / name).exists()}
    return tables | {path.name: torch.load(path) for path in sorted((folder / "checkpoints").iterdir())}


def differences(one, two, where=""):
    if isinstance(one, dict) and isinstance(two, dict):
        missing = [f"{where}: {key}" for key in one.keys() ^ two.keys()]
        return missing + [
            line for key in one.keys() & two.keys() for line in differences(one[key], two[key], f"{where}/{key}")
        ]
    if isinstance(one, list | tuple):
        same = len(one) == len(two)
        return (
            [line for pair in zip(one, two, strict=same) for line in differences(*pair, f"{where}[]")]
            if same
            else [where]
        )
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same = one.dtype == two.dtype and torch.equal(torch.nan_to_num(one), torch.nan_to_num(two))
    else:
        same = one == two or one != one
    return [] if same else [f"{where}: {one!r:.200} and {two!r:.200}"]


@pytest.mark.parametrize("number", range(int(os.environ.get("KILLS", 12))))
def test_a_run_that_is_killed_ends_as_the_whole_one(number, tmp_path, monkeypatch, capsys):
    chance = random.Random(f"{number}{'+' * ('KILLS' in os.environ)}")
    words = [
        *ALL,
        *(word for choices in ONE_OF for word in chance.choice(choices)),
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    words.sort(key=lambda word: not word.startswith("callbacks="))
    job_plan = plan(words)
    with monkeypatch.context() as patch:
        passed = moments(patch)
        assert sweep.execute(job_plan) == 0, words
    (tmp_path / "run").rename(tmp_path / "whole")
    kills = chance.sample(range(1, len(passed) + 1), 1)
    for kill in kills:
        with monkeypatch.context() as patch:
            moments(patch, kill)
            assert sweep.execute(job_plan) == 1
        assert read_status(tmp_path / "run")["status"] == "failed"
    assert sweep.execute(job_plan) == 0
    found = differences(left(tmp_path / "whole"), left(tmp_path / "run"))
    assert not found, "\n".join([*words, f"killed at {[passed[kill - 1] for kill in kills]} of {len(passed)}", *found[:5]])
