"""The comparison: which runs it starts, what it prints, what it leaves."""

import json
import re
from contextlib import contextmanager
from functools import partial

import commands
import pandas as pd
import pytest
from run_folders import same

from dropout_lab import compare
from dropout_lab.train import job

exit_code = partial(commands.exit_code, module="dropout_lab.compare")

QUICK = ["trainer.max_epochs=1", "data.train_size=128", "logger=csv", "callbacks.activation_stats.probe_masks=1"]
IN_TURN, TWO = "hydra/launcher=basic", "hydra.launcher.n_jobs=2"


@pytest.fixture
def planned(monkeypatch):
    """The plans that would be carried out."""
    plans = []
    monkeypatch.setattr(compare, "startable", lambda plan: plans.append(plan) or (plan, {}))
    monkeypatch.setattr(compare, "compare", lambda plan, skipped: 0)
    return plans


def test_planning_is_told_once_however_long_it_takes(planned, monkeypatch):
    told = []

    @contextmanager
    def telling(what):
        told.append(what)
        yield
        assert planned  # and checked

    monkeypatch.setattr(compare, "telling", telling)
    assert exit_code("dropout=none", "seed=0", IN_TURN) == 0
    assert told == ["planning"]


@pytest.mark.slow
def test_without_arguments_six_strategies_meet_five_seeds(planned):
    assert exit_code() == 0
    jobs = [job.config for job in planned[0].jobs]
    arms = [(job.arm, job.seed) for job in jobs]
    names = ("inverted", "classic_matched", "classic_unmatched", "spatial", "none", "unscaled")
    assert arms == [(name, seed) for name in names for seed in range(5)]
    settings = {job.arm: (job.dropout, job.optimizer.match) for job in jobs}
    assert settings["classic_matched"][1] == "inverted"
    assert settings["classic_unmatched"] == (settings["classic_matched"][0], None)


@pytest.mark.slow
def test_strategies_given_replace_the_six(planned):
    exit_code("dropout=inverted,gaussian", "seed=0,1", "model=mlp")
    assert len(planned[0].jobs) == 4
    assert {job.alike["dropout"]["noise"] for job in planned[0].jobs} == {"bernoulli", "gaussian"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "cores", "gpus", "launcher"),
    [
        ([], 2, [], "joblib"),
        ([], 1, [], "basic"),  # where a second process has no place
        ([], 1, ["0", "1"], "joblib"),
        ([IN_TURN], 2, [], "basic"),
        (["hydra.launcher.n_jobs=1"], 1, [], "joblib"),
        (["hydra/launcher=submitit_slurm"], 2, [], "submitit_slurm"),
        (["trainer=ddp_cpu"], 2, [], "basic"),  # each job takes all there is
        (["trainer=ddp_cpu", TWO], 2, [], "joblib"),
        (["trainer=ddp_cpu", "hydra/launcher=joblib"], 2, [], "joblib"),
    ],
)
def test_jobs_run_side_by_side_where_there_is_room_unless_a_launcher_is_chosen(
    words, cores, gpus, launcher, planned, monkeypatch
):
    monkeypatch.setattr(compare, "free_cores", lambda: cores)
    monkeypatch.setattr(compare, "visible_gpus", lambda: gpus)
    assert exit_code("dropout=none", "seed=0", *words) == 0
    (one,) = planned[0].jobs
    assert planned[0].launcher == launcher
    assert not [word for word in one.config.hydra.overrides.task if "hydra" in word]  # else it would be another run


def test_an_experiment_may_choose_a_launcher(tmp_path, planned, monkeypatch):
    monkeypatch.setattr(compare, "free_cores", lambda: 2)
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - base/small\n  - override /hydra/launcher: submitit_slurm\n"
    (tmp_path / "experiment" / "on_the_cluster.yaml").write_text(text)
    assert exit_code("experiment=on_the_cluster", f"hydra.searchpath=[file://{tmp_path}]") == 0
    assert planned[0].launcher == "submitit_slurm"


