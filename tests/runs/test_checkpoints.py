"""Laws of checkpoints that need a disk of their own; test_resume.py has those of going on from them."""

from datetime import timedelta

import lightning as L
import pandas as pd
import pytest
import torch
from commands import exit_code
from lightning.pytorch.demos.boring_classes import BoringModel
from run_folders import same
from small_disk import fill, mounted

from dropout_lab.runs.checkpoints import AtomicCheckpointIO, WithinEpoch
from dropout_lab.runs.folder import read_status

WORDS = ["trainer.max_epochs=3", "data.train_size=128", "logger=csv", "callbacks.activation_stats.probe_masks=1"]


def test_a_full_disk_is_called_so_and_keeps_the_old_checkpoint(tmp_path):
    """Torch says "unexpected pos"."""
    with mounted(tmp_path / "small", "size=100k") as disk:
        AtomicCheckpointIO().save_checkpoint({"step": 1}, disk / "last.ckpt")
        with pytest.raises(OSError, match="No space left on device"):
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(2**16)}, disk / "last.ckpt")
        assert torch.load(disk / "last.ckpt") == {"step": 1}
        assert [path.name for path in disk.iterdir()] == ["last.ckpt"]


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
@pytest.mark.parametrize(
    ("every", "accumulate", "saved"),
    [("minutes", 1, [10, 20]), ("minutes", 2, [10]), ("steps", 1, [7, 14, 21]), ("steps", 2, [7])],
)
def test_within_an_epoch_the_clock_is_asked_every_tenth_step(every, accumulate, saved, tmp_path):
    """Neither minutes nor steps save at the last batch, nor where gradients wait for their step."""

    class Noted(WithinEpoch):
        def _save_topk_checkpoint(self, trainer, monitor_candidates):
            steps.append(trainer.global_step)
            complete.append((trainer.fit_loop.epoch_loop.batch_idx + 1) % accumulate == 0)

    steps, complete = [], []
    options = {"minutes": {"train_time_interval": timedelta(0)}, "steps": {"every_n_train_steps": 7}}[every]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"limit_train_batches": 28, "accumulate_grad_batches": accumulate}
    L.Trainer(max_epochs=1, callbacks=[Noted(**options)], default_root_dir=tmp_path, **quiet).fit(BoringModel())
    assert steps == saved
    assert all(complete)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert exit_code(*WORDS, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training_step", "on_validation_epoch_end", "on_train_epoch_end"])
def test_where_the_disk_is_full_a_run_stops_with_one_line_and_goes_on(where, whole, tmp_path, monkeypatch, capsys):
    from dropout_lab.modules.classification import Classifier

    with mounted(tmp_path / "disk", "size=4m") as disk:
        original = getattr(Classifier, where)

        def filling(self, *args, **kwargs):
            if self.current_epoch == 1 and not self.trainer.sanity_checking and not (disk / "filler").exists():
                fill(disk)
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, where, filling)
            capsys.readouterr()
            assert exit_code(*WORDS, f"hydra.run.dir={disk / 'run'}") == 1
        said = capsys.readouterr().err
        assert said.count("No space left on device") == 2  # where it happened, and in the table
        assert "Traceback" not in said
        assert read_status(disk / "run")["status"] == "failed"
        kept, all_rows = (pd.read_csv(folder / "metrics.csv") for folder in (disk / "run", whole))
        pd.testing.assert_frame_equal(kept, all_rows[: len(kept)][kept.columns])
        assert kept.epoch[0] == 0
        (disk / "filler").unlink()
        assert exit_code(*WORDS, f"hydra.run.dir={disk / 'run'}") == 0
        assert same(disk / "run", whole)
