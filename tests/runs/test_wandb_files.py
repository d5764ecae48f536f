"""W&B's offline files against metrics.csv: what a full disk or a kill cost is said, each as what it is."""

import os
import subprocess
import sys

import pytest
import wandb
import yaml
from small_disk import mounted
from wandb_files import read
from wandb_server import KEY, WandbServer

from dropout_lab.runs.loggers import Csv
from dropout_lab.runs.wandb_files import disagreements, mend, records, warn_of_losses
from dropout_lab.runs.wandb_logger import Wandb

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
    assert disagreements(folders(sweep)) == [f"{sweep / '1'}: W&B has {kept} of {ROWS} rows; was the disk full?"]


def test_the_file_of_a_run_that_the_server_refused_is_found(sweep, cut):
    """A refused run's id there has ``-offline`` behind it."""
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
    assert disagreements(folders(sweep)) == [f"{sweep / '2'}: W&B has {ROWS} of {ROWS + 1} rows; was the disk full?"]
    path.write_text(whole)


def test_an_ending_that_is_lost_is_said(sweep, cut):
    cut(len(file_of(sweep, 1).read_bytes()) - 8)
    assert disagreements(folders(sweep)) == [f"{sweep / '1'}: W&B does not know that it has ended; was the disk full?"]


def test_an_empty_or_damaged_file_is_said(sweep, cut):
    cut(0)
    assert disagreements(folders(sweep)) == [f"{sweep / '1'}: W&B has 0 of {ROWS} rows; was the disk full?"]
    file_of(sweep, 1).write_bytes(b":W&B" + bytes(3) + b"\x07\x00\x00\x00\x03\x00\x01abc")
    (line,) = disagreements(folders(sweep))
    assert "wrong checksum at byte 7" in line


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """A run that was killed after row 5 and went on from row 3: its folder, and what W&B wrote at each start."""
    folder = tmp_path_factory.mktemp("resumed") / "0"
    first = write_run(folder.parent, 0, 6)
    wandb.teardown()
    table = first / "metrics.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:4]))
    log, again = Csv(str(first)), Wandb(mode="offline", save_dir=str(folder.parent), id="classic-0")
    for row in range(3, 8):
        for one in (log, again):
            one.log_metrics({"epoch": row, **{f"activation_mean_train/{n:02}": row for n in range(100)}}, step=row)
    again.finish(0)
    wandb.teardown()
    files = sorted((folder.parent / "wandb").glob("offline-run-*/*.wandb"))
    return folder, files, [path.read_bytes() for path in files]


def without_the_last(content, count, path):
    """What a kill leaves of a file: no ending, and not its last rows."""
    path.write_bytes(content)
    total = len(read(path).history)
    length = len(content)
    while len(read(path).history) > total - count:
        length -= 500
        path.write_bytes(content[:length])
    assert len(read(path).history) == total - count


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "words"), [(4, None), (5, "7 of 8 rows; 1 were lost"), (6, "6 of 8 rows; 2 were")])
def test_rows_that_a_kill_cost_and_no_later_start_logged_again_are_told_as_that(starts, lost, words):
    """Lost rows count with the picture's: of 7 with it, 4 lost are what the second start logs again."""
    folder, (first, second), (before, after) = starts
    second.write_bytes(after)
    without_the_last(before, lost, first)
    lines = disagreements([folder])
    if words is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"{folder}: W&B has {words}")
        assert line.endswith("were lost when the run was killed")


def test_rows_logged_again_do_not_hide_that_others_are_lost(starts):
    """Rows of both files together are as many as those of the table, or more."""
    folder, (first, second), (before, after) = starts
    first.write_bytes(before)
    without_the_last(after, 2, second)
    assert disagreements([folder]) == [f"{folder}: W&B has 6 of 8 rows; was the disk full?"]


def test_a_kill_and_a_full_disk_are_both_said(starts):
    folder, (first, second), (before, after) = starts
    without_the_last(before, 5, first)
    without_the_last(after, 2, second)
    says = "W&B has 5 of 8 rows; 1 were lost when the run was killed; was the disk full?"
    assert disagreements([folder]) == [f"{folder}: {says}"]


def test_a_start_that_was_online_counts(starts):
    """Files of a start online lie beside the others, under a name without "offline"."""
    folder, (first, second), (before, after) = starts
    first.write_bytes(before)
    second.write_bytes(after)
    online = first.parent.rename(first.parent.with_name(first.parent.name.removeprefix("offline-")))
    lines = disagreements([folder])
    online.rename(first.parent)
    assert lines == []


@pytest.mark.parametrize("kept", [0, 7, 20])
def test_a_file_in_which_nothing_is_whole_is_removed(starts, kept):
    folder, (first, second), (before, after) = starts
    first.write_bytes(before[:kept])
    second.write_bytes(after)
    mend(str(folder.parent), "classic-0")
    assert not first.exists()
    assert second.read_bytes() == after


def test_what_is_whole_is_left_as_it_is(starts):
    folder, (first, second), (before, _) = starts
    first.write_bytes(before)
    second.write_bytes(b":W&B" + bytes(3) + b"\x07\x00\x00\x00\x03\x00\x01abc")  # a checksum is wrong
    damaged = second.read_bytes()
    mend(str(folder.parent), "classic-0")
    assert (first.read_bytes(), second.read_bytes()) == (before, damaged)


def test_a_run_that_is_resumed_mends_what_the_kill_left(tmp_path, starts):
    _, _, (before, _) = starts
    for name in ("classic-0", "classic-00", "classic-1"):
        path = tmp_path / "wandb" / f"offline-run-20200101_000000-{name}" / f"run-{name}.wandb"
        path.parent.mkdir(parents=True)
        path.write_bytes(before[:-3])
    again = Wandb(mode="offline", save_dir=str(tmp_path), id="classic-0")
    again.log_metrics({"epoch": 0}, step=0)
    again.finish(0)
    wandb.teardown()
    mended, *others = (path.stat().st_size for path in sorted(tmp_path.glob("wandb/offline-run-2020*/*.wandb")))
    assert mended < len(before) - 3
    assert others == [len(before) - 3] * 2


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, -700])
def test_a_run_that_was_killed_and_resumed_is_uploaded_to_its_end(starts, kept):
    """W&B's own command gives up at a record that is not whole, and with it what later starts of the run logged."""
    folder, (first, second), (before, after) = starts
    first.write_bytes(before[:kept])
    second.write_bytes(after)
    mend(str(folder.parent), "classic-0")
    for left in folder.parent.glob("wandb/*/*.sync*"):  # what was uploaded already
        left.unlink()
    with WandbServer() as server:
        environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}
        command = [sys.executable, "-m", "wandb", "sync", str(first.parent), str(second.parent)]
        subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=120, check=True)
    (run,) = server.runs.values()
    assert [row["epoch"] for row in run.history if "epoch" in row][-5:] == [3, 4, 5, 6, 7]
    assert run.exit_code == 0


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
    assert "warning: W&B's offline files lack what metrics.csv has:" in said
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


def test_a_full_disk_is_noticed(tmp_path):
    """W&B says nothing and looks finished; the CSV file is on another disk here, so that it is whole."""
    with mounted(tmp_path / "small", "size=200k") as disk:
        folder = write_run(tmp_path, 0, ROWS, wandb_root=disk)
        wandb.teardown()
        (line,) = disagreements([folder])
    assert line.startswith(f"{folder}: W&B has ")
    assert line.endswith(f" of {ROWS} rows; was the disk full?")
