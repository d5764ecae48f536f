"""Laws of texts: contiguous parts, in evaluation each character once, in training windows that follow from a place."""

import hashlib
from pydoc_data.topics import topics

import pytest
import torch

from dropout_lab.data import Text
from dropout_lab.data.base import Place

TEXT = "".join(chr(97 + n % 26) + chr(65 + n // 26 % 26) for n in range(500))  # each pair of characters is a place


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return str(path)


def made(file, **options):
    data = Text(**{"file": file, "batch_size": 4, "seed": 0, "context": 8, "val_fraction": 0.2, **options})
    data.setup()
    return data


def read(data, codes):
    return "".join(data.characters[code] for code in codes.flatten().tolist())


def test_parts_are_contiguous_and_the_last_one_is_the_test_part(file):
    data = made(file, test_fraction=0.3)
    ends = {"train": (0, 560), "val": (560, 700), "test": (700, 1000)}
    for part, (start, end) in ends.items():
        samples = getattr(data, part)
        x, y = data.measured_batch(samples.inputs, samples.targets)
        text = TEXT[start:end]
        if part == "train":
            text = text[: len(x) * 8 + 1]
        assert read(data, x) == text[: len(x) * 8]
        assert read(data, y) == text[1 : len(x) * 8 + 1]
        assert len(text) - len(x) * 8 <= 8  # of a part less than a window is left out


def test_the_vocabulary_is_the_characters_in_order(file):
    data = made(file)
    assert list(data.characters) == sorted(set(TEXT))
    assert (data.num_classes, data.shape, data.of_tokens) == (len(set(TEXT)), (8,), True)
    assert data.digest == hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.mark.parametrize(("seed", "epoch", "batch"), [(0, 0, 0), (1, 0, 0), (0, 7, 2)])
def test_a_window_in_training_is_of_its_stretch_and_depends_on_its_place_alone(file, seed, epoch, batch):
    data = made(file, seed=seed)
    index = torch.arange(8)
    inputs, targets = data.train.inputs[index], data.train.targets[index]
    x, y = data.training_batch(inputs, targets, Place(epoch, batch, 0))
    assert x.shape == y.shape == (8, 8)
    for row in range(8):
        text = read(data, inputs[row]) + data.characters[targets[row, -1]]
        start = text.index(read(data, x[row]))
        assert 0 <= start < 8
        assert read(data, y[row]) == text[start + 1 : start + 9]
    for first in (0, 3, 5):  # as other processes have them
        part = slice(first, first + 3)
        assert torch.equal(data.training_batch(inputs[part], targets[part], Place(epoch, batch, first))[0], x[part])


def test_every_alignment_is_as_likely(file):
    data = made(file)
    stretch = data.train.inputs[:1].expand(400, -1)
    x, _ = data.training_batch(stretch, stretch, Place(0, 0, 0))
    counts = torch.bincount(torch.tensor([TEXT.index(read(data, row)) for row in x]), minlength=8)
    assert counts.min() > 25
    assert len(counts) == 8


def test_a_smaller_training_set_is_the_beginning_of_a_larger_one(file):
    small, large = made(file, train_size=100), made(file)
    assert torch.equal(small.train.inputs, large.train.inputs[: len(small.train.inputs)])
    assert read(small, small.train.inputs[:, :8]) in TEXT[:100]
    assert torch.equal(small.val.inputs, large.val.inputs)


def test_one_batch_is_the_same_windows_at_every_step(file):
    data = made(file, one_batch=True)
    assert len(data.train.targets) == 4
    x, y = data.example(4, training=True)
    assert read(data, x) == TEXT[:32]
    assert read(data, y) == TEXT[1:33]


def test_the_text_that_every_python_brings_is_the_default():
    data = made(None)
    text = "\n".join(topics[name] for name in sorted(topics))
    assert data.digest == hashlib.sha256(text.encode()).hexdigest()
    assert len(data.train.inputs) > 20_000


def test_a_text_of_many_characters_and_with_a_byte_order_mark_is_read(tmp_path):
    text = "".join(chr(200 + n % 700) for n in range(2000))
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = made(str(tmp_path / "text"))
    assert data.num_classes == 700
    assert read(data, data.train.inputs[:1, :8]) == text[:8]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 0}, "data.context=0: must be an integer >= 1"),
        ({"test_fraction": 1.0}, "data.test_fraction=1.0: must be a number with 0 < test_fraction < 1"),
        ({"train_size": 8}, "data.train_size=8: must be an integer >= 9, or null"),
        ({"train_size": 900}, "data.train_size=900: must be at most 720, or null for all"),
        ({"label_noise": 0.1}, "data.label_noise=0.1: must be 0: a text has no labels"),
        ({"folds": 2}, "data.folds=2: must be null: Text says itself"),
        ({"context": 150}, "the validation part has 180 characters|the test part has 100 characters, too few"),
    ],
)
def test_what_it_can_not_be_is_one_line(file, options, said):
    with pytest.raises(ValueError, match=said):
        made(file, **options)


def test_a_file_that_is_no_text_or_is_not_there_is_one_line(tmp_path):
    (tmp_path / "bytes").write_bytes(b"abc\xff" * 100)
    with pytest.raises(ValueError, match=r"bytes: must be a text in UTF-8, and is not at byte 3"):
        made(str(tmp_path / "bytes"))
    with pytest.raises(FileNotFoundError, match=r"data.file=.*none: there is no such file"):
        made(str(tmp_path / "none"))
