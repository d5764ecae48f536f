"""W&B that never prompts, never blocks for long and never stops a run."""

import math
import os
import pty
import socket
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import wandb
from commands import Command
from wandb_files import read, read_all
from wandb_server import KEY, WandbServer

from dropout_lab.runs import wandb_logger
from dropout_lab.runs.loggers import Csv
from dropout_lab.runs.wandb_logger import Wandb

CONFIG = {"dropout": {"p": 0.5, "mask": "element"}, "widths": [32, 64], "layers": {"00_conv": "a.conv"}, "arm": None}


def no_key(monkeypatch, folder):
    """As on a machine that has never seen W&B."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(folder / "config"))
    monkeypatch.setattr(wandb_logger, "_refusal", None)


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No key, and a process in which W&B has not read its environment yet, before and after."""
    wandb.teardown()
    no_key(monkeypatch, tmp_path)
    yield monkeypatch
    wandb.teardown()


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two runs of one process whose lives overlap, without a key: their folder, the runs, the environment around."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        wandb.teardown()
        no_key(patch, folder)
        before = dict(os.environ)
        about = {"project": "p", "group": "classic 12345678", "job_type": "train", "tags": ["a", "b"], "notes": "n"}
        first = Wandb(save_dir=str(folder / "s"), name="classic seed=0", id="classic-0", **about)
        first.log_hyperparams({**CONFIG, "git_diff": "+" * 60_000})
        first.log_metrics({"epoch": 0, "val/loss": 0.5}, step=3)
        second = Wandb(save_dir=str(folder / "s"), name="classic seed=1", id="classic-1", **about)
        second.log_metrics({"epoch": 0, "val/loss": math.nan, "val/acc": math.inf}, step=3)
        first.log_metrics({"epoch": 1, "val/loss": 0.25}, step=6)
        offline = first.offline, second.offline
        first.finish(0)
        second.finish(1)
        wandb.teardown()
        after = dict(os.environ)
    return {"runs": read_all(folder / "s"), "folder": folder, "before": before, "after": after, "offline": offline}


@pytest.mark.slow
def test_without_a_key_runs_are_kept_offline(two_runs):
    assert two_runs["offline"] == (True, True)
    assert len(two_runs["runs"]) == 2


@pytest.mark.slow
def test_a_run_has_its_names(two_runs):
    first, second = (found.run for found in two_runs["runs"])
    shared = {"project": "p", "group": "classic 12345678", "job_type": "train", "tags": ["a", "b"], "notes": "n"}
    assert first == {"id": "classic-0", "name": "classic seed=0", "entity": "", **shared}
    assert second == {"id": "classic-1", "name": "classic seed=1", "entity": "", **shared}


@pytest.mark.slow
def test_the_configuration_is_nested_and_complete_but_for_texts_without_end(two_runs):
    config = dict(two_runs["runs"][0].config)
    config.pop("_wandb")
    assert config == CONFIG


@pytest.mark.slow
def test_the_summary_names_the_strategy(two_runs):
    first, second = (found.summary for found in two_runs["runs"])
    assert first["final/strategy"] == "classic"
    assert "final/strategy" not in second  # no configuration, no strategy


@pytest.mark.slow
def test_two_runs_in_one_process_stay_separate(two_runs):
    first, second = two_runs["runs"]
    assert first.series("val/loss") == [(3, 0.5), (6, 0.25)]
    assert first.series("epoch") == [(3, 0), (6, 1)]
    ((step, loss),) = second.series("val/loss")
    assert step == 3
    assert math.isnan(loss)
    assert second.series("val/acc") == [(3, math.inf)]
    assert set(second.config) == {"_wandb"}


@pytest.mark.slow
def test_every_metric_is_drawn_against_the_global_step(two_runs):
    assert {"name": "", "glob": "*", "step": "trainer/global_step"} in two_runs["runs"][0].metrics


@pytest.mark.slow
def test_the_exit_code_is_recorded(two_runs):
    assert [run.exit_code for run in two_runs["runs"]] == [0, 1]


@pytest.mark.slow
def test_the_files_of_a_sweep_lie_together(two_runs):
    folder = two_runs["folder"]
    assert [path.name for path in (folder / "s").iterdir()] == ["wandb"]
    assert [path.name for path in folder.iterdir()] == ["s"]  # no key was stored
    assert len(list((folder / "s" / "wandb").glob("offline-run-*-classic-[01]"))) == 2


@pytest.mark.slow
def test_no_environment_variable_is_left_behind(two_runs):
    changed = {key for key in two_runs["before"] | two_runs["after"] if "WANDB" in key}
    assert {key: two_runs["after"].get(key) for key in changed} == {key: two_runs["before"].get(key) for key in changed}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of open files here")
