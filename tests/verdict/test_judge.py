"""Verdicts on runs whose numbers the test chooses."""

import json

import numpy as np
import pytest
from fake_runs import LAYERS
from judged_runs import EQUAL, LESS, NOISE, sweep

from dropout_lab.cli import UserError
from dropout_lab.runs.read import read_runs
from dropout_lab.verdict import judge as verdict
from dropout_lab.verdict.statement import Claim


def judged(folder):
    runs = read_runs(folder)
    return verdict.judge(verdict.find_statement(runs), verdict.by_arm(runs), verdict.arms_not_whole(runs))


def words(folder):
    return [one.word for one in judged(folder)]


def test_a_difference_at_every_seed_holds(tmp_path):
    (one,) = judged(sweep(tmp_path, LESS, effect=-0.02))
    assert (one.word, one.seeds, one.p) == (verdict.HOLDS, 8, 2.0**-8)
    assert one.low < one.value < one.high < 0
    assert one.value == pytest.approx(-0.02 + 0.001 * np.mean(NOISE[:8]))


def test_the_opposite_does_not_hold(tmp_path):
    assert words(sweep(tmp_path, LESS, effect=0.02)) == [verdict.FAILS]


def test_a_difference_too_small_to_matter_does_not_hold(tmp_path):
    assert words(sweep(tmp_path, LESS, effect=0.0)) == [verdict.FAILS]


def test_noise_that_hides_what_would_matter_leaves_it_open(tmp_path):
    assert words(sweep(tmp_path, LESS, noise=0.05)) == [verdict.TOO_FEW]


def test_few_seeds_can_never_tell(tmp_path):
    assert words(sweep(tmp_path / "4", LESS, effect=-0.5, seeds=4)) == [verdict.TOO_FEW]  # 2^-4 > 0.05
    assert words(sweep(tmp_path / "5", LESS, effect=-0.5, seeds=5)) == [verdict.HOLDS]
    assert words(sweep(tmp_path / "two", LESS, LESS, effect=-0.5, seeds=5)) == [verdict.TOO_FEW] * 2  # 2 * 2^-5
    assert words(sweep(tmp_path / "against", LESS, LESS, effect=0.5, seeds=5)) == [verdict.TOO_FEW] * 2


@pytest.mark.slow
def test_equality_is_shown_refuted_or_open(tmp_path):
    assert words(sweep(tmp_path / "same", EQUAL, seeds=6)) == [verdict.HOLDS]
    assert words(sweep(tmp_path / "other", EQUAL, effect=0.05, seeds=6)) == [verdict.FAILS]
    assert words(sweep(tmp_path / "unclear", EQUAL, noise=0.03, seeds=6)) == [verdict.TOO_FEW]


def test_p_values_are_corrected_for_the_number_of_claims(tmp_path):
    opposite = LESS | {"direction": "greater"}
    first, second, _ = judged(sweep(tmp_path, LESS, LESS, opposite, effect=-0.02))
    assert (first.p, second.p) == (3 * 2.0**-8, 3 * 2.0**-8)


def test_seeds_are_paired(tmp_path):
    """The seeds differ by far more than the arms do; and a seed that one arm lacks is no pair."""
    sweep(tmp_path, LESS, effect=-0.004, noise=0.0001)
    (tmp_path / "a7" / "status.json").write_text('{"status": "failed"}')
    (one,) = judged(tmp_path)
    assert (one.word, one.seeds) == (verdict.HOLDS, 7)


def test_an_arm_is_itself_whatever_else_its_runs_are_called(tmp_path):
    (one,) = judged(sweep(tmp_path, LESS, effect=-0.02, words=" model=mlp"))
    assert (one.word, one.seeds) == (verdict.HOLDS, 8)


def test_of_an_arm_of_which_a_run_diverged_nothing_is_said_and_other_claims_stand(tmp_path):
    folder = sweep(tmp_path, LESS, LESS | {"contrast": {"a": -1}}, effect=-0.02)
    about = json.loads((folder / "b3" / "status.json").read_text())
    (folder / "b3" / "status.json").write_text(json.dumps(about | {"status": "diverged"}))
    one, other = judged(folder)
    assert (one.word, one.seeds, one.p) == (verdict.NOT_WHOLE, 7, 1.0)
    assert (other.word, other.seeds) == (verdict.HOLDS, 8)


def test_an_arm_without_runs_leaves_it_open(tmp_path):
    other = LESS | {"contrast": {"b": 1, "c": -1}}
    (one,) = judged(sweep(tmp_path, other))
    assert (one.word, one.seeds, one.measured) == (verdict.TOO_FEW, 0, "no seeds")


def test_a_claim_about_every_layer_needs_each_of_them(tmp_path):
    gain = {"says": "q", "metric": "dropout_gain_train/*", "contrast": {"a": 1}, "direction": "equal"}
    one_q = gain | {"theory": 0.5, "margin": 0.01}
    wrong_at_one = gain | {"theory": [0.5, 0.9, 0.5], "margin": 0.01}
    held, refuted = judged(sweep(tmp_path, one_q, wrong_at_one, kind="classic"))
    assert (held.word, refuted.word) == (verdict.HOLDS, verdict.FAILS)
    assert refuted.metric == f"dropout_gain_train/{LAYERS[1]}"
    assert refuted.claimed == "0.9 ± 0.01"


def test_values_for_another_number_of_layers_are_refused(tmp_path):
    claim = {"says": "q", "metric": "dropout_gain_eval/*", "contrast": {"a": 1}, "direction": "equal"}
    with pytest.raises(UserError, match="'q' states 2 values for the layers; these runs have 3"):
        judged(sweep(tmp_path, claim | {"theory": [1, 1], "margin": 1}, seeds=1))


def test_a_contrast_reads_as_a_formula():
    def formula(**arms):
        return verdict.formula(Claim(**(LESS | {"contrast": arms})))

    assert formula(a=1, b=-1) == "a - b"
    assert formula(a=-1, b=0.5, c=-0.25) == "0.5 b - a - 0.25 c"
