"""What Ctrl-C leaves of a sweep."""

import pytest

from dropout_lab.train.interrupts import telling_what_was_done


def interrupt(folder, *names):
    with telling_what_was_done(folder):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("" if name.endswith(".log") else "x")
        raise KeyboardInterrupt


def told(folder, *names):
    """What is said after Ctrl-C when these files had been written."""
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupt(folder, *names)
    return str(caught.value)


@pytest.mark.parametrize("file", ["0/status.json", "config.yaml", "code/src/a.py", ".submitit/1/1_submitted.pkl"])
def test_what_was_done_is_told_with_its_folder(file, tmp_path):
    folder = tmp_path / "day" / "sweep"
    assert told(folder, "multirun.yaml", file) == f"interrupted; what was done is in {folder}"
    assert (folder / file).exists()


def test_what_hydra_writes_before_a_job_begins_is_taken_away_with_the_folders_made_for_it(tmp_path):
    assert told(tmp_path / "day" / "sweep", "multirun.yaml", "0/.hydra/config.yaml", "0/train.log") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_before_stays(tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "other").mkdir()
    assert told(tmp_path / "day" / "sweep", "multirun.yaml") == ""
    assert [path.name for path in (tmp_path / "day").iterdir()] == ["other"]
    assert told(tmp_path / "day", "multirun.yaml").endswith("/day")
    assert (tmp_path / "day" / "multirun.yaml").exists()
