"""A run folder that somebody sent: no command runs what its configuration names, or asks this machine for anything."""

import shutil

import pytest
import yaml

from dropout_lab.cli import UserError
from dropout_lab.diff.__main__ import diff
from dropout_lab.diff.replay import replay
from dropout_lab.evaluate import evaluate
from dropout_lab.fold import fold
from dropout_lab.jobs.plan import plan
from dropout_lab.look.subject import from_run
from dropout_lab.runs import read
from dropout_lab.runs.folder import read_config
from dropout_lab.runs.resume import with_those_of_resumed
from dropout_lab.train.sweep import refusals
from dropout_lab.verdict.trained_network import load


@pytest.fixture
def received(trained_run, tmp_path):
    """A function that puts things into the configuration of a run and makes a folder of it."""

    def folder(**changes):
        shutil.copytree(trained_run, tmp_path / "run")
        config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        for key, value in changes.items():
            section, _, name = key.partition("__")
            (config.setdefault(section, {}) if name else config)[name or section] = value
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
        return tmp_path / "run"

    return folder


def runs(folder):
    """A node that would leave a file in a folder."""
    return {"_target_": "os.mkdir", "path": str(folder / "ran")}


WAYS = (
    evaluate,
    lambda run: fold(run, run / "weights.pt"),
    lambda run: from_run(run, "best", ""),
    load,  # of verdict
    lambda run: read.open(run).network(),
    lambda run: replay(read_config(run), 1),  # of diff
)


@pytest.mark.parametrize("key", ["data__seed", "module__loss", "logger__mine", "unknown"])
def test_nothing_that_a_folder_names_is_run(key, received, tmp_path):
    folder = received(**{key: [{"deeper": runs(tmp_path)}]})
    for way in WAYS:
        with pytest.raises(UserError, match=r"_target_=os.mkdir: it is not on the list"):
            way(folder)
    assert not (tmp_path / "ran").exists()


def test_nor_where_training_starts_from_it(received, tmp_path):
    folder = received(data__seed=runs(tmp_path))
    (told,) = refusals(plan([f"start_from={folder}", "model=mlp", f"hydra.run.dir={tmp_path / 'new'}"])).values()
    assert "it is not on the list" in told
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("word", ["model._target_=os.mkdir", "hydra.searchpath=[file:///tmp]", "debug=../../../tmp/x"])
def test_nor_where_it_is_gone_on_with(word, received):
    with pytest.raises(UserError, match=r"config\.yaml: "):
        with_those_of_resumed([f"resume={received(run__overrides=['seed=1', word])}"])


def test_nothing_of_this_machine_is_told(received, trained_run, monkeypatch):
    monkeypatch.setenv("SECRET", "told")
    with pytest.raises(UserError, match=r"notes: \$\{oc.env:SECRET\} is taken from elsewhere"):
        diff(trained_run, received(notes="${oc.env:SECRET}"))
