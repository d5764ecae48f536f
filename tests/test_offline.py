"""W&B's offline files against metrics.csv: what is lost on a full disk is said, and nothing else is."""

import os
import subprocess
import sys

import pytest
import wandb
import yaml
from wandb_files import read

from dropout_lab.loggers import Csv, Wandb
from dropout_lab.offline import disagreements, records, warn_of_losses

ROWS = 40


def write_run(root, number, rows, wandb_root=None):
    """A run that logged the same to both, rows of 5 kB."""
    folder = root / str(number)
    about = {"id": f"classic-{number}", "save_dir": str(wandb_root or root)}
    logs = [Csv(str(folder)), Wandb(mode="offline", **about)]
    for row in range(rows):
        for log in logs:
            log.log_metrics(
                {"epoch": row, **{f"activation_mean_train/{n:02}": row + n / 7 for n in range(100)}}, step=row
            )
    logs[1].experiment.log({"activation_pictures/profile": 1, "trainer/global_step": rows})  # is in no CSV file
    logs[1].finish(0)
    loggers = {"csv": {"_target_": "lab.Csv"}, "wandb": {"_target_": "lab.Wandb", "save_dir": about["save_dir"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"run": {"id": about["id"]}, "logger": loggers}))
    (folder / "status.json").write_text('{"status": "ok"}')
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    for number in range(3):
        write_run(root, number, ROWS)
    wandb.teardown()
    return root


def file_of(root, number):
    (path,) = (root / "wandb").glob(f"offline-run-*-classic-{number}/run-*.wandb")
    return path


@pytest.fixture
def cut(sweep):
    """Cut the file of run 1 to a part of its length; it is whole again afterwards."""
    path = file_of(sweep, 1)
    whole = path.read_bytes()
    yield lambda length: path.write_bytes(whole[:length])
    path.write_bytes(whole)


def folders(sweep):
    return [sweep / str(number) for number in range(3)]


def test_where_all_is_there_nothing_is_said(sweep):
    assert disagreements(folders(sweep)) == []


def test_rows_that_are_lost_are_counted(sweep, cut):
    cut(len(file_of(sweep, 1).read_bytes()) // 2)
    kept = sum("epoch" in row for row in read(file_of(sweep, 1)).history)
    assert 0 < kept < ROWS
    assert disagreements(folders(sweep)) == [f"{sweep / '1'}: W&B has {kept} of {ROWS} rows"]


def test_the_file_of_a_run_that_the_server_refused_is_found(sweep, cut):
    """Its id there has ``-offline`` behind it."""
    cut(9000)
    path = file_of(sweep, 1)
    refused = path.rename(path.with_name("run-classic-1-offline.wandb"))
    (line,) = disagreements(folders(sweep))
    refused.rename(path)
    assert line.startswith(f"{sweep / '1'}: W&B has ")


def test_pictures_are_not_taken_for_rows(sweep):
    path = sweep / "2" / "metrics.csv"
    whole = path.read_text()
    path.write_text(f"{whole}{ROWS},{ROWS}\n")
    assert disagreements(folders(sweep)) == [f"{sweep / '2'}: W&B has {ROWS} of {ROWS + 1} rows"]
    path.write_text(whole)


def test_an_ending_that_is_lost_is_said(sweep, cut):
    cut(len(file_of(sweep, 1).read_bytes()) - 8)
    assert disagreements(folders(sweep)) == [f"{sweep / '1'}: W&B does not know that it has ended"]


def test_an_empty_or_damaged_file_is_said(sweep, cut):
    cut(0)
    assert disagreements(folders(sweep)) == [f"{sweep / '1'}: W&B has 0 of {ROWS} rows"]
    file_of(sweep, 1).write_bytes(b":W&B" + bytes(3) + b"\x07\x00\x00\x00\x03\x00\x01abc")
    (line,) = disagreements(folders(sweep))
    assert "wrong checksum at byte 7" in line


def test_both_files_of_a_resumed_run_count(tmp_path):
    folder = write_run(tmp_path, 0, 3)
    log, again = Csv(str(folder)), Wandb(mode="offline", save_dir=str(tmp_path), id="classic-0")
    for one in (log, again):
        one.log_metrics({"epoch": 3, "a": 1.0}, step=3)
    again.finish(0)
    wandb.teardown()
    assert disagreements([folder]) == []
    first, _ = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    first.write_bytes(b"")
    assert disagreements([folder]) == [f"{folder}: W&B has 1 of 4 rows"]


def test_runs_without_offline_files_are_not_looked_at(tmp_path):
    for number, config in enumerate(
        ("", "logger: {}", "logger: {wandb: {_target_: a.Wandb, save_dir: x}}\nrun: {id: y}")
    ):
        Csv(str(tmp_path / str(number))).log_metrics({"epoch": 0}, step=0)
        (tmp_path / str(number) / "config.yaml").write_text(config)
    assert disagreements([tmp_path / str(number) for number in range(4)]) == []


def test_another_file_is_refused(tmp_path):
    (tmp_path / "run-a.wandb").write_text("hello")
    with pytest.raises(ValueError, match=r"not a \.wandb file"):
        list(records(tmp_path / "run-a.wandb"))


def test_the_end_of_a_sweep_says_which_runs_disagree(sweep, cut, capsys):
    cut(9000)
    warn_of_losses(sweep)
    said = capsys.readouterr().err
    assert "W&B's files lack what metrics.csv has; was the disk full?" in said
    assert f"{sweep / '1'}: W&B has" in said
    assert f"{sweep / '0'}:" not in said


def test_runs_that_did_not_end_well_are_not_called_incomplete(sweep, cut, capsys):
    cut(9000)
    status = sweep / "1" / "status.json"
    whole = status.read_text()
    status.write_text('{"status": "interrupted"}')
    warn_of_losses(sweep)
    status.write_text(whole)
    assert capsys.readouterr().err == ""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB, where we may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_noticed(tmp_path, small_disk):
    """W&B says nothing and looks finished; the CSV file is on another disk here, so that it is whole."""
    folder = write_run(tmp_path, 0, ROWS, wandb_root=small_disk)
    wandb.teardown()
    (line,) = disagreements([folder])
    assert line.startswith(f"{folder}: W&B has ")
    assert line.endswith(f" of {ROWS} rows")
