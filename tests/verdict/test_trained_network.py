"""The network of a run, read back."""

import pytest

from dropout_lab import evaluate
from dropout_lab.train.__main__ import main as train_main
from dropout_lab.verdict.trained_network import load


@pytest.mark.slow
def test_a_run_is_read_back_with_its_best_weights_and_its_own_data(tmp_path):
    words = ["experiment=robustness", "data.train_size=60", "trainer.max_epochs=5", "logger=csv"]
    with pytest.raises(SystemExit) as ended:
        train_main([*words, "dropout=inverted", "seed=5", f"hydra.run.dir={tmp_path / 'run'}"])
    assert ended.value.code == 0
    one = load(tmp_path / "run")
    assert (len(one.images), len(one.train_images), len(one.train_classes)) == (539, 60, 60)
    assert one.seed == 5
    accuracy = (one.net(one.images).argmax(1) == one.classes).double().mean()
    assert float(accuracy) == evaluate.evaluate(tmp_path / "run")["test/acc"]
    assert abs(float(one.train_images.mean())) < 1e-3  # standardised
