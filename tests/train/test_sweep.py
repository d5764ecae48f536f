"""Laws of a sweep before it starts: what is known of its jobs, and what can be told to be in their way."""

from commands import exit_code

QUICK = ["trainer=ddp_cpu", "trainer.max_epochs=3", "data.train_size=256", "logger=csv"]


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
