"""What only building shows is known before the first job starts."""

import pytest

from dropout_lab.config import plan
from dropout_lab.errors import UserError
from dropout_lab.preflight import outline, refusals


@pytest.mark.slow
def test_good_jobs_are_not_refused():
    assert refusals(plan(["-m", "dropout=inverted,none", "seed=0,1"]).jobs) == {}


def test_a_strategy_that_does_not_fit_the_model_is_refused_with_its_site():
    jobs = plan(["-m", "dropout=spatial", "dropout.elsewhere=null,element", "model=mlp"]).jobs
    found = refusals(jobs)
    assert list(found) == [0]
    assert "needs (N, C, *spatial) maps" in found[0]


def test_matching_that_has_no_equivalent_is_refused():
    """Between two sigmoids no weight can take the factor."""
    model = ["model._target_=evaluate_models.Sigmoid", "~model.widths", "~model.hidden", "~model.batch_norm"]
    assert "Sigmoid" in refusals(plan(["dropout=classic", "optimizer.match=inverted", *model]).jobs)[0]


@pytest.mark.slow
def test_a_schedule_is_refused_for_classic_dropout_with_the_reason():
    found = refusals(plan(["-m", "dropout=classic,inverted", "dropout_schedule=early,constant"]).jobs)
    assert list(found) == [0]
    assert "multiplies by 1-p in eval, so another p is another network" in found[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.batch_size=4000"], "data.batch_size=4000 is larger than the training set"),
        (["data.train_size=5"], "data.train_size=5"),
    ],
)
def test_data_that_cannot_be_made_is_one_line(words, message):
    with pytest.raises(UserError) as caught:
        refusals(plan(words).jobs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_each_configuration_is_built_once(monkeypatch):
    from dropout_lab import build

    built = []
    original = build.build_network
    monkeypatch.setattr(build, "build_network", lambda *args: built.append(1) or original(*args))
    refusals(plan(["-m", "dropout=inverted,none", "seed=0,1,2"]).jobs)
    assert len(built) == 2


def said(*words):
    job_plan = plan(["-m", "hydra.sweep.dir=/s", *words])
    refusals(job_plan.known)
    return outline(job_plan)


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
    assert outline(job_plan.without([1])).startswith("2 jobs, ")
