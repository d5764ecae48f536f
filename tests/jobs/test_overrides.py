"""Laws of the words of a command line: which only ask, how values are quoted, what is said of a wrong one."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.cli import UserError
from dropout_lab.jobs.overrides import EXTRAS, flat, needs_extra, no_such_part, only_asks, options_last, quoted

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
KEYS = st.text("abc", min_size=1, max_size=3)
LEAVES = st.sampled_from([0, None, "a.b", [1, 2], {}])
INNER = st.dictionaries(KEYS, LEAVES, min_size=1, max_size=3)
NESTED = st.dictionaries(
    KEYS, st.one_of(LEAVES, INNER, st.dictionaries(KEYS, INNER, min_size=1, max_size=2)), max_size=4
)


@pytest.mark.parametrize(
    "words", ["--help", "--cfg job", "seed=1 --info defaults -m", "-sc install=bash", "--hydra-help"]
)
def test_a_question_runs_nothing(words):
    assert only_asks(words.split())


@pytest.mark.parametrize("words", ["", "seed=1", "-m seed=0,1", "seed=1 -m dropout=none"])
def test_a_job_is_no_question(words):
    assert not only_asks(words.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--config-dir elsewhere", r"--config-dir: is no option here; .*hydra\.searchpath"),
        ("--config-name other", "--config-name: is no option here"),
        ("--shell-completion", "--shell-completion: add install=SHELL or uninstall=SHELL"),
        ("-sc install=tcsh", "where SHELL is bash, fish or zsh"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(words, said):
    with pytest.raises(UserError, match=said):
        only_asks(words.split())


def test_options_come_last_and_overrides_keep_their_order():
    assert options_last(["seed=1", "-m", "b=2", "a=3"]) == ["seed=1", "b=2", "a=3", "-m"]


@given(WORDS)
def test_a_quoted_value_is_read_as_it_was(text):
    (override,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
    assert override.value() == text


def nested(leaves):
    """What ``flat`` was given."""
    whole = {}
    for key, value in leaves.items():
        *parents, last = key.split(".")
        at = whole
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return whole


@given(NESTED)
def test_a_flat_configuration_has_all_of_the_nested_one(config):
    leaves = flat(config)
    assert nested(leaves) == config
    assert not any(isinstance(value, dict) and value for value in leaves.values())


def test_what_an_extra_brings_is_said_with_the_command_that_installs_it():
    for name, extra in EXTRAS.items():
        assert needs_extra(f"hydra/x={name}", name).endswith(f"[{extra}]'")


def test_settings_of_a_part_that_is_not_there_are_told_with_both_ways_out():
    said = no_such_part("callbacks", "lr_monitor")
    assert said.startswith("callbacks.lr_monitor has settings, but there is no such callback; ")
    assert "'callbacks=[default,lr_monitor]'" in said
    assert "'~callbacks.lr_monitor'" in said
