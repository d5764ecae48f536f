"""Laws of the progress bar of a single run."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from dropout_lab import bar


class Short(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.layer(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Counting(bar.ProgressBar):
    """Writes down how far the bar was each time that it was drawn."""

    def get_metrics(self, *arguments):
        self.drawn.append(self.train_progress_bar.n)
        return super().get_metrics(*arguments)


def drawn(tmp_path):
    counting = Counting()
    counting.drawn = []
    loader = DataLoader(torch.randn(40, 2), num_workers=0)
    quiet = {"enable_model_summary": False, "enable_checkpointing": False, "logger": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=1, callbacks=[counting], default_root_dir=tmp_path, **quiet)
    trainer.fit(Short(), loader, loader)
    return counting.drawn


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.parametrize(("seconds", "steps"), [(0.0, set(range(1, 41))), (3600.0, {40})])
def test_it_is_drawn_at_the_last_step_and_before_that_when_it_is_time(tmp_path, monkeypatch, capsys, seconds, steps):
    monkeypatch.setattr(bar, "APART", seconds)
    assert set(drawn(tmp_path)) - {0} == steps
    assert "40/40" in capsys.readouterr().out
