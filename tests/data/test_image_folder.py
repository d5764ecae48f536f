"""Laws of images streamed from folders: which part is which, order, workers, resuming, and what cannot be read."""

import importlib
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import run_folders
import torch
from commands import Command, exit_code, working_in
from PIL import Image
from tiny_sets import write_folder
from torchvision.datasets import ImageFolder as Theirs
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize
from waiting import wait_until

from dropout_lab.data import ImageFolder

PARTS = {"train": {"bird": 14, "cat": 10}, "test": {"bird": 4, "cat": 5}}


def made(root, setup=True, **options):
    data = ImageFolder(**{"batch_size": 4, "seed": 0, "val_fraction": 0.25, "root": str(root), **options})
    if setup:
        data.setup()
    return data


def keys(samples):
    """Names for images by their pixels."""
    return {
        image.numpy().tobytes(): int(label) for image, label in zip(samples.inputs[:], samples.targets, strict=True)
    }


def theirs(root, part):
    return {pil_to_tensor(image).numpy().tobytes(): label for image, label in Theirs(root / part)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"), PARTS)


def test_images_and_classes_are_torchvisions(root):
    data = made(root)
    assert keys(data.test) == theirs(root, "test")
    assert keys(data.train) | keys(data.val) == theirs(root, "train")
    assert (len(data.train.targets), len(data.val.targets)) == (18, 6)
    assert data.shape == (3, 12, 12)
    assert data.num_classes == 2
    assert data.class_names == ["bird", "cat"]


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        ("num_workers", [-1, 1.5, "many", None, True], "an integer >= 0"),
        ("num_classes", [0, 1, 2.5, "many", True], "an integer >= 2, or null"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_a_folder_is_looked_at(key, values, allowed):
    for value in values:
        with pytest.raises(ValueError, match=f"^data.{key}={value}: must be {allowed}$"):
            made("nowhere", setup=False, **{key: value})


def test_test_images_come_in_torchvisions_order(root):
    data = made(root)
    seen = torch.cat([images for images, _ in data.test_dataloader()])
    assert torch.equal(seen, torch.stack([pil_to_tensor(image) for image, _ in Theirs(root / "test")]))


def test_val_is_the_validation_part_beside_test_and_the_test_part_without(tmp_path):
    write_folder(tmp_path / "a", {**PARTS, "val": {"bird": 3, "cat": 2}})
    data = made(tmp_path / "a")
    assert keys(data.val) == theirs(tmp_path / "a", "val")
    assert keys(data.test) == theirs(tmp_path / "a", "test")
    assert keys(data.train) == theirs(tmp_path / "a", "train")
    write_folder(tmp_path / "b", {"train": PARTS["train"], "val": PARTS["test"]})
    data = made(tmp_path / "b")
    assert keys(data.test) == theirs(tmp_path / "b", "val")
    assert len(data.train.targets) == 18


def test_every_class_is_in_train_eval_also_where_the_validation_part_is_given(tmp_path):
    classes = [f"class{number}" for number in range(5)]
    sizes = {"train": 20, "val": 5, "test": 5}
    write_folder(tmp_path, {part: dict.fromkeys(classes, size) for part, size in sizes.items()})
    data, again, other = (made(tmp_path, split_seed=seed) for seed in (0, 0, 1))
    assert (data.train_eval.targets.bincount(minlength=5) > 0).all()
    assert len(data.train_eval.targets) == 25
    assert keys(data.train_eval) == keys(again.train_eval) != keys(other.train_eval)


def test_every_channel_of_the_training_part_is_standardised(root):
    data = made(root)
    seen = data.prepare(data.train.inputs[:])
    assert seen.mean((0, 2, 3)).abs().max() < 1e-5
    assert (seen.std((0, 2, 3)) - 1).abs().max() < 1e-5


def test_the_shorter_side_is_resized_and_the_middle_kept(tmp_path):
    write_folder(tmp_path, PARTS, size=(30, 20))
    data = made(tmp_path, image_size=10)
    assert data.shape == (3, 10, 10)
    for image, (picture, _) in zip(data.test.inputs[:], Theirs(tmp_path / "test"), strict=True):
        assert torch.equal(image, pil_to_tensor(center_crop(resize(picture, 10), 10)))


def test_square_images_are_resized_as_torchvision_does(root):
    data = made(root, image_size=7)
    expected = torch.stack([pil_to_tensor(resize(image, 7)) for image, _ in Theirs(root / "test")])
    assert torch.equal(data.test.inputs[:], expected)
    assert torch.equal(data.test.inputs[2:4], expected[2:4])
    assert torch.equal(data.test.inputs[torch.tensor([5, 0])], expected[[5, 0]])
    assert torch.equal(data.test.inputs[3], expected[3])


def test_the_model_chooses_the_size_that_was_left_open(root):
    data = made(root, setup=False)
    data.suit(3, 8)
    data.setup()
    assert data.shape == (3, 8, 8)
    assert data.train.inputs[:2].shape == (2, 3, 8, 8)


def test_no_file_is_needed_to_know_the_shape_where_the_configuration_says_it():
    data = made("nowhere", setup=False, image_size=9, num_classes=4)
    assert (data.shape, data.num_classes) == ((3, 9, 9), 4)


# Order.


def epoch(data, number=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return loader, [(images.clone(), classes.clone()) for images, classes in loader]


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a, b) for first, second in zip(one, two, strict=True) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_any_number_of_workers_gives_the_batches_of_none(workers, root):
    plain, read_ahead = made(root), made(root, num_workers=workers)
    loader, batches = epoch(read_ahead, 3)
    assert same(batches, epoch(plain, 3)[1])
    loader.sampler.set_epoch(4)  # the same processes go on
    assert same(list(loader), epoch(plain, 4)[1])
    for ours, others in zip(read_ahead.val_dataloader(), plain.val_dataloader(), strict=True):
        assert same(list(ours), list(others))


@pytest.mark.slow
def test_workers_are_no_forks_of_this_process(root):
    """Workers are no forks of a process with threads, whose locks they keep: one of gloo's was waited for for ever."""
    batches = iter(made(root, num_workers=1).test_dataloader())
    next(batches)
    (worker,) = batches._workers
    parent = int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent != os.getpid()


@pytest.mark.slow
def test_a_killed_run_leaves_none_of_its_readers(root, tmp_path):
    running = Command(*words(root, tmp_path, "trainer.max_epochs=10000"), folder=tmp_path)
    deadline = time.monotonic() + 120
    wait_until((tmp_path / "metrics.csv").exists, deadline)
    assert (tmp_path / "metrics.csv").exists(), running.stderr
    assert len(working_in(tmp_path)) > 3  # the command, readers, and the server that they are forks of
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -9
    wait_until(lambda: not working_in(tmp_path), deadline)
    assert working_in(tmp_path) == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.slow
def test_an_interrupted_epoch_goes_on_at_the_next_batch(given, workers, root):
    data = made(root, num_workers=workers)
    _, whole = epoch(data, 1)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    for _ in range(given):
        next(iterator)
    state = loader.state_dict()
    del iterator, loader
    resumed = data.train_dataloader()
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(1)
    assert same(list(resumed), whole[given:])


# What cannot be had.


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_folder_is_one_line(part, tmp_path):
    write_folder(tmp_path, {name: classes for name, classes in PARTS.items() if name != part})
    with pytest.raises(FileNotFoundError) as error:
        made(tmp_path)
    one_line(error, f"{tmp_path / part} is missing: data.root=FOLDER names a folder with train/CLASS/IMAGE")


def test_sizes_that_differ_are_refused_unless_a_size_is_given(tmp_path):
    write_folder(tmp_path, PARTS)
    odd = tmp_path / "test" / "cat" / "000.png"
    Image.new("RGB", (5, 6)).save(odd)
    with pytest.raises(ValueError, match=r"data\.image_size=null") as error:
        made(tmp_path)
    one_line(error, f"{odd} has 5x6 pixels, others 12x12; give data.image_size=PIXELS")
    assert made(tmp_path, image_size=12).shape == (3, 12, 12)


def test_classes_that_differ_are_refused(tmp_path):
    write_folder(tmp_path, {"train": {"bird": 14, "cat": 10}, "test": {"bird": 4, "dog": 5}})
    with pytest.raises(ValueError, match=r"/test: its classes must be") as error:
        made(tmp_path)
    one_line(error, f"those of {tmp_path}/train, but it has no cat, and {tmp_path}/train has no dog")
    with pytest.raises(ValueError, match=r"^data.num_classes=3: .*/train has 2 classes \(bird, cat\); null: they are"):
        made(tmp_path, num_classes=3)


@pytest.mark.parametrize("options", [{}, {"num_classes": 2, "image_size": 12}])
def test_folders_one_level_too_deep_are_no_classes(options, tmp_path):
    write_folder(tmp_path, {f"{part}/images": classes for part, classes in PARTS.items()})
    with pytest.raises(ValueError, match="has one class folder, images; two or more are needed") as error:
        made(tmp_path, **options)
    train = tmp_path / "train"
    one_line(error, f"{train}/CLASS/IMAGE: if bird, cat are the classes, move them one level up, into {train}")


@pytest.mark.parametrize(
    ("name", "found"), [("only/000.png", "one class folder, only"), ("000.png", "no class folders")]
)
def test_one_class_or_none_is_refused(name, found, tmp_path):
    write_folder(tmp_path, {"test": PARTS["test"], "train": {}})
    (tmp_path / "train" / name).parent.mkdir(parents=True)
    Image.new("RGB", (12, 12)).save(tmp_path / "train" / name)
    with pytest.raises(ValueError, match=rf"/train has {found}; two or more are needed, .*/train/CLASS/IMAGE$"):
        made(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("others", [[], [".DS_Store", "labels.txt", "raw.npy"]])
def test_a_class_without_images_is_refused_by_its_folder(part, others, tmp_path):
    write_folder(tmp_path, PARTS)
    folder = tmp_path / part / "alpaca"
    folder.mkdir()
    for name in others:
        (folder / name).touch()
    (tmp_path / ("test" if part == "train" else "train") / "alpaca").symlink_to(tmp_path / "train" / "bird")
    with pytest.raises(FileNotFoundError) as error:
        made(tmp_path)
    one_line(error, f"{folder} has no images{', but 2 other files' if others else ''}: remove it, or put some there")


def test_a_class_that_cannot_be_in_both_parts_is_refused_by_its_folder(tmp_path):
    write_folder(tmp_path, {**PARTS, "train": {"bird": 14, "cat": 1}})
    with pytest.raises(ValueError, match=r"^data.val_fraction=0.25: ") as error:
        made(tmp_path)
    one_line(
        error, f"{tmp_path}/train/cat has 1 of 15 samples, too few for one in each of two parts; give it at least 2"
    )
    write_folder(tmp_path, {"val": PARTS["test"]})
    assert len(made(tmp_path).train.targets) == 15


def test_links_and_folders_within_a_class_are_followed_once_and_hidden_files_are_left_out(tmp_path):
    write_folder(tmp_path, PARTS)
    before, cat = theirs(tmp_path, "train"), tmp_path / "train" / "cat"
    (cat / "self").symlink_to(cat)
    (tmp_path / "away").mkdir()
    (cat / "001.png").rename(tmp_path / "away" / "001.PNG")
    (cat / "more").symlink_to(tmp_path / "away")
    (cat / "._000.png").write_text("what macOS adds")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    data = made(tmp_path)
    assert len(data.train.targets) + len(data.val.targets) == 24
    assert keys(data.train) | keys(data.val) == before


def test_sizes_are_compared_as_images_are_seen(tmp_path):
    write_folder(tmp_path, PARTS, size=(20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("train/bird/000.png", "test/cat/000.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / name, exif=exif)
    data = made(tmp_path)
    assert data.shape == (3, 20, 10)
    assert data.test.inputs[:].shape == (9, 3, 20, 10)
    Image.new("RGB", (10, 20)).save(tmp_path / "test/cat/001.png", exif=exif)
    with pytest.raises(ValueError, match=r"test/cat/001.png has 20x10 pixels, others 10x20"):
        made(tmp_path)


def test_files_that_no_image_bears_the_name_of_are_left_out(tmp_path):
    write_folder(tmp_path, PARTS)
    for name in (".DS_Store", "Labels.txt", "bird/.DS_Store", "bird/000.txt"):
        (tmp_path / "train" / name).write_text("no image")
    data = made(tmp_path)
    assert data.shape == (3, 12, 12)
    assert keys(data.train) | keys(data.val) == theirs(tmp_path, "train")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "workers"), [(None, 0), (12, 2)])
def test_a_file_that_is_no_image_when_its_turn_comes_is_one_line(size, workers, tmp_path):
    data = made(write_folder(tmp_path, PARTS), image_size=size, num_workers=workers)
    path = tmp_path / "test" / "cat" / "001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        list(data.test_dataloader())
    assert str(error.value) == f"{path} cannot be read as an image: it is damaged or cut off; replace or remove it"


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("size", [None, 12])
def test_a_damaged_file_of_any_part_is_found_before_training(size, part, tmp_path):
    write_folder(tmp_path, {**PARTS, "val": PARTS["test"]})
    path = tmp_path / part / "cat" / "001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        made(tmp_path, image_size=size)
    assert str(error.value) == f"{path} cannot be read as an image: it is damaged or cut off; replace or remove it"


# A whole run, streamed by two workers, augmented, with wrong labels.


def words(root, folder, *more):
    return [
        *("data=image_folder", f"data.root={root}", "data.num_workers=2", "data.batch_size=4", "data.val_fraction=0.3"),
        *("data.augment=crop_flip", "data.label_noise=0.2", "model=mlp", "model.widths=[8]", "trainer.max_epochs=3"),
        *("logger=csv", "callbacks=checkpoint", "+callbacks.recent.every_n_train_steps=1", "trainer=cpu"),
        *("callbacks.recent.train_time_interval=null", f"hydra.run.dir={folder}", *more),
    ]


@pytest.mark.slow
def test_every_command_says_in_one_line_that_a_run_s_images_are_gone(tmp_path, capsys):
    images = write_folder(tmp_path / "images", PARTS)
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        assert exit_code(*words(images, run, f"seed={seed}", "trainer.max_epochs=1", "data.num_workers=0")) == 0
    images.rename(tmp_path / "moved")
    capsys.readouterr()
    for module, *given in (
        ("evaluate", f"run={runs[0]}"),
        ("fold", f"run={runs[0]}", f"out={tmp_path / 'weights.pt'}"),
        ("look.__main__", f"run={runs[0]}"),
        ("diff.__main__", *map(str, runs)),
    ):
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"dropout_lab.{module}").main(given)
        said = capsys.readouterr().err.strip()
        assert (ended.value.code, said.count("\n")) == (2, 0), said
        assert said.startswith(f"error: {runs[0]}: ")
        assert str(images) in said
    assert not (tmp_path / "weights.pt").exists()


@pytest.mark.slow
def test_a_streamed_run_that_was_interrupted_ends_as_the_whole_one(root, tmp_path, monkeypatch, capsys):
    from dropout_lab.modules.classification import Classifier

    assert exit_code(*words(root, tmp_path / "whole")) == 0, capsys.readouterr().err
    original, calls = Classifier.training_step, []

    def stopping(self, batch, number):
        calls.append(1)
        if len(calls) == 7:  # the third batch of the second epoch
            raise RuntimeError("stop")
        return original(self, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stopping)
        assert exit_code(*words(root, tmp_path / "run")) == 1
    assert exit_code(*words(root, tmp_path / "run")) == 0
    assert run_folders.same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_train_on_a_streamed_set_as_one(root, tmp_path, capsys):
    for name, more in (("one", []), ("two", ["trainer=ddp_cpu", "data.num_workers=1"])):
        assert exit_code(*words(root, tmp_path / name, *more)) == 0, capsys.readouterr().err
    one, two = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    for key in ("train/loss", "val/loss", "train_eval/loss", "test/loss"):
        assert one[key].dropna().tolist() == pytest.approx(two[key].dropna().tolist(), rel=1e-5)