def test_a_long_sweep_leaves_a_run_for_each_job_and_nothing_open(clean, tmp_path):
    """So that a hundred jobs meet no limit of the process that ten do not."""
    held = []
    for number in range(20):
        logger = Wandb(save_dir=str(tmp_path / "s"), name=f"run {number}", id=f"run-{number:02}")
        logger.log_hyperparams({"seed": number})
        logger.log_metrics({"val/loss": float(number)}, step=number)
        logger.finish(0)
        held.append((len(list(Path("/proc/self/fd").iterdir())), threading.active_count()))
    wandb.teardown()
    assert held[-1] <= max(held[:5])
    runs = sorted(read_all(tmp_path / "s"), key=lambda found: found.run["id"])
    assert [found.config["seed"] for found in runs] == list(range(20))
    assert [found.series("val/loss") for found in runs] == [[(number, number)] for number in range(20)]
    assert {found.exit_code for found in runs} == {0}


@pytest.mark.parametrize(
    ("mode", "variable", "expected"),
    [
        ("auto", None, "offline"),
        ("auto", "offline", "offline"),
        ("auto", "dryrun", "offline"),
        ("auto", "disabled", "disabled"),
        ("offline", "disabled", "offline"),
        ("disabled", "offline", "disabled"),
    ],
)
def test_the_mode_is_the_loggers_then_the_environments(tmp_path, monkeypatch, mode, variable, expected):
    no_key(monkeypatch, tmp_path)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert begun(monkeypatch, tmp_path, mode=mode)["mode"] == expected


@pytest.mark.parametrize(
    ("mode", "variable", "expected"),
    [("auto", None, "online"), ("online", "offline", "online"), ("auto", "run", "online")],
)
def test_with_a_key_runs_go_online(tmp_path, monkeypatch, mode, variable, expected):
    no_key(monkeypatch, tmp_path)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert begun(monkeypatch, tmp_path, mode=mode, key=True)["mode"] == expected


def said(caplog):
    """What this package said; wandb's own log is not shown to anyone."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("dropout_lab")]


def begun(monkeypatch, folder, key=False, **options):
    """What wandb.init was given; no run is made."""
    given = {}
    monkeypatch.setattr(wandb, "init", lambda **arguments: given.update(arguments))
    monkeypatch.setattr(wandb, "login", lambda prompt, verify: key and verify and not prompt)
    _ = Wandb(save_dir=str(folder), **options).experiment
    return given


def test_online_without_a_key_is_offline_with_one_line_of_warning(tmp_path, monkeypatch, caplog):
    no_key(monkeypatch, tmp_path)
    assert begun(monkeypatch, tmp_path, mode="online")["mode"] == "offline"
    (warning,) = said(caplog)
    assert "there is no API key: `wandb login` stores one" in warning


def test_offline_by_default_is_not_worth_a_warning(tmp_path, monkeypatch, caplog):
    no_key(monkeypatch, tmp_path)
    begun(monkeypatch, tmp_path)
    assert not said(caplog)


def test_a_key_is_not_announced_to_every_job_of_a_sweep(tmp_path, monkeypatch, capsys):
    no_key(monkeypatch, tmp_path)
    monkeypatch.setattr(wandb, "init", lambda **_: None)
    monkeypatch.setattr(wandb, "login", lambda **_: print("W&B API key is configured", file=sys.stderr) or True)
    _ = Wandb(save_dir=str(tmp_path)).experiment
    assert capsys.readouterr() == ("", "")


def test_a_run_that_never_began_can_be_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("a run was made to be finished"))
    Wandb(mode="offline", save_dir=str(tmp_path)).finish(1)


@pytest.mark.parametrize(
    ("mode", "variable", "says"),
    [
        ("onlin", "offline", "logger.wandb.mode=onlin: must be auto, online"),
        ("auto", "of", "WANDB_MODE=of: must be online"),
        ("auto", "auto", "WANDB_MODE=auto: must be online"),  # which W&B does not know
    ],
)
def test_an_unknown_mode_is_refused_where_it_comes_from(tmp_path, monkeypatch, mode, variable, says):
    monkeypatch.setenv("WANDB_MODE", variable)
    with pytest.raises(ValueError, match=f"^{says}, offline or disabled$"):
        Wandb(mode=mode, save_dir=str(tmp_path))


def test_a_run_that_the_server_refuses_is_kept_offline_under_another_id(tmp_path, monkeypatch, caplog):
    """W&B takes the failed run for one that still has the id."""
    no_key(monkeypatch, tmp_path)
    given = []

    def init(**arguments):
        given.append((arguments["mode"], arguments["id"]))
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("permission denied\nand more")

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "init", init)
    logger = Wandb(save_dir=str(tmp_path), id="classic-0", entity="us", project="mine")
    _ = logger.experiment
    assert given == [("online", "classic-0"), ("offline", "classic-0-offline")]
    assert logger.offline
    (warning,) = said(caplog)
    assert "(with logger.wandb.entity=us logger.wandb.project=mine: permission denied)" in warning
    assert "\n" not in warning


def test_an_error_of_an_offline_run_is_not_hidden(tmp_path, monkeypatch):
    no_key(monkeypatch, tmp_path)

    asked = []

    def init(**_):
        asked.append("offline")
        raise wandb.errors.UsageError("bad id")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(wandb.errors.UsageError, match="bad id"):
        _ = Wandb(mode="offline", save_dir=str(tmp_path)).experiment
    assert len(asked) == 1


def test_a_disabled_run_leaves_nothing(clean, tmp_path):
    logger = Wandb(mode="disabled", save_dir=str(tmp_path / "s"))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.finish(0)
    assert not list((tmp_path / "s").iterdir())


@pytest.mark.slow
def test_with_a_server_and_a_key_each_run_arrives_with_its_ending(clean, tmp_path):
    with WandbServer() as server:
        clean.setenv("WANDB_BASE_URL", server.url)
        clean.setenv("WANDB_API_KEY", KEY)
        for seed in range(2):
            logger = Wandb(save_dir=str(tmp_path), id=f"classic-{seed}", name=f"classic {seed}", group="classic 1a")
            logger.log_hyperparams(CONFIG)
            logger.log_metrics({"val/loss": 0.5 + seed}, step=3)
            assert not logger.offline
            logger.finish(seed)
        wandb.teardown()
    for seed in range(2):
        run = server.runs[f"classic-{seed}"]
        assert (run.about("displayName"), run.about("groupName")) == (f"classic {seed}", "classic 1a")
        assert run.exit_code == seed
        assert [(row["trainer/global_step"], row["val/loss"]) for row in run.history] == [(3, 0.5 + seed)]
        assert run.summary["final/strategy"] == "classic"
        assert run.config["dropout"] == CONFIG["dropout"]


@pytest.fixture
def closed_port():
    """A server that is not there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.slow
