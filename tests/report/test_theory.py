import pytest

from dropout_lab.report.theory import expected_gain, expected_ratio


@pytest.mark.parametrize("depth", [1, 2, 6])
def test_at_one_rate_the_ratio_is_a_power_of_q(depth):
    assert expected_ratio("inverted", [0.5] * depth) == pytest.approx(0.5 ** (-(depth - 1) / 2))
    assert expected_ratio("classic", [0.5] * depth) == pytest.approx(0.5 ** (-(depth - 1) / 2))
    assert expected_ratio("unscaled", [0.5] * depth) == pytest.approx(0.5 ** ((depth + 1) / 2))
    assert expected_ratio("none", [1.0] * depth) == 1


def test_at_several_rates_each_layer_inflates_what_follows():
    assert expected_ratio("inverted", [0.8, 0.5, 0.9]) == pytest.approx((0.8 * 0.5) ** -0.5)
    assert expected_ratio("unscaled", [0.8, 0.5, 0.9]) == pytest.approx((0.8 * 0.5) ** 0.5 * 0.9)


def test_only_unscaled_changes_its_gain_from_train_to_eval():
    laws = ("inverted", "classic", "unscaled")
    gains = {law: tuple(expected_gain(law, 0.25, mode) for mode in ("train", "eval")) for law in laws}
    assert gains == {"inverted": (1, 1), "classic": (0.25, 0.25), "unscaled": (0.25, 1)}
