import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pandas as pd
import pytest

from dropout_lab.cli import UserError
from dropout_lab.runs import read
from dropout_lab.runs.digests import digests
from dropout_lab.runs.read import read_runs


def test_a_run_is_read_as_it_was_written(tmp_path, write_run):
    write_run(tmp_path / "0", kind="classic", seed=3, final={"test/acc": 0.91, "gap/loss": 0.125})
    (run,) = read_runs(tmp_path)
    assert (run.name, run.status, run.seed, run.counted) == ("0", "ok", 3, True)
    assert (run.final("test/acc"), run.final("gap/loss")) == (0.91, 0.125)
    assert run.dropout_layers == ["01_conv1_dropout", "04_conv2_dropout", "08_hidden_dropout"]
    assert run.at_layer("train", "gain", "08_hidden_dropout") == 0.5
    assert run.at_layer("probe", "ratio", "08_hidden_dropout") == pytest.approx(1 + 1 / 1.9)


def test_a_folder_that_is_itself_a_run_is_read(tmp_path, write_run):
    assert [run.name for run in read_runs(write_run(tmp_path / "alone"))] == ["alone"]


def test_every_folder_that_does_not_count_says_why(tmp_path, write_run):
    write_run(tmp_path / "0")
    write_run(tmp_path / "2", status={"status": "failed", "error": "RuntimeError: out of luck\nmore"})
    write_run(tmp_path / "3", status={"status": "interrupted", "error": None})
    write_run(tmp_path / "4", status={"status": "running"})
    (write_run(tmp_path / "5") / "status.json").unlink()
    (write_run(tmp_path / "6") / "status.json").write_text('{"status": "o')
    (write_run(tmp_path / "7") / "status.json").write_text("[1, 2]")
    (write_run(tmp_path / "8") / "config.yaml").write_text("seed: [1\nx: {")
    (write_run(tmp_path / "9") / "config.yaml").unlink()
    (write_run(tmp_path / "10") / "metrics.csv").unlink()
    (write_run(tmp_path / "11") / "metrics.csv").write_text("")
    (write_run(tmp_path / "12") / "metrics.csv").write_bytes(b"\xff\xfe\x00epoch")
    (write_run(tmp_path / "13") / "metrics.csv").write_text("a,b\n1,2\n")
    write_run(tmp_path / "14", status={"status": "sleeping"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "figures" / "old").mkdir(parents=True)
    (tmp_path / "figures" / "old" / "plot.png").write_bytes(b"x")
    (tmp_path / "wandb").mkdir()
    (tmp_path / ".hydra").mkdir()
    reasons = {run.name: f"{run.status}: {run.reason}" for run in read_runs(tmp_path) if not run.counted}
    starts = {
        "1": "missing: there is no such folder",
        "2": "failed: failed: RuntimeError: out of luck",
        "3": "interrupted: interrupted",
        "4": "running: still running, or killed",
        "5": "unreadable: half-written: status.json is missing",
        "6": "unreadable: status.json cannot be read: Unterminated string",
        "7": "unreadable: status.json cannot be read: it holds list",
        "8": "unreadable: config.yaml cannot be read",
        "9": "unreadable: half-written: config.yaml is missing",
        "10": "unreadable: half-written: metrics.csv is missing",
        "11": "unreadable: metrics.csv cannot be read",
        "12": "unreadable: metrics.csv cannot be read",
        "13": "unreadable: metrics.csv cannot be read: it has no column 'step'",
        "14": "sleeping: status.json says 'sleeping'",
        "empty": "foreign: an empty folder",
        "figures": "foreign: not a run: has none of status.json",
    }
    assert {name for name in reasons if not reasons[name].startswith(starts.get(name, "?"))} == set()
    assert set(reasons) == set(starts)


def test_runs_come_in_the_order_of_their_numbers(tmp_path, write_run):
    for name in ("10", "9", "2"):
        write_run(tmp_path / "sweep" / name)
    counted = [run.name for run in read_runs(tmp_path) if run.counted]
    assert counted == ["sweep/2", "sweep/9", "sweep/10"]


def test_a_line_cut_off_by_a_kill_costs_only_itself(tmp_path, write_run):
    folder = write_run(tmp_path / "0")
    for name in ("metrics.csv", "activations.csv"):
        path = folder / name
        path.write_text(path.read_text() + "99,9")
    (run,) = read_runs(tmp_path)
    assert run.counted
    assert run.note is None
    assert run.at_layer("eval", "gain", "01_conv1_dropout") == 1


def test_what_is_missing_in_a_run_that_counts_is_noted(tmp_path, write_run):
    (write_run(tmp_path / "0") / "activations.csv").unlink()
    write_run(tmp_path / "1", final={"test/loss": float("nan")})
    write_run(tmp_path / "2", final={"test/loss": float("inf")})
    notes = [run.note for run in read_runs(tmp_path) if run.counted]
    assert notes[0] == "half-written: activations.csv is missing"
    assert notes[1:] == ["metrics.csv has no finite test/loss"] * 2


def test_what_changed_since_a_run_ended_is_noted_and_counts(tmp_path, write_run):
    folder = write_run(tmp_path / "0")
    sums = digests(folder, [folder / name for name in ("config.yaml", "metrics.csv", "activations.csv")])
    about = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(about | {"sha256": sums}))
    assert read.open(folder).note is None
    for name in ("config.yaml", "metrics.csv"):
        with (folder / name).open("a") as file:
            file.write("\n")
    (run,) = read_runs(tmp_path)
    assert run.counted
    assert run.note == "config.yaml and metrics.csv changed since the run ended"


