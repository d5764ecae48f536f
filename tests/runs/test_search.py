"""Laws of the search for runs: all that lie below a folder, each once, and what lies there instead."""

import pytest

from dropout_lab.runs.read import read_runs
from dropout_lab.runs.search import gaps, search


def test_a_link_to_a_folder_above_ends(tmp_path, write_run):
    write_run(tmp_path / "sweep" / "0")
    (tmp_path / "sweep" / "again").symlink_to(tmp_path)
    assert [run.name for run in read_runs(tmp_path) if run.counted] == ["sweep/0"]


@pytest.mark.parametrize("file", ["status.json", "config.yaml", "metrics.csv"])
def test_a_folder_with_any_file_of_a_run_is_one(tmp_path, file):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / file).touch()
    assert search(tmp_path) == ([tmp_path / "a" / "b"], [])


def test_what_lies_inside_a_run_is_not_looked_at(tmp_path):
    for folder in (tmp_path, tmp_path / "inside"):
        folder.mkdir(exist_ok=True)
        (folder / "status.json").touch()
    assert search(tmp_path) == ([tmp_path], [])


def test_folders_without_runs_are_told_with_the_reason_but_those_that_belong_to_runs(tmp_path, write_look):
    (tmp_path / "empty").mkdir()
    (tmp_path / "papers" / "deep").mkdir(parents=True)
    (tmp_path / "papers" / "deep" / "one.pdf").touch()
    (tmp_path / "wandb").mkdir()
    (tmp_path / ".hydra").mkdir()
    write_look(tmp_path / "looked")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "status.json").touch()
    runs, foreign = search(tmp_path)
    assert runs == [tmp_path / "0"]
    reasons = {folder.name: reason for folder, reason in foreign}
    assert set(reasons) == {"empty", "papers"}  # the topmost folder that holds none
    assert reasons["empty"] == "an empty folder"
    assert reasons["papers"].startswith("not a run: has none of status.json, config.yaml, metrics.csv")


def test_the_numbers_that_a_sweep_leaves_out_are_its_gaps(tmp_path):
    found = [tmp_path / "a" / "0", tmp_path / "a" / "3", tmp_path / "b" / "0", tmp_path / "b" / "named"]
    assert gaps(found, tmp_path) == [tmp_path / "a" / "1", tmp_path / "a" / "2"]
    assert gaps([tmp_path / "3"], tmp_path / "3") == []  # asked for alone