def test_an_unreachable_server_costs_one_wait_and_one_line_of_warning(clean, tmp_path, closed_port, caplog, capfd):
    clean.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    clean.setenv("WANDB_API_KEY", "a" * 40)
    clean.setenv("WANDB_HTTP_TIMEOUT", "1")
    asked, login = [], wandb.login
    clean.setattr(wandb, "login", lambda **arguments: asked.append(arguments) or login(**arguments))
    for seed in range(2):
        logger = Wandb(save_dir=str(tmp_path / "s"), id=f"classic-{seed}", init_timeout=1)
        logger.log_metrics({"a": 1.0}, step=seed)
        assert logger.offline
        logger.finish(0)
    wandb.teardown()
    assert [(found.run["id"], found.exit_code) for found in read_all(tmp_path / "s")] == [
        ("classic-0", 0),
        ("classic-1", 0),
    ]
    assert len(asked) == 1
    (warning,) = said(caplog)
    assert "wandb sync" in warning
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_server_that_goes_away_leaves_the_run_offline(clean, tmp_path, closed_port, caplog):
    clean.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    clean.setenv("WANDB_API_KEY", "a" * 40)
    clean.setattr(wandb, "login", lambda **_: True)
    logger = Wandb(save_dir=str(tmp_path / "s"), id="classic-0", init_timeout=1)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.finish(0)
    wandb.teardown()
    assert [found.series("a") for found in read_all(tmp_path / "s")] == [[(0, 1.0)]]
    assert len(said(caplog)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_terminal_is_never_prompted(clean, tmp_path, mode):
    """Without a key, wandb.init on a terminal asks what to do and waits for ever."""
    ours, theirs = pty.openpty()
    try:
        assert Command(os.ttyname(theirs), mode, tmp_path, module="on_a_terminal").wait(60) == 0
    finally:
        os.close(theirs)
        os.close(ours)
    assert [found.exit_code for found in read_all(tmp_path)] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("mood", ["silent", "failing"])
@pytest.mark.parametrize("when", ["start", "middle", "finish"])
def test_a_server_that_misbehaves_costs_one_line_and_no_row(clean, tmp_path, mood, when, caplog, capfd):
    """Also in the next run of the process, which waits for it no more."""
    offline = []
    with WandbServer() as server:
        clean.setenv("WANDB_BASE_URL", server.url)
        clean.setenv("WANDB_API_KEY", KEY)
        if when == "start":
            clean.setenv("WANDB_HTTP_TIMEOUT", "1")
        server.mood = mood if when == "start" else "well"
        for seed in range(2):
            csv, log = Csv(str(tmp_path / str(seed))), Wandb(save_dir=str(tmp_path), id=f"{seed}", finish_timeout=1)
            offline.append(log.experiment is not None and log.offline)
            started = time.monotonic()
            for row in range(40):
                server.mood = mood if when == "middle" and row == 20 else server.mood
                for one in (csv, log):
                    one.log_metrics({"epoch": row, "a": row / 7}, step=row)
            server.mood = mood
            log.finish(0)
            assert time.monotonic() - started < 10  # it would wait for ever
        wandb.teardown()
    assert offline == [when == "start", True]
    for seed in range(2):
        (folder,) = (tmp_path / "wandb").glob(f"*run-*-{seed}")
        kept = read(folder)
        assert kept.series("a") == [(row, row / 7) for row in range(40)]
        assert kept.exit_code == 0
        assert len(pd.read_csv(tmp_path / str(seed) / "metrics.csv")) == 40
    (warning,) = said(caplog)
    (first,) = (tmp_path / "wandb").glob("*run-*-0")
    assert warning.endswith("`wandb sync`" if when == "start" else f"wandb sync {first}")
    assert capfd.readouterr().err == ""
