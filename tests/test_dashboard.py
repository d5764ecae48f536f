"""The workspace as code: which panels it has, where it is written, and what W&B is sent."""

import json
import os
import sys
from functools import partial

import commands
import pytest
from wandb_server import ENTITY, KEY, WandbServer

from dropout_lab import dashboard
from dropout_lab.modules.columns import Column

exit_code = partial(commands.exit_code, module="dropout_lab.dashboard")

pytest.importorskip("wandb_workspaces")  # the extra "dashboard", part of "dev"

MEANS = "Activation means, train and eval"
HEADER = [
    "epoch,step,train/loss,val/loss,activation_mean_train/10_b,activation_mean_eval/10_b,dropout_p/02_drop",
    "activation_mean_train/02_drop_in,activation_mean_eval/02_drop_in,activation_mean_eval/02_drop",
    "activation_ratio/02_drop,dropout_gain_train/02_drop,dropout_gain_eval/02_drop",
]


@pytest.fixture
def runs(tmp_path):
    """A sweep of two runs, whose monitored layers differ."""
    for number, keys in enumerate((HEADER, [*HEADER, "activation_shift/10_b"])):
        (tmp_path / "sweep" / str(number)).mkdir(parents=True)
        (tmp_path / "sweep" / str(number) / "metrics.csv").write_text(",".join(keys) + "\n")
    return tmp_path / "sweep"


def written(tmp_path, *arguments):
    out = tmp_path / "new" / "dashboard.json"
    dashboard.main([*map(str, arguments), f"out={out}"])
    return json.loads(out.read_text())


def sections(content):
    """Name -> title -> what is drawn."""
    found = content["spec"]["section"]["panelBankConfig"]["sections"]
    return {
        one["name"]: {panel["config"].get("chartTitle"): panel["config"] for panel in one["panels"]} for one in found
    }


def test_without_push_the_workspace_is_a_file_and_nothing_is_sent(tmp_path, runs, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    content = written(tmp_path, f"runs={runs}", "project=mine", "entity=us")
    assert (content["project"], content["entity"]) == ("mine", "us")
    assert str(tmp_path / "new" / "dashboard.json") in capsys.readouterr().out


def test_each_layer_has_a_panel_with_train_and_eval_in_order_of_depth(tmp_path, runs):
    found = sections(written(tmp_path, f"runs={runs}"))
    assert list(found[MEANS]) == ["02_drop_in", "02_drop", "10_b"]
    assert found[MEANS]["10_b"]["metrics"] == ["activation_mean_train/10_b", "activation_mean_eval/10_b"]
    assert found[MEANS]["02_drop"]["metrics"] == ["activation_mean_eval/02_drop"]  # as logged, nothing invented
    (gain,) = (panels for name, panels in found.items() if name.startswith("Gain"))
    assert gain["02_drop"]["metrics"] == ["dropout_gain_train/02_drop", "dropout_gain_eval/02_drop"]


def test_a_section_for_each_question_and_none_that_is_empty(tmp_path, runs):
    names = [name.partition(":")[0] for name in sections(written(tmp_path, f"runs={runs}"))]
    assert names == [
        "Accuracy",
        "NLL",
        MEANS,
        "Gain of each dropout layer",
        "Ratio",
        "Shift",
        "Drop probability of each layer",
        "Pictures of every layer",
        "Speed",
    ]


def test_a_number_has_panels_of_what_its_column_declares(tmp_path):
    columns = [Column("rmse", "RMSE"), Column("auroc/test", "AUROC"), Column("auroc/val", "AUROC, validation")]
    content = dashboard.spec(dashboard.workspace(dashboard.DEFAULTS, [], columns))
    rmse, *callbacks = (sections(content)[name] for name in ("RMSE", "AUROC", "AUROC, validation"))
    assert list(rmse) == [
        "validation RMSE",
        "training RMSE (dropout off)",
        "gap in RMSE (validation - training)",
        "test/rmse",
    ]
    assert [list(panels) for panels in callbacks] == [["auroc/test"], ["AUROC, validation"]]


def test_seeds_are_a_band_around_the_mean_of_their_group(tmp_path, runs):
    content = written(tmp_path, f"runs={runs}")
    (runset,) = content["spec"]["section"]["runSets"]
    assert runset["grouping"] == [{"section": "run", "name": "group"}]
    assert content["spec"]["section"]["settings"]["useRunsTableGroupingInPanels"]
    lines = [panel for panels in sections(content).values() for panel in panels.values() if "metrics" in panel]
    assert {(line["groupAgg"], line["groupArea"]) for line in lines} == {("mean", "stddev")}


def test_runs_may_be_grouped_by_a_setting(tmp_path, runs):
    (runset,) = written(tmp_path, f"runs={runs}", "by=dropout.p")["spec"]["section"]["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "dropout.value.p"}]  # where W&B keeps config.dropout.p


def test_metrics_are_drawn_against_the_step_that_all_runs_share(tmp_path, runs):
    content = written(tmp_path, f"runs={runs}")
    found = sections(content)
    assert content["spec"]["section"]["settings"]["xAxis"] == "trainer/global_step"
    for panel in [*found["NLL"].values(), *found[MEANS].values()]:
        assert panel.get("xAxis", "trainer/global_step") == "trainer/global_step"
    assert {panel["xAxis"] for panel in found["Speed"].values()} == {"_runtime"}


def test_without_runs_the_sections_find_their_layers_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "RUNS", tmp_path)
    found = sections(written(tmp_path))
    assert found[MEANS]["all layers"]["metricRegex"] == "^(activation_mean_train|activation_mean_eval)/.*"


def test_the_newest_run_is_taken_where_none_is_named(tmp_path, runs, monkeypatch):
    """Of the two only run 1 was probed, so that it alone has a shift."""
    monkeypatch.setattr(dashboard, "RUNS", runs)
    for newest in (0, 1):
        for number in (0, 1):
            os.utime(runs / str(number) / "metrics.csv", (1, 2 if number == newest else 1))
        names = sections(written(tmp_path / str(newest)))
        assert any(name.startswith("Shift") for name in names) == (newest == 1)


def test_a_folder_without_runs_is_an_error(tmp_path, capsys):
    assert exit_code(f"runs={tmp_path}") == 2
    assert "no metrics.csv below it" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["project=a/b", "entity=a:b", f"project={'a' * 129}"])
