"""Laws of the tables of a run: the last value logged of a step counts, both ends are kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropout_lab.runs.read import read_runs
from dropout_lab.runs.tracks import KEPT_STEPS, Tracks, mean_over_runs, thinned


def test_a_step_logged_again_after_a_resume_replaces_the_first(tmp_path, write_run):
    folder = write_run(tmp_path / "0", epochs=2)
    with (folder / "activations.csv").open("a") as file:
        file.write("18,1,train,08_hidden_dropout,gain,0.75\n")
    (run,) = read_runs(tmp_path)
    assert run.at_layer("train", "gain", "08_hidden_dropout") == 0.75


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
