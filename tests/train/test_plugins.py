"""Laws of plugins: what can't be made, or would search for the worst, is one line before anything starts."""

import pytest

from dropout_lab.cli import UserError
from dropout_lab.jobs.plan import plan
from dropout_lab.train.plugins import require_direction, try_plugins

SEARCH = ["-m", "sweep=optuna", "dropout.p=interval(0,0.8)"]
ACCURACY = [*SEARCH, "callbacks.checkpoint.monitor=val/acc", "callbacks.checkpoint.mode=max"]


@pytest.mark.slow
def test_a_search_goes_the_way_of_the_number_by_which_the_best_checkpoint_is_chosen():
    require_direction(plan(SEARCH))
    require_direction(plan([*ACCURACY, "hydra.sweeper.direction=maximize"]))
    with pytest.raises(UserError, match=r"^hydra.sweeper.direction=minimize: the objective is val/acc, .*=max"):
        require_direction(plan(ACCURACY))


def test_a_sweep_over_values_has_no_direction():
    require_direction(plan(["-m", "seed=0,1", *ACCURACY[3:]]))


def test_a_plugin_that_cannot_be_made_is_told_by_its_option():
    try_plugins(plan(["-m", "seed=0,1"]).base.hydra)
    broken = plan([*SEARCH, "hydra.sweeper.sampler._target_=nowhere.Sampler"])
    with pytest.raises(UserError, match=r"^hydra/sweeper=optuna: it can't be made: ImportError: "):
        try_plugins(broken.base.hydra)
