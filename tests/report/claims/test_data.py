"""The part of the report about an experiment: its claims and its figure, as picture and as numbers."""

import re
from base64 import b64decode

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex

from dropout_lab.report import build
from dropout_lab.report.__main__ import main
from dropout_lab.report.claims import figures as claim_figures
from dropout_lab.report.claims.data import read_claimed
from dropout_lab.report.figures import COLORS
from dropout_lab.runs.read import read_runs

CLAIM = {"metric": "test/acc", "contrast": {"b": 1, "a": -1}}
HOLDS = CLAIM | {"says": "b is more accurate than a", "direction": "greater", "matters": 0.005}
FAILS = CLAIM | {"says": "b is less accurate <than> a", "direction": "less", "matters": 0.005}
EQUAL = CLAIM | {"says": "both are as accurate", "direction": "equal", "margin": 0.1}
PLOT = {"x": "units", "y": "accuracy", "log": ["x"], "reference": {"a law": {1: 0.9, 100: 0.95}}}
PLOT |= {"lines": {"a & b": {"metric": "test/acc", "arms": {"a": 10, "b": 100}}}}


def sweep(folder, write_run, *claims, figure=(), filters=(), seeds=8):
    """Two arms; b is more accurate by 0.02, give or take 0.001 at odd and even seeds."""
    verdict = {"claims": list(claims), "figure": list(figure), "filters": list(filters)}
    for seed in range(seeds):
        for arm, acc in (("a", 0.9), ("b", 0.92 + 0.001 * (-1) ** seed)):
            final = {"test/acc": acc + 0.01 * seed}
            write_run(folder / f"{arm}{seed}", arm=arm, seed=seed, final=final, config={"verdict": verdict}, epochs=1)
    return folder


def drawn(folder, name):
    return claim_figures.figures(read_claimed(read_runs(folder)))[name].axes


def test_each_claim_is_a_mark_with_its_interval_in_units_of_what_matters(tmp_path, write_run):
    (axes,) = drawn(sweep(tmp_path, write_run, HOLDS, FAILS, EQUAL), "claims")
    marks = [line for line in axes.lines if line.get_label() in {claim["says"] for claim in (HOLDS, FAILS, EQUAL)}]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([4, 4, 0.2])
    intervals = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 1.6]
    assert all(low < 4 < high for low, high in intervals[:2])
    assert np.diff([line.get_ydata()[0] for line in marks]).min() > 0  # in their order, downwards
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert all(abs(end) < axes.get_xlim()[1] for low, high in intervals for end in (low, high))


def test_verdicts_have_a_colour_and_a_shape_of_their_own(tmp_path, write_run):
    unclear = CLAIM | {"says": "one thing", "contrast": {"b": 1, "c": -1}, "direction": "less", "matters": 1.0}
    (axes,) = drawn(sweep(tmp_path, write_run, HOLDS, FAILS, unclear), "claims")
    marks = {line.get_label(): (to_hex(line.get_color()), line.get_marker()) for line in axes.lines}
    assert marks[HOLDS["says"]] == (COLORS["green"], "o")
    assert marks[FAILS["says"]] == (COLORS["vermillion"], "X")
    assert "one thing" not in marks  # without seeds there is nothing to mark
    words = [text.get_text() for text in axes.texts]
    assert [word for word in words if word in claim_figures.MARK_OF] == [
        "holds",
        "does not hold here",
        "too few seeds to tell",
    ]
    assert "no seeds, claimed < 0" in words


def test_the_strip_is_grey_where_the_claim_is_right(tmp_path, write_run):
    (axes,) = drawn(sweep(tmp_path, write_run, HOLDS, FAILS, EQUAL), "claims")
    low, high = axes.get_xlim()
    strips = [[strip.get_x(), strip.get_x() + strip.get_width()] for strip in axes.patches]
    assert np.array(strips) == pytest.approx(np.array([[0, high], [low, 0], [-1, 1]]))


@pytest.mark.slow
@pytest.mark.parametrize("matters", [1.0, 1e-3, 1e-9])
@pytest.mark.parametrize("says", ["short", "a claim of many words " * 8])
def test_words_stay_inside_the_picture_and_do_not_lie_on_each_other(tmp_path, write_run, says, matters):
    folder = sweep(tmp_path, write_run, HOLDS | {"says": says, "matters": matters}, EQUAL | {"says": says})
    figure = claim_figures.figures(read_claimed(read_runs(folder)))["claims"]
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in (*axes.texts, *axes.get_xticklabels()) if text.get_text()]
    width, height = figure.canvas.get_width_height()
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_a_figure_has_the_mean_and_interval_of_each_arm_at_its_x(tmp_path, write_run):
    (axes,) = drawn(sweep(tmp_path, write_run, HOLDS, figure=[PLOT]), "figure")
    (bars,) = axes.containers
    assert bars[0].get_xdata().tolist() == [10, 100]
    assert bars[0].get_ydata() == pytest.approx([0.935, 0.955])
    low, high = bars[2][0].get_segments()[0][:, 1]
    half = 2.3646 * np.std(0.01 * np.arange(8), ddof=1) / 8**0.5
    assert (low, high) == pytest.approx((0.935 - half, 0.935 + half), abs=1e-5)
    (theory,) = (line for line in axes.lines if line.get_label() == "a law")
    assert (theory.get_xdata().tolist(), theory.get_ydata().tolist()) == ([1, 100], [0.9, 0.95])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("units", "accuracy", "log")


