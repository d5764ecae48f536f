"""Laws of planned jobs: those that differ in a seed or a rate share the rest, and each has its own configuration."""

import pytest
from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.jobs.job import VARIED, resolved
from dropout_lab.jobs.job import written as written_of
from dropout_lab.jobs.plan import plan


@pytest.fixture(scope="module")
def jobs():
    return plan(["-m", "seed=3,4", "dropout.p=0.1,0.2", "model=mlp"]).jobs


def test_jobs_that_differ_in_what_varies_share_all_else(jobs):
    assert len(jobs) == 4
    assert all(job.alike is jobs[0].alike for job in jobs)
    assert {key: jobs[0].alike[key] for key in ("seed",)} == {"seed": VARIED["seed"]}
    assert [(job.varied["seed"], job.varied["dropout.p"]) for job in jobs] == [(3, 0.1), (3, 0.2), (4, 0.1), (4, 0.2)]


def test_each_job_has_a_configuration_of_its_own_anew(jobs):
    for job in jobs:
        config = job.config
        assert (config.seed, config.dropout.p) == (job.varied["seed"], job.varied["dropout.p"])
        assert config is not job.config
        assert job.choices["model"] == "mlp"
    jobs[0].config.seed = 99
    assert jobs[0].config.seed == 3


def test_what_is_written_is_the_configuration_with_its_interpolations(jobs):
    job = jobs[3]
    expected = written_of(job.own)
    assert {key: value for key, value in job.written.items() if key != "run"} == {
        key: value for key, value in expected.items() if key != "run"
    }
    assert "hydra" not in job.written
    assert "${" in str(job.written)
    assert "${" not in str(job.alike)


def test_a_missing_value_is_asked_for_by_its_key():
    with pytest.raises(UserError, match=r"^data\.root needs a value: data\.root=\.\.\.$"):
        plan(["data=image_folder"])


def test_resolved_values_are_plain_and_final():
    config = OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": [1, "${b.c}"]}})
    found = resolved(config)
    assert found == {"a": 1, "b": {"c": 1, "d": [1, 1]}}
    assert (type(found["b"]), type(found["b"]["d"])) == (dict, list)
