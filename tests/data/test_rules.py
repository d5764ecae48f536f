"""Laws of the rules on arguments: what fits passes, what does not is told with key, value and what is allowed."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.data.rules import is_integer, is_number, require, require_integer, require_share

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))


def refusal(rule, key, value, *arguments, **named):
    """The words with which a value is refused; None: it passes."""
    try:
        rule(key, value, *arguments, **named)
    except ValueError as error:
        return str(error)
    return None


def test_a_refusal_has_the_key_the_value_and_what_is_allowed():
    assert refusal(require, "size", 3, False, "even") == "data.size=3: must be even"
    assert refusal(require, "size", 4, True, "even") is None


@given(st.integers(), st.integers())
def test_integers_pass_from_the_least_one_on(value, least):
    told = refusal(require_integer, "size", value, least)
    assert told == (None if value >= least else f"data.size={value}: must be an integer >= {least}")


@given(st.floats())
def test_shares_are_numbers_from_0_to_1_with_or_without_the_ends(value):
    assert (refusal(require_share, "share", value) is None) == (0 <= value <= 1)
    assert (refusal(require_share, "share", value, ends=False) is None) == (0 < value < 1)


def test_null_is_taken_where_it_is_said_to_be():
    assert refusal(require_integer, "size", None, 1, null=True) is None
    assert refusal(require_integer, "size", None, 1) == "data.size=None: must be an integer >= 1"
    assert refusal(require_integer, "size", 0, 1, null=True) == "data.size=0: must be an integer >= 1, or null"


@given(ANYTHING)
def test_switches_and_texts_are_no_numbers_and_every_integer_is_one(value):
    assert is_integer(value) == (type(value) is int)
    assert is_number(value) == (type(value) is int or (type(value) is float and math.isfinite(value)))


@pytest.mark.parametrize("value", [np.int64(3), np.float32(0.5), Fraction(1, 3)])
def test_numbers_of_libraries_are_numbers(value):
    assert is_number(value)
    assert is_integer(value) == isinstance(value, np.int64)
    assert not is_number(Decimal("0.5"))  # which does not mix with floats
