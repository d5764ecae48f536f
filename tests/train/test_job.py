"""Laws of a job: its folder says how it ended, whatever happens."""

import pytest

from dropout_lab.cli import UserError
from dropout_lab.jobs import processes
from dropout_lab.jobs.plan import plan
from dropout_lab.runs.folder import read_status
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
    assert read_status(tmp_path)["error"] == "UserError: this machine has no GPUs"
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


@pytest.mark.slow
def test_a_process_that_cannot_note_why_it_failed_says_it_in_one_line(tmp_path):
    told = r"^dropout_lab\.cli\.UserError: .* has no config\.yaml; .*$"
    with pytest.raises(processes.ProcessError, match=told) as caught:
        processes.launch(2, one_of_several, tmp_path)
    assert "Traceback" in caught.value.trace
