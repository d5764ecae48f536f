"""Laws of the replay: the steps of a run happen again, each time the same, and leave its folder as it was."""

import pytest

from dropout_lab.cli import UserError
from dropout_lab.diff.replay import replay
from dropout_lab.runs.folder import read_config

KINDS = ["weights", "samples", "images", "classes", "mask", "output", "loss", "gradient"]


@pytest.fixture(scope="module")
def two(trained_run):
    """What happens in two steps."""
    return replay(read_config(trained_run), 2)


def test_all_that_goes_into_a_step_and_comes_out_of_it_is_recorded_in_order(two):
    assert [event.step for event in two] == sorted(event.step for event in two)
    for step in (0, 1):
        kinds = list(dict.fromkeys(event.what for event in two if event.step == step))
        assert sorted(kinds) == sorted(KINDS)
        assert kinds[:4] == KINDS[:4]
        assert kinds[-2:] == KINDS[-2:]
    layers = {event.where for event in two if event.what == "mask"}
    assert layers == {"03_blocks_0_dropout", "07_blocks_1_dropout", "11_dropout"}


def test_a_second_replay_is_the_same_and_more_steps_begin_with_the_fewer(two, trained_run):
    before = {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")}
    one = replay(read_config(trained_run), 1)
    assert one == two[: len(one)]
    assert {event.step for event in one} == {0}
    assert {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")} == before


def test_another_rate_is_other_masks_of_the_same_input(two, trained_run):
    config = read_config(trained_run)
    config.dropout.p = config.placement.p = 0.6
    pairs = zip(two, replay(config, 1), strict=False)
    first, second = next((first, second) for first, second in pairs if first != second)
    assert (first.what, first.where) == (second.what, second.where) == ("mask", "03_blocks_0_dropout")


def test_what_can_not_be_trained_again_is_one_line(trained_run):
    config = read_config(trained_run)
    config.model.widths = [8, 8, 8, 8, 8]
    with pytest.raises(UserError, match=r"it cannot be trained again: ") as error:
        replay(config, 1)
    assert "\n" not in str(error.value)
