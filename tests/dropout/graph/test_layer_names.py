"""Names of layers: they sort in the order of calls, and every logger takes them."""

import re

from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.dropout.graph.layer_names import layer_name

PATHS = st.text(min_size=1, max_size=30)


@given(st.integers(1, 2000), st.data(), PATHS, PATHS)
def test_names_sort_as_their_calls_do(count, data, one, other):
    first, second = sorted(data.draw(st.lists(st.integers(0, count), min_size=2, max_size=2, unique=True)))
    assert layer_name(first, count + 1, one) < layer_name(second, count + 1, other)


@given(st.integers(0, 99), PATHS, st.integers(1, 3))
def test_names_are_letters_digits_and_underscores(index, path, number):
    assert re.fullmatch(r"\d\d_[A-Za-z0-9_]+", layer_name(index, 99, path, number))
    assert layer_name(3, 12, "features.3") == "03_features_3"
    assert layer_name(4, 12, "relu", 2) == "04_relu_call2"
    assert layer_name(7, 100, "fc") == "007_fc"
