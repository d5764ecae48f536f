"""Laws of the series: the numbers of the runs, thinned, the same for every picture."""

from pages import data_of


def test_pictures_hold_the_numbers_of_the_runs(page):
    inverted, slow, none, unscaled = data_of(page)["strategies"]
    assert [s["name"] for s in (inverted, slow, none)] == ["inverted p=0.5", "inverted p=0.2", "none"]
    assert inverted["score"]["values"] == [97.0, 96.9]
    assert inverted["depth"]["expected"]["ratio"] == [1.0, 1.414, 2.0]
    assert slow["depth"]["expected"]["ratio"] == [1.0, 1.118, 1.25]
    assert unscaled["depth"]["expected"]["gain"] == {"train": [0.5] * 3, "eval": [1.0] * 3}
    assert unscaled["depth"]["ratio"]["first"]["mean"] == [0.5, 0.3536, 0.25]
    assert none["depth"]["ratio"]["last"]["mean"] == [1.0, 1.0, 1.0]
    assert inverted["curves"]["val/acc"]["step"] == [9, 18, 27, 36]


def test_rates_of_layers_are_no_statistic_to_be_drawn(page):
    stats = {stat for s in data_of(page)["strategies"] for mode in s["activations"].values() for stat in mode["values"]}
    assert stats == {"mean", "std", "zeros", "gain", "ratio", "shift"}
