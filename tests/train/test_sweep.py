"""Laws of a sweep: what is in the way of its jobs is told before they start, and one that fails leaves the others."""

import pytest
from commands import exit_code
from hydra._internal.core_plugins.basic_launcher import BasicLauncher

from dropout_lab.modules.classification import Classifier
from dropout_lab.runs.folder import read_status

QUICK = ["trainer=ddp_cpu", "trainer.max_epochs=3", "data.train_size=256", "logger=csv"]
BRIEF = [
    "trainer.max_epochs=1",
    "data.train_size=128",
    "logger=csv",
    "callbacks.activation_stats.probe_masks=1",
]


def test_processes_that_were_started_together_need_a_folder_in_common(alone, capsys):
    alone.setenv("SLURM_STEP_NUM_TASKS", "2")
    alone.setenv("SLURM_PROCID", "1")
    assert exit_code(*QUICK) == 2
    told = "error: 2 processes were started together: they train one run, in a hydra.run.dir you name\n"
    assert capsys.readouterr().err == told


def test_the_batch_must_be_divisible_by_the_devices(tmp_path, capsys):
    assert exit_code(*QUICK, "trainer.devices=3", f"hydra.run.dir={tmp_path / 'run'}") == 2
    told = capsys.readouterr().err
    assert "data.batch_size=64 is the batch over all devices and must be divisible by their number, 3" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_failing_job_says_why_and_the_sweep_goes_on(tmp_path, capsys, monkeypatch):
    step = Classifier.training_step

    def broken(self, batch, batch_idx):
        if self._seed == 1:
            raise RuntimeError("the loss is\nnot a number")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", broken)
    assert exit_code(*BRIEF, "-m", "seed=0,1,2", f"hydra.sweep.dir={tmp_path}") == 1
    assert [read_status(tmp_path / str(job))["status"] for job in range(3)] == ["ok", "failed", "ok"]
    status = read_status(tmp_path / "1")
    assert status["error"] == "RuntimeError: the loss is not a number"
    assert "in broken" in status["traceback"]
    said = capsys.readouterr().err
    assert "1 of 3 jobs did not end well" in said
    assert f"failed  {tmp_path / '1'}  RuntimeError: the loss is not a number" in said


@pytest.mark.slow
def test_a_job_whose_loss_is_no_number_is_said_to_diverge_and_the_sweep_goes_on(tmp_path, capsys):
    words = ["model=mlp", "model.widths=[16]", "trainer.log_every_n_steps=1", "trainer.max_epochs=9"]
    assert exit_code(*BRIEF[1:], *words, "-m", "optimizer.lr=1e30,0.1", f"hydra.sweep.dir={tmp_path}") == 1
    status = read_status(tmp_path / "0")
    assert (status["status"], status["error"]) == ("diverged", "train/loss is nan at step 1")
    assert read_status(tmp_path / "1")["status"] == "ok"
    said = capsys.readouterr().err
    assert "1 of 2 jobs did not end well" in said
    assert f"  diverged  {tmp_path / '0'}  train/loss is nan at step 1" in said
    assert "tracebacks" not in said


@pytest.mark.slow
def test_ctrl_c_ends_the_sweep_with_130(tmp_path, monkeypatch, capsys):
    def interrupted(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "training_step", interrupted)
    assert exit_code(*BRIEF, "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}") == 130
    assert read_status(tmp_path / "0")["status"] == "interrupted"
    assert not (tmp_path / "1").exists()
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("started", [0, 1])
def test_what_ends_all_jobs_is_one_line_and_there_is_no_word_of_tracebacks_that_are_nowhere(
    started, tmp_path, monkeypatch, capsys
):
    launch = BasicLauncher.launch

    def broken(self, job_overrides, initial_job_idx):
        launch(self, job_overrides[:started], initial_job_idx)
        raise RuntimeError("the queue is\nclosed")

    monkeypatch.setattr(BasicLauncher, "launch", broken)
    words = [*BRIEF, "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    assert exit_code(*words) == (1 if started else 2)
    said = capsys.readouterr().err.splitlines()
    trouble = "RuntimeError: the queue is closed"
    if started:
        assert said[2:6] == [
            f"error: hydra/launcher=basic: {trouble}",
            "",
            "1 of 2 jobs did not end well:",
            f"  missing  {tmp_path / '1'}  ",
        ]
        assert "traceback" not in " ".join(said)
    else:
        assert said[1:] == [f"error: hydra/launcher=basic: no job has started: {trouble}"]
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(RuntimeError):
        exit_code(*words)


@pytest.mark.slow
def test_a_sweep_ends_with_how_to_see_it(tmp_path, capsys):
    folder = tmp_path / "my sweep"
    assert exit_code(*BRIEF, "-m", "seed=0", f"hydra.sweep.dir='{folder}'") == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"run folders are in {folder}",
        f"table and page: scripts/lab report '{folder}'",
    ]
