"""What only building shows is known before the first job starts."""

import os
from collections import Counter

import pytest
import torch

from dropout_lab.cli import UserError
from dropout_lab.jobs.plan import plan
from dropout_lab.train import preflight, trainer
from dropout_lab.train.preflight import refusals


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


def test_a_schedule_of_the_learning_rate_is_tried_in_the_unit_of_its_interval():
    """15 steps an epoch."""
    one_cycle = ["lr_scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "~lr_scheduler.T_max"]
    words = ["-m", *one_cycle, "lr_scheduler.max_lr=0.1", "lr_scheduler.interval=epoch,step", "trainer.max_epochs=2"]
    found = refusals(plan([*words, "lr_scheduler.total_steps=29,30,training"]).jobs)
    assert list(found) == [3]  # a step and 29
    assert found[3].startswith("lr_scheduler: Tried to step 30 times.")


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
    built = []
    original = preflight.build_network
    monkeypatch.setattr(preflight, "build_network", lambda *args: built.append(1) or original(*args))
    values = ["seed=0,1", "dropout.p=0.1,0.2", "optimizer.lr=0.1,0.2", "optimizer.weight_decay=0,0.1"]
    refusals(plan(["-m", "dropout=inverted,none", *values]).jobs)
    assert len(built) == 2


@pytest.mark.slow
def test_a_part_is_built_once_for_all_jobs_that_share_it(monkeypatch):
    built = Counter()
    for name in ("instantiate", "build_network"):
        original = getattr(preflight, name)

        def counted(node, *arguments, name=name, original=original, **options):
            built[node.get("_target_", "").rpartition(".")[2] or name] += 1
            return original(node, *arguments, **options)

        for module in (preflight, trainer):
            monkeypatch.setattr(module, name, counted, raising=False)
    refusals(plan(["-m", "dropout=inverted,none", "trainer.max_epochs=2,3", "keyed=true,false"]).jobs)
    assert built["build_network"] == 2
    assert built["Trainer"] == built["Wandb"] == built["Best"] == 2
    assert built["CrossEntropyLoss"] == 1


@pytest.mark.slow
def test_planning_changes_nothing_for_the_process_and_leaves_nothing(tmp_path, monkeypatch):
    """Not a folder of the loggers, nor what the Trainer sets for all of torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    places = [f"logger.wandb.save_dir={tmp_path}/a", f"logger.tensorboard.save_dir={tmp_path}/b"]
    words = ["trainer.deterministic=true", "+trainer.benchmark=true", "logger=[wandb,tensorboard]", *places]
    assert refusals(plan(words).jobs) == {}
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert not list(tmp_path.iterdir())
