"""One run and one sweep, from the command line to the folders they leave."""

import json
import re
import signal
import time
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from commands import Command, exit_code, run
from omegaconf import read_write
from waiting import wait_until
from wandb_files import read_finished

from dropout_lab import compare
from dropout_lab.jobs.plan import plan
from dropout_lab.runs import identity
from dropout_lab.runs.folder import read_status
from dropout_lab.train import __main__ as train_command
from dropout_lab.train.__main__ import main as train_main

SHORT = ["trainer.max_epochs=1", "data.train_size=128"]
QUICK = [*SHORT, "logger=csv", "callbacks.activation_stats.probe_masks=1"]
RUN_FILES = {"config.yaml", "metrics.csv", "activations.csv", "status.json", "checkpoints"}


@pytest.fixture(autouse=True)
def no_account(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("run") / "one"
    assert exit_code(*QUICK, "trainer.max_epochs=2", f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The headline command, one short epoch each, in a process of its own."""
    folder = tmp_path_factory.mktemp("sweep") / "all"
    words = ["-m", "dropout=inverted,classic,spatial,none", "seed=0,1,2", *SHORT]
    done = run(*words, f"hydra.sweep.dir={folder}", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_leaves_the_files_of_the_contract(folder):
    assert {path.name for path in folder.iterdir()} >= RUN_FILES
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    status = read_status(folder)
    assert status["status"] == "ok"
    assert status["error"] is None
    said = {"status", "error", "traceback", "seconds", "objective", "sha256"}
    assert set(status) == said | {"command", "git_sha", "git_diff", "versions", "config_hash", "code_hash"}


def test_the_config_is_resolved_and_names_the_layers(folder):
    text = (folder / "config.yaml").read_text()
    assert "${" not in text
    config = yaml.safe_load(text)
    assert config["layers"]["11_dropout"] == "dropout"
    assert config["run"]["dir"] == str(folder)
    rows = pd.read_csv(folder / "activations.csv")
    assert set(rows.layer.str.removesuffix("_in")) <= set(config["layers"])


def test_metrics_have_the_names_of_the_contract(folder):
    table = pd.read_csv(folder / "metrics.csv")
    assert list(table.columns[:2]) == ["epoch", "step"]
    scalars = {f"{part}/{key}" for part in ("val", "train_eval", "test", "gap") for key in ("loss", "acc")}
    kinds = {column.split("/")[0] for column in table.columns[2:]}
    stats = {f"activation_{stat}_{mode}" for stat in ("mean", "std", "zeros") for mode in ("train", "eval")}
    assert scalars | {"train/loss"} <= set(table.columns)
    assert kinds == {
        *("train", "val", "train_eval", "gap", "test", "dropout_gain_train", "dropout_gain_eval"),
        *("activation_shift", "activation_ratio", "dropout_p"),
        *stats,
    }
    assert table["dropout_gain_eval/11_dropout"].dropna().tolist() == [1.0, 1.0]


def test_the_sanity_check_leaves_no_row(folder):
    assert (pd.read_csv(folder / "metrics.csv").step > 0).all()


def test_the_test_numbers_come_from_the_best_checkpoint(folder):
    from dropout_lab.evaluate import evaluate

    logged = pd.read_csv(folder / "metrics.csv").iloc[-1]
    assert evaluate(folder, "best") == {key: logged[key] for key in ("test/loss", "test/acc")}


def test_checkpoints_hold_plain_containers_only(folder):
    def kinds(value):
        inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        nested = inside if isinstance(value, dict | list | tuple) else []
        return {type(value)}.union(*map(kinds, nested))

    plain = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    found = {path.name: kinds(torch.load(path, weights_only=True)) for path in (folder / "checkpoints").iterdir()}
    assert found.keys() == {"best.ckpt", "last.ckpt"}
    assert all(kinds <= plain for kinds in found.values()), found


@pytest.mark.slow
def test_one_seed_is_one_result(folder, tmp_path):
    assert exit_code(*QUICK, "trainer.max_epochs=2", f"hydra.run.dir={tmp_path}") == 0
    for name in ("metrics.csv", "activations.csv"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


@pytest.mark.slow
def test_strategies_meet_the_same_masks_and_the_same_data(tmp_path):
    """Classic matched to inverted at p = 0.5 is the same computation bit for bit, so every loss is equal."""
    losses = []
    for name, arguments in {"a": ["dropout=inverted"], "b": ["dropout=classic", "optimizer.match=inverted"]}.items():
        assert exit_code(*QUICK, *arguments, f"hydra.run.dir={tmp_path / name}") == 0
        losses.append(pd.read_csv(tmp_path / name / "metrics.csv")[["train/loss", "val/loss", "test/loss"]])
    pd.testing.assert_frame_equal(*losses, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["dropout.p=1.5"],
        ["dropout=invertd"],
        ["data.batch_size=5000"],
        ["data.train_size=3"],
        ["model.widths=[8,8,8,8]"],
        ["dropout=spatial", "dropout.elsewhere=null"],
        ["placement=pattern", "placement.pattern=nothing"],
        ["model._target_=dropout_lab.models.Transformer"],
    ],
)
def test_what_is_invalid_ends_with_2_and_no_folder(arguments, tmp_path, capsys):
    assert exit_code(*QUICK, *arguments, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert "Error locating target" not in said[0]


@pytest.mark.parametrize("words", [[], ["-m"], ["-m", "hydra/launcher=joblib"]])
def test_a_folder_that_cannot_be_written_is_one_line_before_anything_starts(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    key = "hydra.sweep.dir" if words else "hydra.run.dir"
    assert exit_code(*QUICK, *words, f"{key}={tmp_path / 'file' / 'run'}") == 2
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path}/file/run: nothing can be written there: {tmp_path}/file: Not a directory\n"


@pytest.mark.slow
def test_a_killed_run_can_be_read(tmp_path):
    folder = tmp_path / "run"
    running = Command("trainer.max_epochs=1000", "logger=csv", f"hydra.run.dir={folder}")
    wait_until((folder / "activations.csv").exists, time.monotonic() + 120)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert read_status(folder)["status"] == "running"
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 0
    assert len(pd.read_csv(folder / "metrics.csv"))
    assert len(pd.read_csv(folder / "activations.csv"))
    from dropout_lab import report

    with pytest.raises(FileNotFoundError, match="no such folder"):
        report.build(tmp_path / "elsewhere")
    assert "killed" in report.build(tmp_path).text


@pytest.mark.slow
def test_the_headline_command_leaves_a_folder_for_each_job(sweep):
    folder, done = sweep
    jobs = sorted(path for path in folder.iterdir() if path.name.isdigit())
    assert len(jobs) == 12
    for job in jobs:
        assert {path.name for path in job.iterdir()} >= RUN_FILES
        assert read_status(job)["status"] == "ok"
    assert str(folder) in done.stderr


@pytest.mark.slow
def test_the_headline_command_leaves_a_wandb_run_for_each_job(sweep):
    folder, _ = sweep
    runs = [read_finished(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]
    expected = {f"{kind} seed={seed}" for kind in ("inverted", "classic", "spatial", "none") for seed in (0, 1, 2)}
    assert {run.run["name"] for run in runs} == expected
    assert len({run.run["id"] for run in runs}) == 12
    groups = {}
    for one in runs:
        groups.setdefault(one.run["group"], set()).add(one.config["seed"])
        kind = one.run["name"].split()[0]
        assert one.exit_code == 0
        assert one.config["dropout"]["p"] == 0.5
        assert f"dropout={kind}" in one.config["overrides"]
        assert one.config["git_sha"] is None or len(one.config["git_sha"]) == 40
        assert one.summary["test/acc"] > 0
        assert any(key.startswith("activation_mean_train/") for key in one.summary)
    assert list(groups.values()) == [{0, 1, 2}] * 4


def test_names_say_the_strategy_what_differs_and_the_seed_however_long_they_get(tmp_path):
    long = "data.train_size=1000 trainer.max_epochs=50 optimizer.momentum=0.8 optimizer.weight_decay=0.001 compile=true"
    job = plan(["dropout=classic", "seed=7", *long.split(), f"hydra.run.dir={tmp_path}"]).base
    with read_write(job.hydra.runtime):
        job.hydra.runtime.output_dir = str(tmp_path)
    identity.describe(job, job.hydra)
    assert job.run.name.startswith("classic data.train_size=1000 ")
    assert job.run.name.endswith(" seed=7")
    assert re.fullmatch("classic-data-train-size-.*-seed-7-[0-9a-f]{8}", job.run.id)
    assert "seed" not in job.run.group
    assert max(map(len, (job.run.name, job.run.id, job.run.group))) <= 128  # of which W&B takes no more


@pytest.mark.slow
def test_folder_and_wandb_say_the_same(sweep):
    folder, _ = sweep
    runs = [read_finished(path) for path in (folder / "wandb").glob("offline-run-*")]
    assert len(runs) == 12
    for one in runs:
        table = pd.read_csv(Path(one.config["run"]["dir"]) / "metrics.csv")
        for key in ("val/loss", "test/acc", "activation_mean_eval/11_dropout"):
            assert one.summary[key] == table[key].dropna().iloc[-1]


@pytest.mark.slow
@pytest.mark.parametrize("command", [train_command, compare], ids=["train", "compare"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--cfg job", "scaling: inverted"),
        ("dropout=classic --cfg job model=mlp -m", "scaling: classic"),
        ("model=mlp --info defaults", "model/mlp"),
        ("--help", "Compose your configuration from those groups"),
    ],
)
def test_asking_starts_nothing(command, words, expected, capsys, monkeypatch):
    monkeypatch.setattr(command, "execute", None)
    with pytest.raises(SystemExit, match="0") if words == "--help" else nullcontext():
        command.main(words.split())
    assert expected in capsys.readouterr().out


@pytest.mark.slow
def test_the_full_traceback_is_one_variable_away(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="must be the probability to DROP"):
        train_main(["dropout.p=2"])


def test_status_holds_what_was_started(folder):
    status = json.loads((folder / "status.json").read_text())
    assert status["versions"]["torch"] == torch.__version__.split("+")[0]
    assert status["seconds"] > 0
    assert len(status["config_hash"]) == 16


@pytest.mark.slow
def test_a_schedule_changes_the_rates_as_training_goes_on(tmp_path, monkeypatch):
    from dropout_lab.modules.classification import Classifier

    seen = []
    step = Classifier.training_step

    def watching(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        seen.append(self.net.dropout.p)
        return loss

    monkeypatch.setattr(Classifier, "training_step", watching)
    words = ["dropout_schedule=late", "dropout_schedule.cutoff=0.75", "dropout.p=0.4", f"hydra.run.dir={tmp_path}"]
    assert exit_code(*QUICK, "trainer.max_epochs=2", *words) == 0
    assert seen == [0.0, 0.0, 0.0, 0.4]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["fast", "cpu", "profiler"])
def test_a_preset_leaves_time_for_a_validation(preset):
    """The experiment by itself validates at every fifth epoch."""
    job = plan(["experiment=rate", f"debug={preset}"]).base
    assert job.trainer.check_val_every_n_epoch == job.trainer.max_epochs == 1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["cifar10_conv", "cifar10_resnet18"])
def test_the_overfit_preset_shows_the_same_images_without_dropout(recipe):
    """The recipes drop with a list of rates, and augment."""
    job = plan([f"recipe={recipe}", "debug=overfit"]).base
    assert (job.data.one_batch, job.loss.label_smoothing) == (True, 0)  # which neither augments nor mixes
    assert (job.dropout.p, job.placement.rate) == (0, "constant")


@pytest.mark.slow
def test_the_overfit_preset_learns_one_batch_by_heart(tmp_path):
    assert exit_code("debug=overfit", f"hydra.run.dir={tmp_path}") == 0
    losses = pd.read_csv(tmp_path / "metrics.csv")["train_eval/loss"].dropna()
    assert losses.iloc[-1] < 0.05 < losses.iloc[0]


@pytest.mark.slow
def test_the_profiler_preset_says_where_the_time_went(tmp_path):
    assert exit_code("debug=profiler", "data.train_size=64", f"hydra.run.dir={tmp_path}") == 0
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()


@pytest.mark.slow
def test_the_cpu_preset_stops_where_a_nan_appears(tmp_path, capsys):
    words = ["debug=cpu", "data.train_size=128", "optimizer.lr=1e38"]  # the second step of the epoch
    assert exit_code(*words, f"hydra.run.dir={tmp_path}") == 1
    assert "returned nan values" in capsys.readouterr().err


@pytest.mark.slow
def test_callbacks_are_added_by_name(tmp_path):
    pytest.importorskip("rich")
    names = "default,early_stopping,lr_monitor,model_summary,rich_progress"
    assert exit_code(*QUICK, f"callbacks=[{names}]", f"hydra.run.dir={tmp_path}") == 0
    assert "lr-SGD" in pd.read_csv(tmp_path / "metrics.csv")
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt")
    assert any("EarlyStopping" in name for name in checkpoint["callbacks"])
