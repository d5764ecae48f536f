"""Laws of the series: the numbers of the runs, thinned, the same for every picture."""

import numpy as np
import pytest
from pages import data_of

from dropout_lab.modules.columns import Column
from dropout_lab.report.series import _drawn, series
from dropout_lab.runs.read import read_runs
from dropout_lab.runs.strategies import group
from dropout_lab.runs.tracks import Tracks

MEASURED = (
    Column("rmse", "RMSE", decimals=1),
    Column("loss", "NLL", "nats"),
    Column("cover", "coverage of 90 %", "%", 1),
    Column("auroc/test", "AUROC", "%", 2, "more"),
    Column("auroc/val", "AUROC of validation", "%", 2, "more"),
    Column("absent", "what no run has"),
)


@pytest.fixture
def drawn(tmp_path, write_run):
    """What is drawn of two runs of a module and a callback with columns of their own."""
    columns = {"columns": [column._asdict() for column in MEASURED]}
    for seed in (0, 1):
        final = {
            "test/rmse": 1234.56 + seed,
            "test/cover": 0.912,
            "auroc/test": 0.975,
            "auroc/val": 0.9,
            "val/rmse": 7.0,
        }
        write_run(tmp_path / str(seed), seed=seed, epochs=2, final=final, config=columns)
    return series(group(read_runs(tmp_path), {})[0])


def test_each_number_of_the_test_part_is_drawn_in_its_unit_with_all_its_decimals(drawn):
    assert [column["axis"] for column in drawn["columns"]] == [
        "test RMSE",
        "test NLL, nats",
        "test coverage of 90 %, %",
        "test AUROC, %",
    ]
    scores = drawn["strategies"][0]["scores"]
    assert scores["rmse"]["values"] == [1234.56, 1235.56]
    assert scores["rmse"]["mean"] == pytest.approx(1235.06)
    assert scores["auroc/test"]["mean"] == pytest.approx(97.5)
    assert [scores["loss"]["runs"], scores["loss"]["values"]] == [["seed 0", "seed 1"], [0.1, 0.11]]


def test_curves_are_those_that_the_columns_declare(drawn):
    titles, curves = drawn["curveTitles"], drawn["strategies"][0]["curves"]
    assert titles["val/rmse"] == "validation RMSE"
    assert titles["train/loss"] == "what is minimised (dropout on)"
    assert titles["gap/cover"] == "gap in coverage of 90 % (validation - training), %"
    assert titles["auroc/val"] == "AUROC of validation, %"
    assert curves["auroc/val"]["mean"] == [90.0]
    assert "auroc/test" not in titles


def test_where_nothing_was_measured_the_first_column_still_names_its_picture(tmp_path, write_run):
    nothing = {"test/acc": float("nan"), "test/loss": float("nan")}
    write_run(tmp_path / "0", final=nothing)
    assert [column["axis"] for column in series(group(read_runs(tmp_path), {})[0])["columns"]] == ["test accuracy, %"]


def test_pictures_hold_the_numbers_of_the_runs(page):
    inverted, slow, none, unscaled = data_of(page)["strategies"]
    assert [s["name"] for s in (inverted, slow, none)] == ["inverted p=0.5", "inverted p=0.2", "none"]
    assert inverted["scores"]["acc"]["values"] == [97.0, 96.9]
    assert inverted["depth"]["expected"]["ratio"] == [1.0, 1.414, 2.0]
    assert slow["depth"]["expected"]["ratio"] == [1.0, 1.118, 1.25]
    assert unscaled["depth"]["expected"]["gain"] == {"train": [0.5] * 3, "eval": [1.0] * 3}
    assert unscaled["depth"]["ratio"]["first"]["mean"] == [0.5, 0.3536, 0.25]
    assert none["depth"]["ratio"]["last"]["mean"] == [1.0, 1.0, 1.0]
    assert inverted["curves"]["val/acc"]["step"] == [9, 18, 27, 36]


def test_rates_of_layers_that_stay_are_no_statistic_to_be_drawn(page):
    stats = {stat for s in data_of(page)["strategies"] for mode in s["activations"].values() for stat in mode["values"]}
    assert stats == {"mean", "std", "zeros", "gain", "ratio", "shift"}


def test_rates_that_change_are_drawn():
    logged = {"p": [[0.1, 0.1, 0.1], [0.1, np.nan, 0.3]], "mean": [[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]]}
    columns = {(stat, layer): 2 * number + n for number, stat in enumerate(logged) for n, layer in enumerate("ab")}
    values = np.array([column for stat in logged.values() for column in stat]).T
    assert _drawn(Tracks(np.arange(3), columns, values)).keys() == {("p", "b"), ("mean", "a"), ("mean", "b")}
