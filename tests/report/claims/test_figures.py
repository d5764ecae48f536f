"""Laws of the figures of claims: a mark, an interval and a strip for each, and what was measured at its x."""

import numpy as np
import pytest
from claiming_runs import CLAIM, EQUAL, FAILS, HOLDS, PLOT, claimed, sweep
from matplotlib.colors import to_hex

from dropout_lab.report import build
from dropout_lab.report.__main__ import main
from dropout_lab.report.claims import figures as claim_figures
from dropout_lab.report.figures import COLORS


def drawn(folder, name):
    return claim_figures.figures(claimed(folder))[name].axes


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
    figure = claim_figures.figures(claimed(folder))["claims"]
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


def test_filters_lie_side_by_side_each_scaled_to_its_own_largest_weight(tmp_path, write_run, weights):
    for axes, arm in zip(drawn(sweep(tmp_path, write_run, HOLDS, filters=["b", "a"]), "filters"), "ba", strict=True):
        assert axes.get_title() == arm
        (image,) = axes.images
        expected = [[0.5, 0, 0, 0, 1], [0, -1, 0, 0, 0], [0, 0, 0, 0, 0], [-1, 1, 0, 0, 0], [-1, 1, 0, 0, 0]]
        assert image.get_array().tolist() == pytest.approx(np.array(expected))
        assert image.get_clim() == (-1, 1)


def test_claims_without_a_figure_are_a_picture_all_the_same(tmp_path, write_run):
    page = build(sweep(tmp_path, write_run, HOLDS, seeds=2)).page.read_text()
    assert page.count('<article class="drawn">') == 1
    assert not (tmp_path / "figure.png").exists()


@pytest.mark.slow
def test_figures_for_a_paper_are_among_the_others(tmp_path, write_run):
    sweep(tmp_path / "sweep", write_run, HOLDS, figure=[PLOT], seeds=2)
    main([str(tmp_path / "sweep"), "--figures", str(tmp_path / "paper")])
    assert {"claims.pdf", "claims.png", "figure.pdf", "figure.png"} <= {p.name for p in (tmp_path / "paper").iterdir()}
