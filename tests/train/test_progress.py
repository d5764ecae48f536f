"""Laws of the progress of a sweep: what a person sees on a terminal, and in a log file."""

import io
import re
from contextlib import redirect_stderr

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from dropout_lab.train import progress as bar
from dropout_lab.train.progress import SweepProgress

JOBS = ["inverted seed=0", "classic seed=2", "none seed=1"]


class Terminal(io.StringIO):
    """Says that a person is looking."""

    def isatty(self):
        return True

    def now(self):
        """What the last line shows: the bar returns to its start to draw over itself."""
        return self.getvalue().split("\r")[-1]


def test_the_bar_shows_the_number_and_name_of_the_running_job():
    with redirect_stderr(Terminal()) as terminal:
        progress = SweepProgress(len(JOBS))
        for number, job in enumerate(JOBS, start=1):
            progress.start(job)
            assert terminal.now().startswith(f"{number}/3 {job} |")
            progress.done()
        assert "\n" not in terminal.getvalue()  # one line, drawn over itself
        progress.close()


def test_the_bar_fills_as_jobs_are_done():
    with redirect_stderr(Terminal()) as terminal:
        progress, filled = SweepProgress(len(JOBS)), []
        for job in JOBS:
            progress.start(job)
            filled.append(terminal.now().count("#"))
            progress.done()
        progress.close()
        assert filled[0] == 0 < filled[1] < filled[2] < terminal.now().count("#")


def test_the_bar_shows_the_time_that_is_left():
    with redirect_stderr(Terminal()) as terminal:
        progress = SweepProgress(len(JOBS))
        progress.start(JOBS[0])
        progress.done()
        progress.start(JOBS[1])
        assert re.search(r"\d\d:\d\d<\d\d:\d\d", terminal.now())
        progress.close()


def test_close_leaves_the_bar_and_ends_its_line(capsys):
    with redirect_stderr(Terminal()) as terminal:
        progress = SweepProgress(len(JOBS))
        for job in JOBS:
            progress.start(job)
            progress.done()
        progress.close()
        assert terminal.now().startswith("3/3 none seed=1 |")
        assert terminal.now().endswith("\n")
        assert capsys.readouterr().out == ""


def test_a_log_file_gets_one_line_for_each_job_that_is_done(capsys):
    progress = SweepProgress(len(JOBS))
    for number, job in enumerate(JOBS, start=1):
        progress.start(job)
        assert len(capsys.readouterr().err.splitlines()) == 0
        progress.done()
        out, err = capsys.readouterr()
        assert re.fullmatch(rf"{number}/3 {job} \(\d+ s in all\)\n", err)
        assert out == ""
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_a_sweep_that_stops_early_can_be_closed():
    with redirect_stderr(Terminal()) as terminal:
        progress = SweepProgress(len(JOBS))
        progress.start(JOBS[0])
        progress.close()
        progress.close()
        assert terminal.now().startswith("1/3 inverted seed=0 |")


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


def drawn(tmp_path, **limits):
    counting = Counting()
    counting.drawn = []
    loader = DataLoader(torch.randn(40, 2), num_workers=0)
    quiet = {"enable_model_summary": False, "enable_checkpointing": False, "logger": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(**{"max_epochs": 1, **limits}, callbacks=[counting], default_root_dir=tmp_path, **quiet)
    trainer.fit(Short(), loader, loader)
    return counting.drawn


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.parametrize(("seconds", "steps"), [(0.0, set(range(1, 41))), (3600.0, {40})])
def test_it_is_drawn_at_the_last_step_and_before_that_when_it_is_time(tmp_path, monkeypatch, capsys, seconds, steps):
    monkeypatch.setattr(bar, "APART", seconds)
    assert set(drawn(tmp_path)) - {0} == steps
    assert "40/40" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.parametrize(
    ("limits", "last"),
    [
        ({"max_epochs": -1, "max_steps": 50}, "10/10"),
        ({"max_epochs": 9, "max_steps": 50}, "10/10"),
        ({"max_epochs": -1, "max_steps": 16, "accumulate_grad_batches": 3}, "6/6"),  # 14 steps an epoch
    ],
)
def test_in_the_epoch_that_ends_by_steps_the_bar_counts_to_its_last_batch(tmp_path, capsys, limits, last):
    drawn(tmp_path, **limits)
    out = capsys.readouterr().out
    assert "40/40" in out
    assert last in out[out.rindex("Epoch 1") :]
