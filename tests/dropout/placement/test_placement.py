"""Rates by depth, and placements that make no sense."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.dropout import Placement
from dropout_lab.dropout.placement.placement import rates

probabilities = st.floats(0, 1, exclude_max=True)
counts = st.integers(1, 200)


@given(probabilities, counts)
def test_every_rule_ends_at_p_and_never_falls(p: float, count: int) -> None:
    for rule in ("constant", "linear", "geometric"):
        found = rates(p, rule, count)
        assert len(found) == count
        assert found[-1] == p
        assert all(0 <= rate < 1 for rate in found)
        assert all(a <= b * (1 + 1e-12) for a, b in pairwise(found))


@given(probabilities, counts)
def test_linear_rises_in_equal_steps(p: float, count: int) -> None:
    found = rates(p, "linear", count)
    assert found == pytest.approx([p * site / count for site in range(1, count + 1)])


@given(st.floats(0, 0.999), counts)
def test_geometric_keeps_an_equal_fraction_at_every_step(p: float, count: int) -> None:
    kept = [1.0] + [1 - rate for rate in rates(p, "geometric", count)]
    assert [b / a for a, b in pairwise(kept)] == pytest.approx([(1 - p) ** (1 / count)] * count)


@given(st.lists(probabilities, min_size=1))
def test_a_list_is_taken_as_it_is(listed: list[float]) -> None:
    assert rates(0.5, listed, len(listed)) == listed


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"where": "head"}, ValueError, r"^placement\.where=head: must be one or several of default, existing"),
        ({"where": []}, ValueError, r"^placement\.where=: must be one or several of default, "),
        ({"where": ["none", "input"]}, ValueError, "none,input: none can't be together"),
        (
            {"rate": "cubic"},
            ValueError,
            r"^placement\.rate=cubic: must be constant, linear, geometric, or a list of p$",
        ),
        ({"p": 1.0}, ValueError, r"^placement\.p=1\.0: must be the probability to DROP a unit, "),
        ({"p": float("nan")}, ValueError, r"^placement\.p=nan: must be the probability to DROP a unit, "),
        ({"p": "0.5"}, TypeError, r"^placement\.p='0\.5': must be the probability to DROP a unit, "),
        ({"p": True}, TypeError, r"^placement\.p=True: must be the probability to DROP a unit, "),
        ({"rate": [0.1, 1.5]}, ValueError, r"^placement\.rate: p=1\.5: must be the probability to DROP a unit, "),
        ({"where": "pattern"}, ValueError, "needs a pattern"),
        ({"pattern": "layer*"}, ValueError, "only that place uses one"),
    ],
)
def test_a_placement_that_makes_no_sense_is_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Placement(**options)