def test_a_name_that_wandb_can_not_have_is_one_line(word, runs, tmp_path, capsys):
    assert exit_code(f"runs={runs}", word, f"out={tmp_path / 'd.json'}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {word}: must be a text of at most 128 characters without any of /")
    assert not (tmp_path / "d.json").exists()


def test_a_variable_that_wandb_refuses_is_one_line_where_something_is_sent(clean, runs, tmp_path, capsys):
    clean.setenv("WANDB_PROJECT", "a/b")
    assert exit_code("--push", f"runs={runs}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: WANDB_PROJECT=a/b: ")
    written(tmp_path, f"runs={runs}")


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path, runs, capsys):
    with pytest.raises(SystemExit, match="2"):
        dashboard.main([f"runs={runs}", f"out={tmp_path}"])
    assert "that is a folder; name a file" in capsys.readouterr().err


def test_without_the_package_one_line_says_how_to_install_it(tmp_path, runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert exit_code(f"runs={runs}", f"out={tmp_path / 'd.json'}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "-m pip install wandb-workspaces" in line


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No key, and a process in which W&B has not read its environment yet, before and after."""
    import wandb

    wandb.teardown()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    yield monkeypatch
    wandb.teardown()


@pytest.fixture
def server(clean):
    """A server and a key for it."""
    with WandbServer() as there:
        clean.setenv("WANDB_BASE_URL", there.url)
        clean.setenv("WANDB_API_KEY", KEY)
        yield there


@pytest.mark.slow
def test_push_saves_the_workspace_to_the_project_of_the_user(server, runs, tmp_path, capsys):
    dashboard.main(["--push", f"runs={runs}", "project=mine"])
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["type"]) == (ENTITY, "mine", "project-view")
    assert [s["name"] for s in json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]][:3] == [
        "Accuracy",
        "NLL",
        MEANS,
    ]
    out, err = capsys.readouterr()
    assert out.startswith(f"saved: {server.url}/{ENTITY}/mine?nw=")
    assert not err
    dashboard.main(["--push", f"runs={runs}", "project=mine", "entity=us"])
    assert [view["entityName"] for view in server.views] == [ENTITY, "us"]


@pytest.mark.slow
def test_a_project_that_is_not_there_is_one_line(server, runs, capsys):
    server.refuses_views = True
    assert exit_code("--push", f"runs={runs}", "project=mine") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no project {ENTITY}/mine" in line


def test_push_without_a_key_is_one_line(clean, runs, capsys):
    assert exit_code("--push", f"runs={runs}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--push needs an API key" in line


@pytest.mark.slow
def test_an_unreachable_server_is_one_line(clean, runs, capsys):
    clean.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    clean.setenv("WANDB_API_KEY", KEY)
    clean.setenv("WANDB_HTTP_TIMEOUT", "1")
    assert exit_code("--push", f"runs={runs}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "W&B did not take the workspace" in line