def test_numbers_behind_a_metric_are_the_x_of_its_line(tmp_path, write_run, monkeypatch):
    line = {"metric": "lost/units", "arm": "b", "at": [0.25, 1, 50]}
    monkeypatch.setattr(
        "dropout_lab.report.claims.data.measure", lambda run, metric: float(metric.rpartition("/")[2]) * 2
    )
    claimed = read_claimed(read_runs(sweep(tmp_path, write_run, HOLDS, figure=[PLOT | {"lines": {"b": line}}])))
    ((_, lines),) = claimed.plots
    assert lines["b"].x.tolist() == [0.25, 1, 50]
    assert lines["b"].mean.tolist() == [0.5, 2, 100]
    assert lines["b"].half.tolist() == [0, 0, 0]


@pytest.fixture
def weights(monkeypatch):
    """Those of three units that see 2x2 images: each its own pattern, at a scale that says arm and seed."""
    patterns = np.array([[[1, 0], [0, -2]], [[0, 4], [0, 0]], [[-8, 8], [-8, 8]]], dtype=np.float32)
    monkeypatch.setattr("dropout_lab.verdict.trained_network.load", lambda folder: folder.name)
    scale = {"a0": 1e-3, "b0": 1e3}
    monkeypatch.setattr("dropout_lab.verdict.units.filters", lambda name: patterns[..., None] * scale[name])


def test_filters_lie_side_by_side_each_scaled_to_its_own_largest_weight(tmp_path, write_run, weights):
    for axes, arm in zip(drawn(sweep(tmp_path, write_run, HOLDS, filters=["b", "a"]), "filters"), "ba", strict=True):
        assert axes.get_title() == arm
        (image,) = axes.images
        expected = [[0.5, 0, 0, 0, 1], [0, -1, 0, 0, 0], [0, 0, 0, 0, 0], [-1, 1, 0, 0, 0], [-1, 1, 0, 0, 0]]
        assert image.get_array().tolist() == pytest.approx(np.array(expected))
        assert image.get_clim() == (-1, 1)


def test_the_page_shows_the_filters(tmp_path, write_run, weights):
    page = build(sweep(tmp_path, write_run, HOLDS, filters=["a", "not run"])).page.read_text()
    (encoded,) = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="first-layer weights of a"></article>', page)
    assert b64decode(encoded) == (tmp_path / "filters.png").read_bytes()


def test_an_arm_that_did_not_run_leaves_a_gap(tmp_path, write_run):
    line = {"metric": "test/acc", "arms": {"a": 1, "c": 2}}
    folder = sweep(tmp_path, write_run, HOLDS, figure=[PLOT | {"lines": {"line": line}}], seeds=2)
    ((_, lines),) = read_claimed(read_runs(folder)).plots
    assert np.isfinite(lines["line"].mean).tolist() == [True, False]
    build(folder)


def test_the_page_has_pictures_and_numbers_of_both_and_files_beside_it(tmp_path, write_run):
    report = build(sweep(tmp_path, write_run, HOLDS, FAILS, figure=[PLOT]))
    page = report.page.read_text()
    assert "1 holds, 1 does not hold here." in page
    assert "broad and grey is a law" in page
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)">', page)
    for (encoded, alternative), name in zip(pictures, ("figure", "claims"), strict=True):
        assert b64decode(encoded) == (tmp_path / f"{name}.png").read_bytes()
        assert matplotlib.image.imread(tmp_path / f"{name}.png").shape[1] == 1020  # a column at 300 dots per inch
        assert alternative.startswith({"figure": "accuracy over units: a &amp; b;", "claims": "1 holds, 1"}[name])
        assert alternative.endswith("the same numbers are in the table below the picture")
    assert '<th scope="row">b is less accurate &lt;than&gt; a</th><td>test/acc, b - a</td>' in page
    assert "<td>a &amp; b</td><td>10</td><td>0.935</td>" in page
    assert page.index('id="claims"') < page.index('id="results"')
    assert report.verdict.startswith("HOLDS: b is more accurate than a")


def test_claims_without_a_figure_are_a_picture_all_the_same(tmp_path, write_run):
    page = build(sweep(tmp_path, write_run, HOLDS, seeds=2)).page.read_text()
    assert page.count('<article class="drawn">') == 1
    assert not (tmp_path / "figure.png").exists()


def test_runs_that_claim_nothing_have_no_such_section(tmp_path, write_run):
    write_run(tmp_path / "0")
    report = build(tmp_path)
    assert 'id="claims"' not in report.page.read_text()
    assert (report.claimed, report.verdict) == (None, "")
    assert not (tmp_path / "claims.png").exists()


def test_claims_that_cannot_be_judged_cost_no_table(tmp_path, write_run, monkeypatch):
    sweep(tmp_path / "one", write_run, HOLDS, seeds=1)
    sweep(tmp_path / "other", write_run, FAILS, seeds=1)
    report = build(tmp_path)
    assert report.verdict == "No verdict: these runs state different claims: give the folder of one sweep"
    assert 'id="claims"' not in report.page.read_text()
    monkeypatch.setattr("dropout_lab.report.claims.data.judge", lambda *_: 1 / 0)
    assert build(tmp_path / "one").verdict == "No verdict: ZeroDivisionError: division by zero"


@pytest.mark.slow
def test_figures_for_a_paper_are_among_the_others(tmp_path, write_run):
    sweep(tmp_path / "sweep", write_run, HOLDS, figure=[PLOT], seeds=2)
    main([str(tmp_path / "sweep"), "--figures", str(tmp_path / "paper")])
    assert {"claims.pdf", "claims.png", "figure.pdf", "figure.png"} <= {p.name for p in (tmp_path / "paper").iterdir()}
