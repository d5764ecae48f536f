"""Laws of divergence in training: it ends where it is seen first, and never goes unsaid."""

import pytest
import torch
from classifying import STEPS, data, made, trainer

from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.divergence import DivergenceError
from dropout_lab.train.recipes.divergence import Divergence

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*LeafSpec"
)


@pytest.fixture
def broken(monkeypatch):
    """A loss that is infinite in the third step alone, and changes no weight then."""
    loss = Classifier.loss

    def third(self, batch):
        return loss(self, batch) * 0 + torch.inf if self.global_step == 2 else loss(self, batch)

    monkeypatch.setattr(Classifier, "loss", third)
    return made(lr=0.0)


def test_training_ends_at_the_flush_behind_the_step_and_that_is_written(broken):
    fitter = trainer(log_every_n_steps=2, callbacks=[Divergence()])
    with pytest.raises(DivergenceError, match=r"^train/loss is inf at step 3$"):
        fitter.fit(broken, data())
    assert fitter.global_step == 3
    assert [(step, metrics["train/loss"]) for step, metrics in fitter.logger.calls][1:] == [(3, torch.inf)]


@pytest.mark.parametrize("callbacks", [[Divergence(stop=False)], []])
def test_it_goes_on_where_that_is_asked_for_and_the_module_knows(broken, callbacks):
    fitter = trainer(log_every_n_steps=2, callbacks=callbacks)
    fitter.fit(broken, data())
    assert fitter.global_step == 2 * STEPS
    assert broken.diverged == "train/loss is inf at step 3"


def test_a_run_that_went_on_and_was_interrupted_still_knows(broken, tmp_path):
    fitter = trainer(epochs=1, log_every_n_steps=2)
    fitter.fit(broken, data())
    fitter.save_checkpoint(tmp_path / "last.ckpt")
    again = made(lr=0.0)
    trainer(epochs=2).fit(again, data(), ckpt_path=tmp_path / "last.ckpt")
    assert again.diverged == "train/loss is inf at step 3"


def test_no_checkpoint_has_what_diverged(tmp_path, monkeypatch):
    monkeypatch.setattr(Classifier, "scores", lambda self, prediction, batch: {"loss": prediction[:, 0] * torch.nan})
    fitter = trainer(
        default_root_dir=tmp_path, num_sanity_val_steps=0, enable_checkpointing=True, callbacks=[Divergence()]
    )
    with pytest.raises(DivergenceError, match="val/loss is nan"):
        fitter.fit(made(), data())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_switch_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"callbacks.divergence.stop=1: must be true or false"):
        Divergence(1)
