"""Laws of the figures for a paper: files that open, readable text, and the numbers of the runs in them."""

import re

import matplotlib.image
import numpy as np
import pytest
from matplotlib.text import Text

from dropout_lab.report import figures, table
from dropout_lab.report.__main__ import main
from dropout_lab.report.page import HERE
from dropout_lab.report.styles import COLORS
from dropout_lab.runs.read import read_runs
from dropout_lab.runs.strategies import group

NAMES = ["score", "rates", "score_loss", "rates_loss", "curves", "activations", "gain", "ratio"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_run):
    """Three strategies with two seeds each, one of them at two rates."""
    folder = tmp_path_factory.mktemp("sweep")
    for n, (kind, p) in enumerate([("inverted", 0.5), ("inverted", 0.2), ("none", 0.5), ("unscaled", 0.5)]):
        for seed in (0, 1):
            write_run(folder / f"{n}{seed}", kind=kind, p=p, seed=seed, epochs=4)
    return folder


@pytest.fixture(scope="module")
def drawn(folder):
    return figures.figures(table.rows(group(read_runs(folder), {})[0]))


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("paper")
    for n, p in enumerate((0.2, 0.5)):
        write_run(folder / str(n), p=p, epochs=2)
    out = folder / "a" / "new"
    main([str(folder), "--figures", str(out)])
    return out