def test_statistics_that_nobody_asked_for_are_not_missing(tmp_path, write_run):
    (write_run(tmp_path / "0", config={"callbacks": {"checkpoint": {}}}) / "activations.csv").unlink()
    (run,) = read_runs(tmp_path)
    assert run.counted
    assert run.note is None


def test_no_folder_and_no_runs_are_errors_of_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for folder, says in ((tmp_path / "absent", "no such folder"), (tmp_path, "no runs in")):
        with pytest.raises(FileNotFoundError, match=says) as error:
            read_runs(folder)
        assert "\n" not in str(error.value)


def test_json_that_python_writes_but_nobody_else_reads_is_read(tmp_path, write_run):
    folder = write_run(tmp_path / "0")
    about = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(about | {"seconds": float("nan")}))
    assert read_runs(tmp_path)[0].counted


def test_one_run_of_a_sweep_can_be_read_alone(tmp_path, write_run):
    (run,) = read_runs(write_run(tmp_path / "3"))
    assert (run.name, run.status) == ("3", "ok")


def test_a_run_is_opened_by_its_folder(tmp_path, write_run):
    folder = write_run(tmp_path / "sweep" / "3", kind="classic", seed=3, final={"test/acc": 0.91})
    run = read.open(str(folder))
    assert (run.folder, run.name, run.status, run.reason, run.note) == (folder, "3", "ok", None, None)
    assert type(run.config) is dict
    assert run.config["dropout"]["scaling"] == "classic"
    assert run.metrics.index.name == "step"
    assert run.metrics["test/acc"].iloc[-1] == 0.91
    assert run.tracks["train"].steps.tolist() == [9 * (epoch + 1) for epoch in range(10)]


def test_the_activations_of_a_run_are_a_long_table_of_everything_that_was_logged(tmp_path, write_run):
    folder = write_run(tmp_path / "0", epochs=100)
    table = read.open(folder).activations
    assert list(table) == ["step", "epoch", "mode", "layer", "stat", "value"]
    pd.testing.assert_frame_equal(table, pd.read_csv(folder / "activations.csv"))
    row = table.query("step == 18 and mode == 'train' and layer == '08_hidden_dropout' and stat == 'p'")
    assert row[["epoch", "value"]].to_numpy().tolist() == [[1, 0.5]]


def test_activations_are_read_once_and_when_asked_for(tmp_path, write_run):
    folder = write_run(tmp_path / "0", epochs=1)
    run = read.open(folder)
    with (folder / "activations.csv").open("a") as file:
        file.write("9,0,train,08_hidden_dropout,gain,0.75\n")
    assert run.activations.iloc[-1]["value"] == 0.75
    assert not run.activations.duplicated(["step", "mode", "layer", "stat"]).any()
    (folder / "activations.csv").unlink()
    assert run.activations is run.activations


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_a_run_that_has_not_ended_well_is_opened_all_the_same(tmp_path, write_run, status):
    run = read.open(write_run(tmp_path / "0", status={"status": status, "error": None}))
    assert (run.status, run.counted) == (status, False)
    assert run.final("val/acc") > 0.5
    assert run.at_layer("train", "gain", "08_hidden_dropout") == 1
    assert len(run.activations)


def test_a_run_that_has_just_begun_is_opened(tmp_path, write_run):
    folder = write_run(tmp_path / "0", status={"status": "running"})
    for name in ("metrics.csv", "activations.csv"):
        (folder / name).unlink()
    run = read.open(folder)
    assert (run.status, run.note) == ("running", "half-written: metrics.csv is missing")
    assert run.metrics.empty
    with pytest.raises(UserError, match=r"0: half-written: activations\.csv is missing"):
        _ = run.activations


def test_a_run_is_opened_whose_status_cannot_be_read(tmp_path, write_run):
    folder = write_run(tmp_path / "0")
    (folder / "status.json").unlink()
    run = read.open(folder)
    assert (run.status, run.reason) == ("unreadable", "half-written: status.json is missing")
    assert run.final("val/acc") > 0.5


def test_what_is_no_run_folder_is_refused_in_one_line(tmp_path, write_run):
    for number in (10, 9):
        write_run(tmp_path / "sweep" / str(number))
    (write_run(tmp_path / "broken") / "config.yaml").write_text("seed: [1\nx: {")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, says in {
        "sweep": r"sweep: not a run but 2: read_runs reads all, open reads one, e\.g\. .*/sweep/9",
        "empty": r"empty: is not a run folder: it has no config\.yaml; give the folder of one run, e\.g\. runs/",
        "file": "file: does not exist; give the folder of one run",
        "absent": "absent: does not exist; give the folder of one run",
        "broken": r"broken/config\.yaml cannot be read: ",
    }.items():
        with pytest.raises(UserError, match=says) as error:
            read.open(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_run_ended_when_its_status_was_last_written(tmp_path, write_run):
    folder = write_run(tmp_path / "0")
    os.utime(folder / "status.json", (1e9, 1e9))
    assert read.open(folder).ended == datetime.fromtimestamp(1e9, UTC)


def test_runs_are_read_without_torch(tmp_path, write_run):
    write_run(tmp_path / "0", final={"test/acc": 0.875})
    script = "import sys; from dropout_lab.runs.read import read_runs; (run,) = read_runs(sys.argv[1])\n"
    script += "print(run.final('test/acc'), len(run.activations) > 0, 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script, tmp_path], text=True) == "0.875 True False\n"


def test_a_run_whose_folders_name_is_no_text_is_in_the_table_by_what_of_it_is(tmp_path, write_run):
    write_run(tmp_path / "0").rename(tmp_path / "caf\udce9")
    (run,) = read_runs(tmp_path)
    assert (run.name, run.counted, run.reason) == ("caf\ufffd", False, "its name is not UTF-8; rename it")