@pytest.mark.slow
def test_side_by_side_gives_the_numbers_of_one_after_another_to_the_last_digit(tmp_path, capfd):
    """Also where a half of it is done already."""
    tables = {}
    for name, launcher in {"in_turn": IN_TURN, "beside": TWO}.items():
        words = [*QUICK, launcher, f"hydra.sweep.dir={tmp_path / name}"]
        if name == "beside":
            assert exit_code(*words, "dropout=inverted,spatial", "seed=0") == 0
        assert exit_code(*words, "seed=0,1", "dropout=inverted,spatial") == 0
        tables[name] = pd.read_csv(tmp_path / name / "table.csv").drop(columns=["seconds_mean", "seconds_ci95"])
    for number in range(4):
        assert same(tmp_path / "beside" / str(number), tmp_path / "in_turn" / str(number), ("best", "last"))
    pd.testing.assert_frame_equal(tables["beside"], tables["in_turn"], check_exact=True)


@pytest.mark.slow
def test_a_strategy_that_does_not_apply_is_a_row_with_the_reason_each_time(tmp_path, capsys):
    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    arms = "{spatial: dropout=spatial dropout.elsewhere=null, none: dropout=none}"
    text = f"# @package _global_\nhydra: {{sweeper: {{arms: {arms}}}}}\n"
    (tmp_path / "conf" / "sweep" / "strict.yaml").write_text(text)
    words = ["sweep=strict", f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "seed=0", "model=mlp", IN_TURN]
    words += [f"hydra.sweep.dir={tmp_path}"]
    assert exit_code(*QUICK, *words) == 0
    said = capsys.readouterr().out
    assert exit_code(*QUICK, *words) == 0
    assert "is done already" in capsys.readouterr().out
    assert "could not be applied: channel dropout can't go in place of layers.0.dropout" in " ".join(said.split())
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["0"]
    assert list(json.loads((tmp_path / "skipped.json").read_text())) == ["spatial"]


@pytest.mark.slow
def test_where_nothing_applies_it_is_an_error(tmp_path, capsys):
    words = ["dropout=spatial", "dropout.elsewhere=null", "model=mlp", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert exit_code(*QUICK, *words) == 2
    assert "channel dropout can't go in place of" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_failed_runs_are_counted_and_the_table_is_printed_all_the_same(tmp_path, capsys, monkeypatch):
    original = job.train

    def failing(cfg, *others):
        if cfg.seed == 1:
            raise RuntimeError("out of luck")
        return original(cfg, *others)

    def blind(*_):
        raise RuntimeError("too dark")

    monkeypatch.setattr(job, "train", failing)
    monkeypatch.setattr("dropout_lab.look.views.look_at", blind)
    assert exit_code(*QUICK, "dropout=none,inverted", "seed=1,0", IN_TURN, f"hydra.sweep.dir={tmp_path}") == 1
    said = capsys.readouterr()
    assert "2 of 4 jobs did not end well" in said.err
    assert "RuntimeError: out of luck" in said.out
    assert "No picture of a network looking at an image: RuntimeError: too dark" in said.out
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_command_ends_with_table_page_and_what_comes_next(tmp_path):
    words = ["seed=0,1", "trainer.max_epochs=1", "data.train_size=128", TWO, f"hydra.sweep.dir={tmp_path}"]
    done = commands.run(*words, module="dropout_lab.compare", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("strategy ") :].partition("\n\n")[0]  # what explains it comes below
    for name in ("inverted", "classic_matched", "classic_unmatched", r"spatial \(element 1/3\)", "none", "unscaled"):
        assert re.search(rf"^{name} +2 ", table, re.MULTILINE)  # seeds
    assert f"{tmp_path}/report.html" in done.stdout
    assert f"wandb sync {tmp_path}/wandb/offline-run-*   (12 runs)" in done.stdout
    assert "scripts/lab explain" in done.stdout
    assert '"matched"' in done.stdout
    assert "12/12" in done.stderr
    assert [path.parent.parent.name for path in tmp_path.rglob("look.json")] == ["0"]  # one network, for the page
    assert "A network looking at something" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 12
    # Gain of the last dropout layer: what rescaling is for.
    table = pd.read_csv(tmp_path / "table.csv").set_index("strategy")
    q = 0.5
    for name, train_gain, eval_gain in [
        ("inverted", 1, 1),
        ("classic_matched", q, q),
        ("classic_unmatched", q, q),
        ("unscaled", q, 1),
        ("none", 1, 1),
    ]:
        assert table.loc[name, "gain_train_mean"] == pytest.approx(train_gain, abs=0.06)
        assert table.loc[name, "gain_eval_mean"] == pytest.approx(eval_gain, abs=1e-6)
