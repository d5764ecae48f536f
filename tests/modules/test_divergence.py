"""Laws of divergence: which of the logged numbers are a loss that is none."""

from math import inf, nan
from types import SimpleNamespace

import pytest

from dropout_lab.modules.divergence import why_diverged


def trainer(scaler=None):
    return SimpleNamespace(global_step=7, precision_plugin=SimpleNamespace(scaler=scaler))


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"train/loss": nan}, "train/loss is nan at step 7"),
        ({"train/loss": 0.1, "val/loss": -inf}, "val/loss is -inf at step 7"),
        ({"test/loss": inf, "test/acc": 0.1}, "test/loss is inf at step 7"),
        ({"train/loss": 0.1, "val/loss": 0.2, "val/acc": nan, "train/lost": nan}, None),
        ({}, None),
    ],
)
def test_a_loss_that_is_no_number_is_named_with_its_step(metrics, said):
    assert why_diverged(metrics, trainer()) == said


def test_steps_that_a_scaler_leaves_out_do_not_count_but_what_validation_measures_does():
    assert why_diverged({"train/loss": nan}, trainer(scaler=object())) is None
    assert why_diverged({"train/loss": nan, "val/loss": nan}, trainer(scaler=object())) == "val/loss is nan at step 7"
