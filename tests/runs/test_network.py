"""Laws of the network of a run: it computes what was tested, and what is missing is one line."""

import pytest
import torch

from dropout_lab.cli import UserError
from dropout_lab.runs import read
from dropout_lab.runs.network import restore


def test_a_checkpoint_that_is_not_there_is_refused_in_one_line(tmp_path, write_run):
    run = read.open(write_run(tmp_path / "0"))
    with pytest.raises(UserError, match=r"best\.ckpt does not exist; the run saved none") as error:
        run.network()
    assert "\n" not in str(error.value)
    (tmp_path / "0" / "checkpoints").mkdir()
    for name in ("last", "epoch=1-step=30"):
        (tmp_path / "0" / "checkpoints" / f"{name}.ckpt").touch()
    with pytest.raises(UserError, match=r"did you mean 'last'\? there is ckpt=epoch=1-step=30, ckpt=last$"):
        run.network("lost")
    with pytest.raises(UserError, match=r"epoch=1-step=30\.ckpt cannot be read"):  # and not that there is no such name
        run.network("epoch=1-step=30")


@pytest.mark.slow
def test_the_network_of_a_run_computes_what_was_tested(tmp_path):
    from dropout_lab.runs.network import restore
    from dropout_lab.train.__main__ import main as train

    quick = ["trainer.max_epochs=2", "data.train_size=128", "logger=csv", "callbacks.activation_stats.probe_masks=0"]
    with pytest.raises(SystemExit, match="0"):
        train([*quick, "dropout=classic", "dropout.p=0.3", "model.hidden=48", f"hydra.run.dir={tmp_path}"])
    run = read.open(tmp_path)
    rates = run.activations.query("stat == 'p'")
    assert set(rates["value"]) == {0.3}
    assert set(rates["layer"]) == set(run.dropout_layers)
    data = restore(tmp_path).data
    data.setup("test")
    images, classes = data.prepare(data.test.inputs[:]), data.test.targets
    with torch.no_grad():
        for name in ("best", "last"):
            network = run.network(name)
            assert not network.training
            assert torch.equal(network(images), restore(tmp_path, name).net(images))
        right = (run.network()(images).argmax(1) == classes).double().mean().item()
    assert run.final("test/acc") == pytest.approx(right, abs=1e-6)


def test_a_broken_checkpoint_is_named(trained_run, tmp_path):
    for name in ("config.yaml",):
        (tmp_path / name).write_bytes((trained_run / name).read_bytes())
    with pytest.raises(UserError, match=r"best\.ckpt does not exist; the run saved none"):
        restore(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    whole = (trained_run / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"best\.ckpt does not exist; there is ckpt=last"):
        restore(tmp_path)
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read, it is damaged or cut off: File is not a zip file"):
        restore(tmp_path, "last")


def with_another_setting(run, folder, old, new):
    """A run folder with the checkpoints of another, and a text of its configuration replaced."""
    text = (run / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace(old, new))
    (folder / "checkpoints").symlink_to(run / "checkpoints")


def test_weights_of_another_architecture_are_named(trained_run, tmp_path):
    with_another_setting(trained_run, tmp_path, "hidden: 48", "hidden: 49")
    with pytest.raises(UserError, match=r"the weights of best\.ckpt do not fit the run's model: .*hidden\.weight"):
        restore(tmp_path)


def test_a_folder_of_older_code_is_named(trained_run, tmp_path):
    with_another_setting(trained_run, tmp_path, "channels_last: true", "channels_first: false")
    with pytest.raises(UserError, match=r"its configuration is of other code, which had no channels_last"):
        restore(tmp_path)


def test_p_belongs_to_a_classic_checkpoint(trained_run, tmp_path):
    with_another_setting(trained_run, tmp_path, "p: 0.3", "p: 0.4")
    with pytest.raises(
        UserError, match=r"classic p=0\.3 .*, this model has classic p=0\.4 .* p belongs to its checkpoint"
    ):
        restore(tmp_path)
