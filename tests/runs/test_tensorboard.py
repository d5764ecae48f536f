"""TensorBoard gets what the other loggers get."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dropout_lab.runs.loggers import TensorBoard


@pytest.mark.slow
def test_texts_that_look_like_interpolations_do_not_stop_a_run(tmp_path):
    """The diff of a configuration does."""
    logger = TensorBoard(str(tmp_path), name=None, version="")
    logger.log_hyperparams({"git_diff": "+root: ${oc.env:"})
    logger.log_metrics({"val/loss": 0.5}, step=3)
    logger.save()
    logger.finalize("success")
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("val/loss")] == [(3, 0.5)]
