"""Laws of the line before a sweep: how many jobs, devices and steps, and where it will lie."""

from types import SimpleNamespace

import pytest

from dropout_lab.jobs.plan import plan
from dropout_lab.train import outline as module
from dropout_lab.train.outline import outline
from dropout_lab.train.preflight import refusals
from dropout_lab.train.sweep import known


@pytest.fixture
def ten_batches(monkeypatch):
    monkeypatch.setattr(module, "batches_of", lambda job: 10)


def sweep(*trainers, launcher="basic", known=True, **sweeper):
    """A plan of jobs with these settings of the Trainer beside two epochs."""
    jobs = [SimpleNamespace(alike={"trainer": {"max_epochs": 2, **trainer}}) for trainer in trainers]
    settings = {"n_jobs": 4} if launcher == "joblib" else {}
    base = SimpleNamespace(hydra=SimpleNamespace(sweeper=sweeper, launcher=settings))
    return SimpleNamespace(base=base, jobs=jobs if known else [], known=jobs, launcher=launcher, folder="runs/x")


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [
        ({}, "20 steps"),
        ({"limit_train_batches": 4}, "8 steps"),
        ({"limit_train_batches": 400}, "20 steps"),
        ({"limit_train_batches": 0.25}, "4 steps"),
        ({"limit_train_batches": None}, "20 steps"),
        ({"accumulate_grad_batches": 4}, "6 steps"),  # the rest of an epoch is a step of its own
        ({"max_steps": 1}, "1 step"),
        ({"max_steps": -1}, "20 steps"),
        ({"max_steps": 7, "max_epochs": -1}, "7 steps"),
        ({"max_steps": 700, "max_epochs": -1, "accumulate_grad_batches": 4}, "700 steps"),
    ],
)
@pytest.mark.usefixtures("ten_batches")
def test_steps_are_those_of_the_optimizer(trainer, steps):
    assert outline(sweep(trainer), [1]) == f"1 job, each 1 device and {steps}, in runs/x"


@pytest.mark.usefixtures("ten_batches")
def test_what_differs_from_job_to_job_is_told_from_least_to_most():
    told = outline(sweep({"max_epochs": 3}, {}, launcher="joblib"), [4, 2])
    assert told == "2 jobs through joblib, 2 at a time (n_jobs=4), each 2 to 4 devices and 20 to 30 steps, in runs/x"


@pytest.mark.usefixtures("ten_batches")
def test_where_a_sweeper_chooses_the_jobs_it_says_how_many():
    assert outline(sweep({}, known=False, n_trials=7), [1]).startswith("7 jobs, each ")
    assert outline(sweep({}, known=False), [1]).startswith("unknown number of jobs, each ")
    assert outline(sweep({}, known=False, launcher="joblib"), [1]).startswith(
        "unknown number of jobs through joblib, each"
    )


def said(*words):
    job_plan = plan(["-m", "hydra.sweep.dir=/s", *words])
    refusals(job_plan.known)
    return outline(job_plan, [its.processes for its in known(job_plan)])


@pytest.mark.slow
def test_a_sweep_is_outlined_in_one_line():
    """15 batches an epoch."""
    assert said("seed=0,1,2", "trainer.max_epochs=2") == "3 jobs, each 1 device and 30 steps, in /s"
    words = ["trainer=ddp_cpu", "trainer.devices=1,2", "trainer.max_epochs=1", "trainer.accumulate_grad_batches=1,4"]
    assert said(*words) == "4 jobs, each 1 to 2 devices and 4 to 15 steps, in /s"
    assert said("seed=0", "debug=fast") == "1 job, each 1 device and 1 step, in /s"


@pytest.mark.slow
def test_jobs_that_are_left_out_are_not_in_the_outline():
    job_plan = plan(["-m", "hydra.sweep.dir=/s", "seed=0,1,2", "debug=fast"])
    refusals(job_plan.known)
    assert outline(job_plan.without([1]), [1, 1]).startswith("2 jobs, ")
