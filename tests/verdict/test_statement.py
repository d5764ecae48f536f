"""Sections that state no claim that could be tested, and no picture that could be drawn."""

import pytest

from dropout_lab.cli import UserError
from dropout_lab.verdict.statement import read_statement

LESS = {"says": "b is less accurate", "metric": "test/acc", "contrast": {"b": 1, "a": -1}, "direction": "less"}
LESS |= {"matters": 0.01}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "up"}, "verdict.claims.0.direction: Input should be 'greater', 'less' or 'equal'"),
        ({"matters": None}, "verdict.claims.0: matters belongs to direction greater or less"),
        ({"margin": 0.1}, "verdict.claims.0: a margin belongs to direction equal"),
        ({"pair": ["a", "b"]}, "verdict.claims.0: needs contrast or pair, not both"),
        ({"contrast": None}, "verdict.claims.0: needs contrast or pair, not both"),
        ({"metrik": 1}, "verdict.claims.0.metrik: Extra inputs are not permitted"),
        ({"matters": -1}, "verdict.claims.0.matters: Input should be greater than 0"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        read_statement({"claims": [LESS | change]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lines": {}}, "verdict.figure.0.lines: Dictionary should have at least 1 item"),
        ({"lines": {"a": {"metric": "test/acc"}}}, "verdict.figure.0.lines.a: needs arms .name: x., or arm and at"),
        ({"lines": {"a": {"metric": "lost", "arm": "a"}}}, "verdict.figure.0.lines.a: needs arms"),
        ({"lines": {"a": {"metric": "lost", "arms": {"a": 1}, "at": [1]}}}, "verdict.figure.0.lines.a: needs arms"),
        ({"log": ["z"]}, "verdict.figure.0.log.0: Input should be 'x' or 'y'"),
        ({"z": 1}, "verdict.figure.0.z: Extra inputs are not permitted"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused(change, message):
    plot = {"x": "n", "y": "accuracy", "lines": {"a": {"metric": "test/acc", "arms": {"a": 1, "b": 2}}}}
    assert read_statement({"claims": [LESS], "figure": [plot]}).figure[0].lines["a"].points[1] == ("b", "test/acc", 2)
    with pytest.raises(UserError, match=message):
        read_statement({"claims": [LESS], "figure": [plot | change]})
