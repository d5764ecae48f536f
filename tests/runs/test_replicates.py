"""Laws of replicates: what tells runs of one row apart, and what its interval is over."""

import numpy as np
import pytest

from dropout_lab.runs.replicates import keys, replicate, replicate_words, units

NAN = float("nan")


def config(seed=0, replicates=("data.fold", "data.split"), **data):
    return {"seed": seed, "replicates": list(replicates), "data": {"split_seed": 0, "fold": 0, **data}}


def test_the_seed_is_always_a_replicate_and_what_is_listed_besides():
    assert keys({"seed": 0}) == ("seed",)
    assert keys(config(replicates=["seed", "data.split_seed"])) == ("seed", "data.split_seed")


def test_a_run_is_told_by_its_part_of_the_data_and_its_seed_whatever_keys_its_data_has_not():
    one = replicate(config(seed=3, fold=2))
    assert one == ((("data.fold", 2),), (("seed", 3),))
    assert str(one) == "fold 2, seed 3"
    assert replicate(config(seed=3, fold=1)) != one


def test_words_of_a_job_are_its_seed_and_those_about_its_replicate():
    words = ["dropout=none", "+data.fold=2", "seed=3", "data.folds=5"]
    assert replicate_words(config(), 3, words) == "seed=3 data.fold=2"


def test_seeds_on_one_part_of_the_data_are_units_each():
    found = units([config(seed) for seed in range(3)])
    assert (found.runs, found.overlap, found.noun, found.each) == (((0,), (1,), (2,)), 0.0, "seed", "")
    assert units([config(seed, split_seed=seed) for seed in range(3)]).each == "each with a split of its own"


@pytest.mark.parametrize(("key", "noun"), [("fold", "fold"), ("split", "split"), ("split_seed", "split")])
def test_seeds_are_averaged_within_a_part_of_the_data(key, noun):
    listed = ["data.fold", "data.split", "data.split_seed"]
    found = units([config(seed, listed, **{key: part}) for seed in (0, 1, 2) for part in (0, 1)])
    assert (found.runs, found.noun, found.each) == (((0, 2, 4), (1, 3, 5)), noun, "each the mean of its seeds")
    values = np.array([[1.0, 10, 2, 20, 3, NAN], [NAN, 1, NAN, 2, NAN, 3]])
    np.testing.assert_array_equal(found.means(values), [[2, 15], [NAN, 2]])


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_share_training_samples_and_splits_by_another_seed_are_not_known_to(folds):
    found = units([config(fold=fold, folds=folds) for fold in range(folds)])
    assert found.overlap == pytest.approx(1 / (folds - 1))
    assert found.each == "wider as they share training samples (Nadeau and Bengio 2003)"
    assert units([config(replicates=["data.split_seed"], split_seed=seed) for seed in range(folds)]).overlap == 0


def test_no_runs_have_no_units():
    assert units([]).means([]).tolist() == []
