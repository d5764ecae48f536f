"""Laws of the tables of a run: the last value logged of a step counts, both ends are kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropout_lab.cli import UserError
from dropout_lab.runs.read import read_runs
from dropout_lab.runs.tracks import KEPT_STEPS, Tracks, mean_over_runs, read_numbers, thinned


def test_a_step_logged_again_after_a_resume_replaces_the_first(tmp_path, write_run):
    folder = write_run(tmp_path / "0", epochs=2)
    with (folder / "activations.csv").open("a") as file:
        file.write("18,1,train,08_hidden_dropout,gain,0.75\n")
    (run,) = read_runs(tmp_path)
    assert run.at_layer("train", "gain", "08_hidden_dropout") == 0.75


@pytest.mark.parametrize("lines", [1, 9, 40, 200])
def test_statistics_that_are_cut_off_are_no_final_ones(tmp_path, write_run, lines):
    file = write_run(tmp_path / "0", epochs=3) / "activations.csv"
    rows = [line for line in file.read_text().splitlines(keepends=True) if ",p," not in line]  # which no number needs
    file.write_text("".join(rows[:-lines]))
    (run,) = read_runs(tmp_path)
    assert run.counted
    assert run.tracks == {}
    assert run.note.startswith("activations.csv cannot be read: it is cut off: ")
    assert run.note.endswith(" at step 27 is missing, which metrics.csv has")
    with pytest.raises(UserError, match="it is cut off"):
        _ = run.activations


def test_of_statistics_that_were_written_last_the_other_table_need_not_know(tmp_path, write_run):
    folder = write_run(tmp_path / "0", epochs=3)
    rows = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(rows[:-3]))  # the flush of the last epoch, and what came after it
    (run,) = read_runs(tmp_path)
    assert run.tracks["eval"].steps.tolist() == [9, 18, 27]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch,stop,val/loss\n0,1,2\n", "it has no column 'step'"),
        ("epoch,step,val/loss\n0,,2\n", "a row of it has no step"),
        ("epoch,step,val/loss\n0,inf,2\n", "a row of it has no step"),
        ("epoch,step,val/loss\n0,1,2\n0,1,2,3\n", "Expected 3 fields in line 3, saw 4"),
        ("epoch,step,val/loss\n0,1,two\n", "Unable to parse string .two."),
        ("epoch,step,val/loss\n0,one,2\n", "Unable to parse string .one."),
        ("epoch,step,layer,stat,value\n0,1,a,mean,2\n", "it has no column 'key'"),
    ],
)
def test_a_damaged_table_is_no_table_of_numbers(tmp_path, text, said):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_numbers(tmp_path / "metrics.csv", ["step", "epoch", "key"])


def test_numbers_are_read_one_a_row(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,lr,val/loss\n,1,0.5,\n0,2,,0.25\n0,2,,nan\n")
    found = read_numbers(tmp_path / "metrics.csv", ["step", "epoch", "key"])
    assert found.tolist() == [0.5, 0.25]
    assert [(step, key) for step, _, key in found.index] == [(1, "lr"), (2, "val/loss")]


def test_long_runs_are_thinned_and_keep_both_ends(tmp_path, write_run):
    write_run(tmp_path / "0", epochs=3 * KEPT_STEPS)
    (run,) = read_runs(tmp_path)
    steps = run.tracks["train"].steps
    assert len(steps) == KEPT_STEPS
    assert (steps[0], steps[-1]) == (9, 9 * 3 * KEPT_STEPS)


@settings(max_examples=50)
@given(st.integers(1, 400), st.integers(2, 60))
def test_what_is_thinned_keeps_both_ends_and_no_more_than_asked(length, kept):
    places = thinned(length, kept)
    assert (places[0], places[-1]) == (0, length - 1)
    assert len(places) == min(length, kept)
    assert np.ptp(np.diff(places)) <= 1 if length > 2 else True


def test_the_mean_over_runs_is_at_each_step_over_those_that_have_it():
    nan = float("nan")
    one = Tracks(np.array([1, 2, 6]), {("mean", "a"): 0}, np.array([[1.0], [3.0], [4.0]]))
    columns = {("std", "a"): 0, ("mean", "a"): 1}
    other = Tracks(np.array([2, 4, 6]), columns, np.array([[7.0, nan], [8.0, 5.0], [9.0, 6.0]]))
    found = mean_over_runs([one, other])
    assert found.steps.tolist() == [1, 2, 4, 6]
    assert found.logged("mean", "a").tolist() == [1, 3, 5, 5]
    assert found.values[:, found.columns["std", "a"]].tolist() == pytest.approx([nan, 7, 8, 9], nan_ok=True)
    assert found.logged("gain", "a").tolist() == []
