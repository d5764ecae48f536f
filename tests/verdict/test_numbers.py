"""What only trained networks tell is measured by `verdict`, left beside the runs, and read where nothing is built."""

import json

import numpy as np
import pytest
from claiming_runs import HOLDS, PLOT, sweep

from dropout_lab.report import build
from dropout_lab.runs.network import restore
from dropout_lab.runs.read import read_runs
from dropout_lab.verdict import numbers
from dropout_lab.verdict.__main__ import judge_folder

ECE = {"says": "b is better calibrated", "metric": "test/ece", "contrast": {"b": 1, "a": -1}, "direction": "less"}
ECE |= {"matters": 0.01}
LINE = PLOT | {"log": ["x", "y"], "lines": {"b": {"metric": "moved/rate", "arm": "b", "at": [0.1, 0.2]}}}


@pytest.fixture
def judged(tmp_path, write_run, monkeypatch):
    """A sweep with claims and pictures of networks, which are measured as the test says."""
    monkeypatch.setattr(numbers, "measured", lambda metric, run: 0.2 - 0.1 * (run.config["arm"] == "b"))
    monkeypatch.setattr("dropout_lab.verdict.trained_network.load", lambda folder: folder)
    images = np.random.default_rng(0).normal(size=(4, 2, 3, 1)).astype(np.float32)
    monkeypatch.setattr("dropout_lab.verdict.units.filters", lambda network: images)
    return sweep(tmp_path, write_run, HOLDS, ECE, figure=[LINE], filters=["a"])


@pytest.fixture
def nothing_built(monkeypatch):
    def refuse(*_):
        raise AssertionError("a network was built")

    monkeypatch.setattr("dropout_lab.verdict.trained_network.load", refuse)
    monkeypatch.setattr(numbers, "measured", refuse)


def test_a_report_builds_nothing_and_says_what_is_not_measured(judged, nothing_built):
    report = build(judged)
    assert report.claimed.counted == "1 holds, 1 not measured"
    assert "NOT MEASURED: b is better calibrated" in report.verdict
    hint = f"Not measured: “b is better calibrated”; scripts/lab verdict {judged} does it."
    assert report.text.endswith(f"\n{hint}")
    assert hint in report.page.read_text()
    assert not (judged / "filters.png").exists()


@pytest.mark.slow
def test_what_verdict_has_measured_a_report_shows(judged, monkeypatch):
    said = judge_folder(judged)
    json.loads((judged / "verdict.json").read_text(), parse_constant=pytest.fail)
    monkeypatch.setattr(numbers, "measured", lambda *_: pytest.fail("measured again"))
    report = build(judged)
    assert report.verdict == said
    assert "HOLDS: b is better calibrated" in said
    assert "Not measured" not in report.text + report.page.read_text()
    ((_, lines),) = report.claimed.plots
    assert lines["b"].mean.tolist() == pytest.approx([0.1, 0.1])
    assert (judged / "filters.png").exists()


def test_a_number_that_there_is_not_is_measured_all_the_same(judged, monkeypatch):
    monkeypatch.setattr(numbers, "measured", lambda *_: float("nan"))
    judge_folder(judged)
    assert "Not measured" not in build(judged).text


def test_numbers_of_a_run_that_has_changed_are_not_taken(judged):
    judge_folder(judged)
    about = json.loads((judged / "b3" / "status.json").read_text())
    (judged / "b3" / "status.json").write_text(json.dumps({**about, "sha256": {"checkpoints/best.ckpt": "new"}}))
    assert "Not measured: “b is better calibrated”" in build(judged).text


@pytest.mark.parametrize(
    "content",
    [
        *("", "[1]", "{", "\x00", '{"numbers": {"test/ece": [1]}, "filters": {}}', '{"numbers": 3, "filters": {}}'),
        '{"numbers": {"test/ece": {"b0": "=1"}}, "filters": {}}',
        '{"numbers": {}, "filters": {"a0": {"shape": [1, 2, 3], "float32": ""}}}',
        '{"numbers": {}, "filters": {"a0": {"shape": [1000000000, 9, 9, 9], "float32": ""}}}',
    ],
)
def test_a_file_that_is_none_is_as_if_nothing_was_measured(content, judged, nothing_built, caplog):
    (judged / "verdict.json").write_text(content)
    one = numbers.Numbers(judged, measures=False)
    assert np.isnan(one.of("test/ece", read_runs(judged)[0]))
    assert one.unmeasured == {"test/ece"}
    assert "verdict.json cannot be read" in caplog.text


@pytest.mark.slow
def test_a_number_of_a_network_is_that_of_its_run(trained_run, tmp_path):
    run = next(run for run in read_runs(trained_run) if run.counted)
    measured = numbers.Numbers(tmp_path, measures=True)
    known = measured.of("moved/rate/0.5", run), measured.filters("a", run)
    measured.write()
    read = numbers.Numbers(tmp_path, measures=False)
    assert read.of("moved/rate/0.5", run) == known[0]
    assert np.array_equal(read.filters("a", run), known[1])
    assert known[1].size == next(p for p in restore(run.folder).net.parameters() if p.ndim > 1).numel()
