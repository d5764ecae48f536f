"""Laws of weight averaging in a run: what is tested is what is saved, and it goes on where it was interrupted."""

import pandas as pd
import pytest
import torch
from commands import exit_code

from dropout_lab.evaluate import evaluate
from dropout_lab.jobs.build import build_data, build_network
from dropout_lab.runs.folder import read_config, read_status

pytestmark = pytest.mark.slow

WORDS = [
    *("trainer.max_epochs=3", "data.train_size=320", "trainer.log_every_n_steps=3", "logger=csv", "dropout.p=0.2"),
    *("model.batch_norm=true", "callbacks=[default,weight_averaging]", "callbacks.weight_averaging.decay=0.8"),
]


def run(folder, *words):
    return exit_code(*WORDS, *words, f"hydra.run.dir={folder}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averaged") / "run"
    assert run(folder) == 0
    return folder


def test_the_average_is_tested_and_is_the_state_dict_of_the_checkpoint(whole):
    logged = pd.read_csv(whole / "metrics.csv").iloc[-1]
    assert evaluate(whole, "best") == {key: logged[key] for key in ("test/loss", "test/acc")}
    saved = torch.load(whole / "checkpoints" / "best.ckpt")
    config = read_config(whole)
    data = build_data(config)
    data.setup()
    net = build_network(config, data).net
    net.load_state_dict({key.removeprefix("net."): value for key, value in saved["current_model_state"].items()})
    logits = net.eval()(data.prepare(data.test.inputs))
    assert torch.nn.functional.cross_entropy(logits, data.test.targets).item() != pytest.approx(
        logged["test/loss"], 1e-3
    )


def test_the_average_moves_by_one_minus_decay_towards_the_weights_of_each_step(tmp_path):
    """An epoch is one step here: the average is w1 after the first, 0.8 w1 + 0.2 w2 after the second."""
    last = []
    for epochs in (1, 2):
        folder = tmp_path / str(epochs)
        assert run(folder, "data.train_size=64", f"trainer.max_epochs={epochs}", "model.batch_norm=false") == 0
        last.append(torch.load(folder / "checkpoints" / "last.ckpt"))
    first, second = last
    for key, value in second["state_dict"].items():
        assert torch.equal(first["state_dict"][key], first["current_model_state"][key])
        expected = 0.8 * first["current_model_state"][key] + 0.2 * second["current_model_state"][key]
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("where", "number"), [("training_step", 8), ("on_validation_epoch_end", 2), ("test_step", 1)])
def test_an_interrupted_run_ends_as_the_whole_one(where, number, whole, tmp_path, monkeypatch):
    from dropout_lab.modules.classification import Classifier

    original, calls = getattr(Classifier, where), []

    def stopping(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == number + (where == "on_validation_epoch_end"):  # the sanity check comes first
            raise RuntimeError("stopped")
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, where, stopping)
        assert run(tmp_path / "run") == 1
    assert run(tmp_path / "run") == 0
    assert read_status(tmp_path / "run")["status"] == "ok"
    for name in ("metrics.csv", "activations.csv"):
        assert (tmp_path / "run" / name).read_text() == (whole / name).read_text()
    for name in ("last", "best"):
        ours, theirs = (torch.load(f / "checkpoints" / f"{name}.ckpt") for f in (tmp_path / "run", whole))
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert all(torch.equal(ours[part][key], value) for key, value in theirs[part].items())
