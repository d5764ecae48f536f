"""Laws of the loggers: a CSV file that survives a kill, and W&B that never prompts, blocks or stops a run."""

import importlib
import math
import sys
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dropout_lab.cli import UserError
from dropout_lab.runs import loggers
from dropout_lab.runs.loggers import Csv, TensorBoard, require_places

CONFIG = {"dropout": {"p": 0.5, "mask": "element"}, "widths": [32, 64], "layers": {"00_conv": "a.conv"}, "arm": None}


def lines(folder):
    return (folder / "metrics.csv").read_text().splitlines()


def test_metrics_in_csv_alone_never_import_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr("dropout_lab.runs.loggers", loggers)  # which is what it is afterwards, too
    monkeypatch.delitem(sys.modules, "dropout_lab.runs.loggers")
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import raises
    importlib.import_module("dropout_lab.runs.loggers").Csv(tmp_path).log_metrics({"val/loss": 0.5}, step=1)
    assert lines(tmp_path) == ["epoch,step,val/loss", ",1,0.5"]


def test_a_row_is_in_the_file_when_the_call_returns(tmp_path):
    csv = Csv(tmp_path)
    csv.log_metrics({"epoch": 0, "val/loss": 0.5}, step=7)
    assert lines(tmp_path) == ["epoch,step,val/loss", "0,7,0.5"]
    csv.log_metrics({"epoch": 1, "val/loss": 0.25}, step=14)
    assert (tmp_path / "metrics.csv").read_bytes() == b"epoch,step,val/loss\n0,7,0.5\n1,14,0.25\n"


def test_a_new_key_adds_a_column_and_keeps_every_row(tmp_path):
    csv = Csv(tmp_path)
    csv.log_metrics({"epoch": 0, "train/loss": 2.0}, step=1)
    csv.log_metrics({"epoch": 0, "val/loss": 3.0, "val/acc": 0.5}, step=2)
    csv.log_metrics({"epoch": 0, "train/loss": 4.0}, step=3)
    assert lines(tmp_path) == ["epoch,step,train/loss,val/loss,val/acc", "0,1,2.0,,", "0,2,,3.0,0.5", "0,3,4.0,,"]


def test_a_new_column_is_written_beside_the_file_and_then_put_in_its_place(tmp_path, monkeypatch):
    csv, replaced, replace = Csv(tmp_path), [], Path.replace

    def looks(new, old):
        replaced.append((old.exists() and old.read_text(), new.read_text()))
        return replace(new, old)

    monkeypatch.setattr(Path, "replace", looks)
    csv.log_metrics({"a": 1.0}, step=1)
    csv.log_metrics({"b": 2.0}, step=2)
    assert replaced == [(False, "epoch,step,a\n"), ("epoch,step,a\n,1,1.0\n", "epoch,step,a,b\n,1,1.0,\n")]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_an_existing_file_is_continued(tmp_path):
    Csv(tmp_path).log_metrics({"epoch": 0, "b": 1.0, "a": 2.0}, step=1)
    again = Csv(tmp_path)
    again.log_metrics({"epoch": 1, "a": 3.0}, step=2)
    again.log_metrics({"epoch": 1, "c": 4.0}, step=2)
    assert lines(tmp_path) == ["epoch,step,b,a,c", "0,1,1.0,2.0,", "1,2,,3.0,", "1,2,,,4.0"]


@pytest.mark.parametrize("columns", ["same", "new"])
def test_a_line_that_a_kill_left_unfinished_does_not_spoil_the_next(tmp_path, columns):
    Csv(tmp_path).log_metrics({"epoch": 0, "a": 1.0, "b": 2.0}, step=1)
    whole = (tmp_path / "metrics.csv").read_bytes()
    for torn in (b"", b"0,2", b"0,2,3.0,4", b"0,2,3.0,4.0,5,6", b"0," + b"1" * 20_000):
        (tmp_path / "metrics.csv").write_bytes(whole + torn)
        Csv(tmp_path).log_metrics({"epoch": 1, "a" if columns == "same" else "c": 5.0}, step=3)
        table = pd.read_csv(tmp_path / "metrics.csv")
        assert table.step.tolist() == [1, 3]
        assert table.b[0] == 2
        assert table.iloc[1]["a" if columns == "same" else "c"] == 5


def test_a_file_torn_before_its_header_is_begun_anew(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,st")
    Csv(tmp_path).log_metrics({"epoch": 0, "a": 1.0}, step=1)
    assert lines(tmp_path) == ["epoch,step,a", "0,1,1.0"]


def test_nan_and_infinity_come_back(tmp_path):
    Csv(tmp_path).log_metrics({"epoch": 0, "a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1 + 0.2}, step=1)
    assert lines(tmp_path)[1] == "0,1,nan,inf,-inf,0.30000000000000004"
    row = pd.read_csv(tmp_path / "metrics.csv").iloc[0]
    assert math.isnan(row.a)
    assert (row.b, row.c, row.d) == (math.inf, -math.inf, pytest.approx(0.3))


def test_metrics_without_epoch_or_step_leave_them_empty(tmp_path):
    Csv(tmp_path).log_metrics({"a": 1.0})
    assert lines(tmp_path) == ["epoch,step,a", ",,1.0"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    csv = Csv(tmp_path / "there")
    csv.log_metrics({"a": 1.0}, step=1)
    csv.log_hyperparams({"a": 1})
    assert not (tmp_path / "there").exists()


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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"flush_sec": 3}, "logger.tensorboard.flush_sec: SummaryWriter takes no such key; did you mean 'flush_secs'"),
        ({"log_dir": "a"}, "logger.tensorboard.log_dir: SummaryWriter takes no such key"),
        ({"max_queue": "many"}, "'many'"),
        ({"flush_secs": "long"}, "'long'"),
        ({"sub_dir": [4], "version": ""}, "list"),
    ],
)
def test_a_setting_that_tensorboard_refuses_is_refused_before_it_begins(tmp_path, settings, says):
    """Lightning would say in the job that what is logged can't be."""
    with pytest.raises((ValueError, TypeError), match=says):
        TensorBoard(str(tmp_path), **settings)
    assert not list(tmp_path.iterdir())


def test_a_number_as_a_name_is_its_text(tmp_path):
    assert TensorBoard(str(tmp_path), name=5, version=3).log_dir == str(tmp_path / "5" / "version_3")


def test_files_of_loggers_that_can_not_be_written_are_refused_by_their_key(tmp_path):
    (tmp_path / "file").write_text("")
    wrong = str(tmp_path / "file" / "logs")
    for name, key in (("csv", "dir"), ("wandb", "save_dir")):
        section = {name: {"_target_": "a.b", key: wrong}}
        with pytest.raises(UserError, match=f"^logger.{name}.{key}={wrong}: nothing can be written there"):
            require_places(section, section)
        require_places(section, {name: {key: "${run.dir}/logs"}})  # where it lies is not known yet
    require_places({"csv": {"dir": str(tmp_path / "new")}, "own": {}}, {"csv": {"dir": "new"}, "own": {}})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
