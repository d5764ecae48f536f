"""Laws of the tables of a run: the last value logged of a step counts, both ends are kept."""

from dropout_lab.runs.read import read_runs
from dropout_lab.runs.tracks import KEPT_STEPS


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
