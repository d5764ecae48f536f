"""Laws of tables as data: standardised by the training part, split as asked for, numbers or classes to be predicted."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes

from dropout_lab.data import Tabular

PARTS = ("train", "val", "test")


def made(**options):
    data = Tabular(**{"batch_size": 8, "seed": 0, **options})
    data.setup()
    return data


@pytest.fixture
def file(tmp_path):
    """50 samples: a feature that is their number, a constant one, one of large numbers; the target is number % 3."""
    number = np.arange(50.0)
    columns = [number, np.full(50, 0.1), 1e6 + number % 7, number % 3]
    np.savetxt(tmp_path / "data.csv", np.stack(columns, 1), delimiter=",")
    return str(tmp_path / "data.csv")


def numbers(samples):
    """The numbers of samples of the file, whose median is 24.5."""
    return (samples.inputs[:, 0] + 24.5).tolist()


def test_the_default_is_scikit_learns_diabetes_in_three_parts():
    data, (x, y) = made(), load_diabetes(return_X_y=True)
    samples = data.load()
    assert data.shape == (10,)
    assert (data.num_classes, data.num_targets) == (None, 1)
    assert torch.equal(samples.inputs, torch.tensor(x - np.median(x, axis=0), dtype=torch.float32))
    assert torch.equal(samples.targets, torch.tensor(y, dtype=torch.float32)[:, None])
    assert [len(getattr(data, part).targets) for part in PARTS] == [243, 66, 133]


def test_features_are_standardised_by_the_training_part_alone_a_constant_one_to_0(file):
    data = made(file=file)
    seen = data.prepare(data.train.inputs)
    assert torch.allclose(seen.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(seen.std(0), torch.tensor([1.0, 0, 1]), atol=1e-4)
    others = data.prepare(data.test.inputs)
    assert abs(others.mean(0)).max() > 0.01
    assert torch.equal(others[:, 1], torch.zeros(len(others)))


def test_the_targets_stay_as_they_are_and_their_moments_are_known(file):
    data = made(file=file)
    assert torch.equal(data.train.targets[:, 0], torch.tensor(numbers(data.train)) % 3)
    assert data.target_mean == data.train.targets.double().mean().float()
    assert data.target_std.item() == pytest.approx(data.train.targets.std().item())


def test_a_column_of_integers_may_be_classes_with_equal_shares_in_every_part(file):
    data = made(file=file, num_classes=3, label_noise=0.0)
    assert data.train.targets.dtype == torch.int64
    assert torch.equal(data.test.targets, torch.tensor(numbers(data.test)).long() % 3)
    counts = torch.bincount(data.test.targets)
    assert counts.max() - counts.min() <= 1


def test_given_files_say_which_samples_are_the_test_part_and_which_are_not(file, tmp_path):
    for split in (0, 1):
        np.savetxt(tmp_path / f"test_{split}.txt", np.arange(split, 50, 5))
        np.savetxt(tmp_path / f"train_{split}.txt", np.arange(2, 42, 5))
    test, train = str(tmp_path / "test_*.txt"), str(tmp_path / "train_*.txt")
    for split in (0, 1):
        data = made(file=file, test_index=test, split=split, val_fraction=0.25)
        assert numbers(data.test) == list(range(split, 50, 5))
        assert (len(data.train.targets), len(data.val.targets)) == (30, 10)
        rest = sorted([*numbers(data.train), *numbers(data.val)])
        assert rest == [number for number in range(50) if number % 5 != split]
    data = made(file=file, test_index=test, train_index=train, batch_size=2)
    rest = sorted([*numbers(data.train), *numbers(data.val)])
    assert rest == list(range(2, 42, 5))


def test_a_sample_in_both_given_parts_is_refused(file, tmp_path):
    (tmp_path / "test.txt").write_text("1 2")
    (tmp_path / "train.txt").write_text("2 3")
    with pytest.raises(ValueError, match=r"^data.train_index=.*train.txt: sample 2 is in data.test_index, too"):
        made(file=file, test_index=str(tmp_path / "test.txt"), train_index=str(tmp_path / "train.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "data.num_classes=1: must be an integer >= 2, or null"),
        ({"num_classes": 3, "target": "0"}, "the classes of Tabular are numbered 0 to 49, but num_classes=3"),
        ({"num_classes": 3, "target": "1"}, "data.num_classes=3: needs one target, of integers; null: numbers"),
        ({"train_index": "some"}, "data.train_index=some: must be null without data.test_index"),
        ({"split": 1}, r'data.split=1: must be 0 without "\*" in data.test_index'),
        ({"split": -1}, "data.split=-1: must be an integer >= 0"),
        ({"test_index": "some", "folds": 3}, "data.folds=3: must be null with data.test_index"),
        ({"features": "0"}, "data.features=0: must be a list of columns, or null"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(file, options, message):
    with pytest.raises(ValueError, match=message):
        made(file=file, **options)


def test_columns_are_for_files():
    with pytest.raises(ValueError, match=r"^data.target, data.features: are for data.file=FILE"):
        made(target="age")
