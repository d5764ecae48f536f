"""What Ctrl-C leaves of a sweep."""

import shlex
from types import SimpleNamespace

import pytest

from dropout_lab.jobs.plan import plan
from dropout_lab.train.interrupts import telling_what_was_done


def planned(folder, *rules, multirun=True, cluster=None):
    """A plan of jobs with these values of ``resume``."""
    base = SimpleNamespace(hydra=SimpleNamespace(launcher={"cluster": cluster}))
    jobs = [SimpleNamespace(alike={"resume": rule}) for rule in rules]
    return SimpleNamespace(folder=folder, jobs=jobs, multirun=multirun, base=base)


def interrupt(job_plan, *names):
    with telling_what_was_done(job_plan):
        for name in names:
            path = job_plan.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("" if name.endswith(".log") else "x")
        raise KeyboardInterrupt


def told(folder, *names, job_plan=None):
    """What is said after Ctrl-C when these files had been written; of a search if no other plan is given."""
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupt(job_plan or planned(folder), *names)
    return str(caught.value)


@pytest.mark.parametrize(
    ("rules", "options", "way"),
    [
        (["auto", "auto"], {}, "; to go on: the same command with hydra.sweep.dir="),
        (["auto"], {"multirun": False}, "; to go on: the same command with hydra.run.dir="),
        (["runs/x"], {"multirun": False}, "; the same command goes on"),
        (["auto"], {"cluster": "local"}, "; to go on: the same command with hydra.sweep.dir="),
        (["auto"], {"cluster": "slurm"}, ""),  # its jobs go on by themselves
        (["auto", "never"], {}, ""),
        ([], {}, ""),  # a search, which is not gone on with
    ],
)
def test_how_to_go_on_is_told_where_the_same_words_do(rules, options, way, tmp_path):
    line = told(tmp_path, "0/status.json", job_plan=planned(tmp_path, *rules, **options))
    assert line.startswith(f"interrupted; what was done is in {tmp_path}{way}")
    assert bool(way) == (";" in line.partition(str(tmp_path))[2])


def test_the_words_to_go_on_with_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    folder = tmp_path / 'it\'s a "sweep"'
    line = told(folder, "0/status.json", job_plan=planned(folder, "auto"))
    (word,) = shlex.split(line.partition("the same command with ")[2])
    assert plan(["-m", "seed=0,1", word]).folder == folder


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
