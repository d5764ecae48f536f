"""Which jobs a sweep has: every combination of swept keys, times the arms."""

import pytest
from hydra.errors import ConfigCompositionException

from hydra_plugins.dropout_lab_sweeper import ArmsSweeper

ARMS = {"matched": "dropout=classic optimizer.match=inverted", "plain": "dropout=classic"}


def jobs(settings, overrides):
    return ArmsSweeper(**settings).jobs(overrides)


def test_without_arms_the_jobs_are_the_combinations():
    swept = jobs({}, ["seed=0,1", "dropout=none,inverted", "threads=2"])
    assert sorted(swept) == sorted(
        [[f"seed={seed}", f"dropout={kind}", "threads=2"] for seed in (0, 1) for kind in ("none", "inverted")]
    )


def test_every_arm_meets_every_combination_and_is_named():
    swept = jobs({"arms": ARMS, "params": {"seed": "0,1"}}, [])
    assert swept == [
        ["dropout=classic", "optimizer.match=inverted", "arm=matched", "seed=0"],
        ["dropout=classic", "optimizer.match=inverted", "arm=matched", "seed=1"],
        ["dropout=classic", "arm=plain", "seed=0"],
        ["dropout=classic", "arm=plain", "seed=1"],
    ]


def test_the_command_line_replaces_default_params():
    swept = jobs({"arms": {}, "params": {"seed": "0,1"}}, ["seed=7"])
    assert swept == [["seed=7"]]


def test_a_key_that_all_arms_set_replaces_the_arms():
    swept = jobs({"arms": ARMS, "params": {}}, ["dropout=inverted,none"])
    assert swept == [["dropout=inverted"], ["dropout=none"]]


def test_a_key_that_some_arms_set_is_refused_with_their_names():
    with pytest.raises(ConfigCompositionException, match=r"optimizer\.match is set by matched of this sweep"):
        jobs({"arms": ARMS, "params": {}}, ["optimizer.match=inverted"])
