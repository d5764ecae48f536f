"""Laws of a configuration as runs write theirs: tables and names find the kinds of values that they rest on."""

import pytest

from dropout_lab.runs.folder import config_of
from dropout_lab.runs.written import as_written


def test_what_a_run_has_written_passes_as_it_is(trained_run):
    config = config_of(trained_run)
    assert as_written(config) is config
    assert as_written({}) == {}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"seed": [0]}, r"^seed: Input should be a valid integer, not \[0\]$"),
        ({"seed": "0"}, r"^seed: "),
        ({"run": 7}, r"^run: "),
        ({"run": {"dir": {}}}, r"^run\.dir: "),
        ({"run": {"choices": {"dropout": ["a"]}}}, r"^run\.choices\.dropout"),
        ({"run": {"overrides": [7]}}, r"^run\.overrides\.0: "),
        ({"callbacks": True}, r"^callbacks: "),
        ({"columns": ["acc"]}, r"^columns\.0: "),
        ({"columns": [{"key": None, "title": "accuracy"}]}, r"^columns\.0\.key: "),
        ({"dropout": {"mask": []}}, r"^dropout\.mask"),
        ({"start_from": {"a": "b"}}, r"^start_from: "),
    ],
)
def test_a_value_of_another_kind_is_named(config, said):
    with pytest.raises(ValueError, match=said):
        as_written(config)
