"""Laws of the search for runs: all that lie below a folder, each once, and what lies there instead."""

from dropout_lab.runs.read import read_runs


def test_a_link_to_a_folder_above_ends(tmp_path, write_run):
    write_run(tmp_path / "sweep" / "0")
    (tmp_path / "sweep" / "again").symlink_to(tmp_path)
    assert [run.name for run in read_runs(tmp_path) if run.counted] == ["sweep/0"]
