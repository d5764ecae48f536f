"""Laws of the numbers of claims: those of the runs, and a gap where there are none."""

import numpy as np
from claiming_runs import FAILS, HOLDS, PLOT, claimed, sweep

from dropout_lab.report import build


def test_numbers_behind_a_metric_are_the_x_of_its_line(tmp_path, write_run, monkeypatch):
    line = {"metric": "lost/units", "arm": "b", "at": [0.25, 1, 50]}
    monkeypatch.setattr("dropout_lab.verdict.numbers.measured", lambda metric, _: float(metric.rpartition("/")[2]) * 2)
    ((_, lines),) = claimed(sweep(tmp_path, write_run, HOLDS, figure=[PLOT | {"lines": {"b": line}}])).plots
    assert lines["b"].x.tolist() == [0.25, 1, 50]
    assert lines["b"].mean.tolist() == [0.5, 2, 100]
    assert lines["b"].half.tolist() == [0, 0, 0]


def test_an_arm_that_did_not_run_leaves_a_gap(tmp_path, write_run):
    line = {"metric": "test/acc", "arms": {"a": 1, "c": 2}}
    folder = sweep(tmp_path, write_run, HOLDS, figure=[PLOT | {"lines": {"line": line}}], seeds=2)
    ((_, lines),) = claimed(folder).plots
    assert np.isfinite(lines["line"].mean).tolist() == [True, False]
    build(folder)


def test_claims_that_cannot_be_judged_cost_no_table(tmp_path, write_run, monkeypatch):
    sweep(tmp_path / "one", write_run, HOLDS, seeds=1)
    sweep(tmp_path / "other", write_run, FAILS, seeds=1)
    report = build(tmp_path)
    assert report.verdict == "No verdict: these runs state different claims: give the folder of one sweep"
    assert 'id="claims"' not in report.page.read_text()
    monkeypatch.setattr("dropout_lab.report.claims.data.judge", lambda *_: 1 / 0)
    assert build(tmp_path / "one").verdict == "No verdict: ZeroDivisionError: division by zero"
