"""A run tested again, folded and read back, from its folder alone."""

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from dropout_lab import evaluate as evaluation
from dropout_lab import fold as folding
from dropout_lab.cli import UserError
from dropout_lab.jobs.plan import plan
from dropout_lab.jobs.processes import launch
from dropout_lab.runs.network import restore
from dropout_lab.train.__main__ import main as train_main

QUICK = ["trainer.max_epochs=2", "data.train_size=128", "logger=csv", "callbacks.activation_stats.probe_masks=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that differs from the defaults in its width, rate and strategy."""
    folder = tmp_path_factory.mktemp("run") / "one"
    with pytest.raises(SystemExit) as ended:
        train_main([*QUICK, "dropout=classic", "dropout.p=0.3", "model.hidden=48", f"hydra.run.dir={folder}"])
    assert ended.value.code == 0
    return folder


def test_evaluate_gives_the_run_s_own_numbers_to_the_last_bit(folder):
    logged = pd.read_csv(folder / "metrics.csv").iloc[-1]
    assert evaluation.evaluate(folder) == {key: logged[key] for key in ("test/loss", "test/acc")}


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A run of two processes. The test part has an odd number of images."""
    folder = tmp_path_factory.mktemp("two") / "run"
    with pytest.raises(SystemExit) as ended:
        train_main([*QUICK, "trainer=ddp_cpu", "trainer.devices=2", f"hydra.run.dir={folder}"])
    assert ended.value.code == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("samples", [0, 5])
def test_evaluate_gives_the_same_at_any_number_of_processes(samples, of_two, tmp_path):
    """On as many as the run had it is the same to the last bit. Processes of one group print once."""
    one = evaluation.evaluate(of_two, monte_carlo_samples=samples)
    mode = ["eval.mode=monte_carlo", f"eval.samples={samples}"] if samples else []
    launch(2, evaluation.main, [f"run={of_two}", *mode], log=tmp_path / "said")
    _, *lines = (tmp_path / "said").read_text().splitlines()
    two = {key: float(value) for key, value in (line.split() for line in lines)}
    assert two == pytest.approx(one, rel=1e-6)
    if not samples:
        assert two == pd.read_csv(of_two / "metrics.csv").iloc[-1][["test/loss", "test/acc"]].to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["gpu", "ddp", "fsdp"])
def test_a_run_of_gpus_is_evaluated_where_there_are_none(trainer, folder, tmp_path):
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU here")
    config = OmegaConf.load(folder / "config.yaml")
    config.trainer = plan([f"trainer={trainer}", "trainer.max_epochs=2"]).base.trainer
    OmegaConf.save(config, tmp_path / "config.yaml")
    (tmp_path / "checkpoints").symlink_to(folder / "checkpoints")
    assert evaluation.evaluate(tmp_path) == evaluation.evaluate(folder)


def test_monte_carlo_is_reproducible_and_another_number(folder):
    first, again = (evaluation.evaluate(folder, monte_carlo_samples=5) for _ in range(2))
    assert first == again
    assert first != evaluation.evaluate(folder)


def test_monte_carlo_averages_the_predictions_of_masks(folder):
    from dropout_lab.dropout import mask_keys, monte_carlo

    run = restore(folder)
    run.data.setup("test")
    classes = run.data.test.classes
    with mask_keys(run.config.seed, 0, range(len(classes))):
        mean = monte_carlo(run.net, run.data.prepare(run.data.test.images), 4).mean
    loss = torch.nn.functional.nll_loss(mean.log(), classes).item()
    assert evaluation.evaluate(folder, monte_carlo_samples=4)["test/loss"] == pytest.approx(loss, 1e-6)


def test_evaluation_leaves_the_folder_as_it_was(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    evaluation.evaluate(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_command_prints_the_numbers(folder, capsys):
    evaluation.main([f"run={folder}", "ckpt=last"])
    said = capsys.readouterr().out
    assert "last.ckpt  weight_scaling, dropout off" in said
    assert repr(evaluation.evaluate(folder, "last")["test/acc"]) in said


def test_folded_weights_load_into_the_plain_model_and_compute_the_same(folder, tmp_path, capsys):
    from dropout_lab.models.small import CNN

    out = tmp_path / "folded.pt"
    folding.main([f"run={folder}", f"out={out}"])
    assert "max |difference| of logits on 256 test images" in capsys.readouterr().out
    plain = CNN((1, 8, 8), 10, hidden=48).eval()
    plain.load_state_dict(torch.load(out, weights_only=True), strict=True)
    run = restore(folder)
    run.data.setup("test")
    images = run.data.prepare(run.data.test.images)
    torch.testing.assert_close(plain(images), run.net(images), rtol=1e-6, atol=1e-5)
    unfolded = CNN((1, 8, 8), 10, hidden=48).eval()
    unfolded.load_state_dict(run.net.state_dict())
    assert (unfolded(images) - run.net(images)).abs().max() > 0.1  # without folding they are far apart


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=nowhere"], "nowhere: does not exist; give the folder of one run"),
        (["run=."], "is not a run folder: it has no config.yaml"),
        (["run={run}", "ckpt=first"], "ckpt=first: must be best or last"),
        (["run={run}", "eval.mode=exact"], "eval.mode=exact: must be weight_scaling or monte_carlo"),
        (["run={run}", "eval.mode=monte_carlo", "eval.samples=0"], "eval.samples=0: out of range"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        evaluation.main([word.format(run=folder) for word in words])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


def test_a_broken_checkpoint_is_named(folder, tmp_path):
    for name in ("config.yaml",):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match=r"best\.ckpt does not exist; the run saved none"):
        restore(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    whole = (folder / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"best\.ckpt does not exist; there is ckpt=last"):
        restore(tmp_path)
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read, it may be truncated"):
        restore(tmp_path, "last")


def test_weights_of_another_architecture_are_named(folder, tmp_path):
    text = (folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("hidden: 48", "hidden: 49"))
    (tmp_path / "checkpoints").symlink_to(folder / "checkpoints")
    with pytest.raises(UserError, match=r"the weights of best\.ckpt do not fit the run's model: .*hidden\.weight"):
        restore(tmp_path)


def test_a_folder_of_older_code_is_named(folder, tmp_path):
    text = (folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("channels_last: true", "channels_first: false"))
    (tmp_path / "checkpoints").symlink_to(folder / "checkpoints")
    with pytest.raises(UserError, match=r"its configuration is of other code, which had no channels_last"):
        restore(tmp_path)


def test_p_belongs_to_a_classic_checkpoint(folder, tmp_path):
    text = (folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("p: 0.3", "p: 0.4"))
    (tmp_path / "checkpoints").symlink_to(folder / "checkpoints")
    with pytest.raises(
        UserError, match=r"classic p=0\.3 .*, this model has classic p=0\.4 .* p belongs to its checkpoint"
    ):
        restore(tmp_path)


@pytest.mark.slow
def test_where_folding_is_not_exact_it_is_refused(tmp_path):
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


def test_a_place_that_does_not_exist_is_refused_before_any_work(folder, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        folding.fold(folder, tmp_path / "none" / "out.pt")