def lines(axes):
    """Label -> (x, y) of what is drawn with one; of error bars the line through the means."""
    named = {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    named |= {bars.get_label(): bars[0] for bars in axes.containers}
    return {label: (np.array(line.get_xdata()), np.array(line.get_ydata())) for label, line in named.items()}


@pytest.mark.slow
def test_each_picture_is_a_pdf_and_a_png_that_open(written):
    assert sorted(path.name for path in written.iterdir()) == sorted(f"{n}.{e}" for n in NAMES for e in ("pdf", "png"))
    for name in NAMES:
        pixels = matplotlib.image.imread(written / f"{name}.png")
        assert pixels.shape[1] in (round(3.4 * 300), 2100)  # a column of a paper or two, at 300 dots per inch
        assert pixels[..., :3].std() > 0.05
        pdf = (written / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF-")
        assert pdf.rstrip().endswith(b"%%EOF")
        assert b"/Type3" not in pdf  # fonts that journals refuse
        assert b"/CreationDate" not in pdf  # the same runs give the same file


@pytest.mark.slow
def test_text_is_readable_and_inside_the_figure(drawn):
    for name, figure in drawn.items():
        with matplotlib.rc_context(figures.STYLE):
            figure.draw_without_rendering()
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 5, name
        inside, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert inside.x0 > -0.02, name
        assert inside.y0 > -0.02, name
        assert inside.x1 < width + 0.02, name
        assert inside.y1 < height + 0.02, name


def test_accuracy_has_means_intervals_and_seeds(drawn):
    (axes,) = drawn["score"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "inverted p=0.5",
        "inverted p=0.2",
        "none",
        "unscaled",
    ]
    assert {label: y.tolist() for label, (_, y) in lines(axes).items() if label != "runs"} == {
        "inverted p=0.5": [0],
        "inverted p=0.2": [1],
        "none": [2],
        "unscaled": [3],
    }
    assert lines(axes)["none"][0] == pytest.approx([96.95])
    seeds = [line.get_xdata() for line in axes.lines if line.get_label() == "runs"]
    assert np.array(seeds) == pytest.approx(np.array([[97.0, 96.9]] * 4))
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top


def test_rates_are_one_line_for_each_swept_strategy(drawn):
    (axes,) = drawn["rates"].axes
    ((label, (x, y)),) = lines(axes).items()
    assert (label, x.tolist()) == ("inverted", [0.2, 0.5])
    assert y == pytest.approx([96.95, 96.95])


def test_each_number_of_the_test_part_has_figures_of_its_own(drawn):
    (first,), (second,) = drawn["score"].axes, drawn["score_loss"].axes
    assert (first.get_xlabel(), second.get_xlabel()) == ("test accuracy, %", "test NLL, nats")
    assert lines(second)["none"][0] == pytest.approx([0.105])
    (by_p,) = drawn["rates_loss"].axes
    assert by_p.get_ylabel() == "test NLL, nats"
    assert lines(by_p)["inverted"][1] == pytest.approx([0.105, 0.105])


def test_rates_are_one_line_also_where_p_is_in_the_names(tmp_path, write_run):
    for number, p in enumerate((0.2, 0.5)):
        for optimizer in ("sgd", "adam"):
            label, config = f"inverted optimizer={optimizer} dropout.p={p}", {"optimizer": {"_target_": optimizer}}
            write_run(tmp_path / f"{number}{optimizer}", label=label, p=p, epochs=1, config=config)
    (axes,) = figures.figures(table.rows(group(read_runs(tmp_path), {})[0]))["rates"].axes
    at = {label: x.tolist() for label, (x, _) in lines(axes).items()}
    assert at == {"inverted optimizer=sgd": [0.2, 0.5], "inverted optimizer=adam": [0.2, 0.5]}


def test_curves_have_every_strategy_at_every_step_with_a_band(drawn):
    axes = {axes.get_title(): axes for axes in drawn["curves"].axes}
    loss = axes["validation NLL, nats"]
    assert set(lines(loss)) == {"inverted p=0.5", "inverted p=0.2", "none", "unscaled"}
    assert lines(loss)["none"][0].tolist() == [9, 18, 27, 36]
    assert len(loss.collections) == 4  # bands
    assert 0 < lines(axes["validation accuracy, %"])["none"][1][-1] < 100


def test_activations_show_the_last_mean_of_each_layer_in_train_and_eval(drawn, folder):
    axes = {axes.get_title(): axes for axes in drawn["activations"].axes}
    run = read_runs(folder / "30")[0]  # unscaled, seed 0
    other = read_runs(folder / "31")[0]
    for mode in ("train", "eval"):
        expected = [np.mean([one.at_layer(mode, "mean", layer) for one in (run, other)]) for layer in run.layers]
        assert lines(axes["unscaled"])[mode][1] == pytest.approx(expected, rel=1e-3)
    assert not np.allclose(lines(axes["unscaled"])["train"][1], lines(axes["unscaled"])["eval"][1], rtol=0.1)


def test_gain_and_ratio_stand_beside_their_theory(drawn):
    train, evaluated = drawn["gain"].axes
    assert lines(train)["unscaled"][1] == pytest.approx([0.5] * 3)
    assert lines(evaluated)["unscaled"][1] == pytest.approx([1.0] * 3)
    first, last = drawn["ratio"].axes
    assert lines(first)["inverted p=0.5"][1] == pytest.approx([1, 2**0.5, 2], rel=1e-3)
    assert lines(last)["inverted p=0.5"][1] == pytest.approx([1, 1 + (2**0.5 - 1) / 1.3, 1 + 1 / 1.3], rel=1e-3)
    laws = [tuple(line.get_ydata()) for line in first.lines if line.get_label() == "theory"]
    assert (1.0, 1.414, 2.0) in laws
    assert (0.5, 0.3536, 0.25) in laws


def test_points_of_equal_height_do_not_hide_each_other(drawn):
    """Two strategies at one layer have the same gain; their marks stand side by side, nearest to their own layer."""
    axes = drawn["gain"].axes[1]
    at = [x for label, (x, _) in lines(axes).items() if label != "theory"]
    assert len({x[0] for x in at}) == 4
    assert all(np.abs(x - [1, 2, 3]).max() < 0.2 for x in at)


def test_colours_are_those_of_the_page():
    css = (HERE / "page.css").read_text()
    light = dict(
        re.findall(r"--(\w+): (#\w{6});", css[: css.index("--yellow") + 20] + re.search(r"--ink: #\w+;", css)[0])
    )
    assert {name: light[name] for name in (*COLORS, "ink")} == figures.COLORS


def test_runs_without_activations_have_the_figures_that_are_left(tmp_path, write_run):
    (write_run(tmp_path / "0") / "activations.csv").unlink()
    found = figures.figures(table.rows(group(read_runs(tmp_path), {})[0]))
    assert list(found) == ["score", "score_loss", "curves"]


def test_without_the_option_nothing_is_drawn(folder, capsys, monkeypatch):
    monkeypatch.setattr(figures, "write_figures", lambda *_: pytest.fail("drew figures"))
    main([str(folder)])
    assert "Figures" not in capsys.readouterr().out


def test_a_file_in_the_place_of_the_folder_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), "--figures", str(tmp_path / "file")])
    assert len(capsys.readouterr().err.splitlines()) == 1
