"""A run of whatever settings, killed at whatever moment, ends as if it had not been: every file, every tensor.

Combinations and moments are drawn by their number. ``KILLS=50`` tries as many.
"""

import json
import os
import random
import shutil

import pytest
import torch

from dropout_lab.jobs.plan import plan
from dropout_lab.modules.base import Module
from dropout_lab.runs.checkpoints import AtomicCheckpointIO
from dropout_lab.runs.folder import TABLES, read_status
from dropout_lab.train import sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),  # of an epoch that ends unvalidated
]

# Each part of resuming, when it was broken, failed one of these.
TELLING = (0, 2, 4, 5, 6, 7, 8, 9, 10, 22, 36, 46)
NUMBERS = range(int(os.environ["KILLS"])) if "KILLS" in os.environ else TELLING
ALL = (
    *("trainer=cpu", "model=mlp", "model.widths=[8]", "trainer.max_epochs=3", "trainer.num_sanity_val_steps=0"),
    *("logger=csv", "callbacks.recent.train_time_interval=null", "callbacks.activation_stats.probe_masks=1"),
)
DIGITS = ("data.train_size=64", "data.batch_size=8")
KEPT = "{_target_: dropout_lab.runs.checkpoints.Checkpoint, filename: "
DRAWN = (  # one of each
    (DIGITS, DIGITS, ("data=tabular", "module=regression", "data.batch_size=64")),
    ((), ("dropout=classic",), ("dropout=spatial",), ("dropout_schedule=linear",), ("dropout_schedule=early",)),
    (("keyed=true",), ("keyed=false",)),
    (("optimizer=sgd",), ("optimizer=adam",), ("optimizer=adamw",)),
    (("lr_scheduler=cosine",), ("lr_scheduler=warmup_cosine", "lr_scheduler.warmup=2")),
    (("lr_scheduler.interval=epoch",), ("lr_scheduler.interval=step",)),
    tuple((f"trainer.precision={precision}",) for precision in ("32-true", "64-true", "bf16-true", "bf16-mixed")),
    tuple((f"trainer.accumulate_grad_batches={count}",) for count in (1, 1, 2, 3)),
    ((), ("trainer.val_check_interval=2",), ("trainer.val_check_interval=3",), ("trainer.check_val_every_n_epoch=2",)),
    tuple((f"+callbacks.recent.every_n_train_steps={count}",) for count in (1, 2, 3)),
    tuple((f"callbacks.activation_stats.every_n_steps={count}",) for count in (1, 3)),
    tuple((f"trainer.log_every_n_steps={count}",) for count in (1, 5)),
    (
        (),
        ("trainer.gradient_clip_val=0.1",),
        ("trainer.max_steps=13",),
        ("trainer.reload_dataloaders_every_n_epochs=1",),
    ),
    (
        *((), ("callbacks=[default,weight_averaging]",)),
        ("callbacks=[default,max_norm]", "callbacks.max_norm.radius=0.5"),
        (
            *("callbacks=[default,early_stopping,lr_monitor]", "callbacks.early_stopping.min_delta=9"),
            "callbacks.early_stopping.patience=1",
        ),
    ),
    ((), (f"+callbacks.more={KEPT} '{{epoch}}-{{step}}', save_top_k: 2, monitor: val/loss}}",)),
    ((), (f"+callbacks.also={KEPT} 's{{step}}', every_n_train_steps: 2, save_top_k: -1}}",)),
)


class KillError(Exception):
    """Stands for whatever ends a process."""


def moments(patch, last=0):
    """Count the moments at which a run may be killed from now on; it is, at the last of them."""
    passed = []

    def watch(kind, name, after=False):
        original = getattr(kind, name)

        def method(self, *arguments, **options):
            if after:
                original(self, *arguments, **options)
            passed.append(name)
            if len(passed) == last:
                raise KillError
            return None if after else original(self, *arguments, **options)

        patch.setattr(kind, name, method)

    watch(AtomicCheckpointIO, "save_checkpoint", after=True)
    for name in ("training_step", "validation_step", "on_validation_epoch_end", "on_train_epoch_end", "test_step"):
        watch(Module, name)
    return passed


def left(folder):
    """What a run has left: its tables as they are, its checkpoints as they are loaded."""
    tables = {name: (folder / name).read_bytes() for name in TABLES if (folder / name).exists()}
    return tables | {path.name: torch.load(path) for path in (folder / "checkpoints").iterdir()}


def differences(one, two, where=""):
    """Where two contents differ, a line each."""
    if isinstance(one, dict) and isinstance(two, dict):
        pairs = [(one.get(key), two.get(key), f"{where}/{key}") for key in one.keys() | two.keys()]
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = [(*pair, where) for pair in zip(one, two, strict=True)]
    else:
        tensors = isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) and one.dtype == two.dtype
        same = torch.equal(*map(torch.nan_to_num, (one, two))) if tensors else repr(one) == repr(two)
        return [] if same else [f"{where}: {one!r:.200} and {two!r:.200}"]
    return [line for pair in pairs for line in differences(*pair)]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_run_that_is_killed_ends_as_the_whole_one(number, tmp_path, monkeypatch):
    chance = random.Random(f"{number} of 50")
    words = [*ALL, *(word for choices in DRAWN for word in chance.choice(choices)), f"hydra.run.dir={tmp_path / 'run'}"]
    job_plan = plan(words)
    with monkeypatch.context() as patch:
        passed = moments(patch)
        assert sweep.execute(job_plan) == 0, words
    (tmp_path / "run").rename(tmp_path / "whole")
    last = chance.randint(1, len(passed))
    with monkeypatch.context() as patch:
        moments(patch, last)
        assert sweep.execute(job_plan) == 1
    assert read_status(tmp_path / "run")["error"] == "KillError"
    assert sweep.execute(job_plan) == 0
    found = differences(left(tmp_path / "whole"), left(tmp_path / "run"))
    assert not found, "\n".join([*words, f"killed at {passed[last - 1]}, {last} of {len(passed)}", *found[:5]])


def test_two_processes_go_on_each_with_its_own_random_numbers_and_sums(tmp_path):
    """Added up and handed to one of them, sums are an ulp apart."""
    each = f"+callbacks.also={KEPT} 's{{step}}', every_n_train_steps: 1, save_top_k: -1}}"
    words = [*ALL, *DIGITS, each, "trainer=ddp_cpu", "keyed=false", "data.batch_size=16", "trainer.max_epochs=2"]
    job_plan = plan([*words, "trainer.log_every_n_steps=4", f"hydra.run.dir={tmp_path / 'run'}"])
    assert sweep.execute(job_plan) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    places = tmp_path / "run" / "checkpoints"
    last = torch.load(places / "sstep=3.ckpt")  # as if it had been killed there
    for state in last["callbacks"].values():
        state |= {"saved_at": 3} if state.get("saved_at") == 2 else {}
    torch.save(last, places / "last.ckpt")
    status = {**read_status(tmp_path / "run"), "status": "interrupted", "sha256": None}
    (tmp_path / "run" / "status.json").write_text(json.dumps(status))
    assert sweep.execute(job_plan) == 0
    assert differences(left(tmp_path / "whole"), left(tmp_path / "run")) == []
