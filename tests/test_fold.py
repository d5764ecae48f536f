"""Laws of the command `fold`: the plain model computes the same, and what cannot be exact is refused."""

import pytest
import torch
from trained_run import QUICK

from dropout_lab import fold as folding
from dropout_lab.cli import UserError
from dropout_lab.jobs.allowed import ALLOWED
from dropout_lab.runs.network import restore
from dropout_lab.train.__main__ import main as train_main


def test_folded_weights_load_into_the_plain_model_and_compute_the_same(trained_run, tmp_path, capsys):
    from dropout_lab.models.small import CNN

    out = tmp_path / "folded.pt"
    folding.main([f"run={trained_run}", f"out={out}"])
    assert "max |difference| of outputs on 256 test samples" in capsys.readouterr().out
    plain = CNN((1, 8, 8), 10, hidden=48).eval()
    plain.load_state_dict(torch.load(out, weights_only=True), strict=True)
    run = restore(trained_run)
    run.data.setup("test")
    images = run.data.prepare(run.data.test.inputs)
    torch.testing.assert_close(plain(images), run.net(images), rtol=1e-6, atol=1e-5)
    unfolded = CNN((1, 8, 8), 10, hidden=48).eval()
    unfolded.load_state_dict(run.net.state_dict())
    assert (unfolded(images) - run.net(images)).abs().max() > 0.1  # without folding they are far apart


@pytest.mark.slow
def test_where_folding_is_not_exact_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dropout_lab.jobs.allowed.ALLOWED", (*ALLOWED, ("evaluate_models", ("torch.nn.Module",))))
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        train_main(
            [
                *QUICK,
                "dropout=classic",
                "model._target_=evaluate_models.Sigmoid",
                "~model.widths",
                "~model.hidden",
                "~model.batch_norm",
                f"hydra.run.dir={folder}",
            ]
        )
    with pytest.raises(UserError, match=r"cannot be folded: .*Sigmoid"):
        folding.fold(folder, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_a_place_that_does_not_exist_is_refused_before_any_work(trained_run, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        folding.fold(trained_run, tmp_path / "none" / "out.pt")
