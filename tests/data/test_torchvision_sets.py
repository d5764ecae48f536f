"""Laws of the data sets that torchvision reads: what it reads is trained on, and what is missing is one line."""

import pytest
import torch
import torchvision
from served_sets import NAMES, made
from tiny_sets import CLASSES, SIZES
from torchvision.transforms.functional import pil_to_tensor

from dropout_lab.cli import UserError
from dropout_lab.jobs.plan import plan
from dropout_lab.train.__main__ import main
from dropout_lab.train.preflight import refusals

# torchvision leaves the connection open on which it looked for redirects.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

OPTION = {"FashionMNIST": "fashion_mnist"}


def theirs(name, root, train):
    part = {"split": "train" if train else "test"} if name == "SVHN" else {"train": train}
    return [(pil_to_tensor(image), label) for image, label in getattr(torchvision.datasets, name)(str(root), **part)]


@pytest.mark.parametrize("value", ["perhaps", 1, None])
def test_download_is_a_switch(value):
    with pytest.raises(ValueError, match=f"^data.download={value}: must be true or false$"):
        made("MNIST", "nowhere", setup=False, download=value)


@pytest.mark.parametrize("name", NAMES)
def test_images_and_classes_are_torchvisions_item_by_item_in_the_official_parts(name, tiny):
    root = tiny(name)
    data = made(name, root)
    assert data.test.inputs.dtype == torch.uint8
    for image, label, (their_image, their_label) in zip(
        data.test.inputs, data.test.targets, theirs(name, root, train=False), strict=True
    ):
        assert torch.equal(image, their_image)
        assert label == their_label
    found = {
        image.numpy().tobytes(): int(label)
        for part in (data.train, data.val)
        for image, label in zip(*part, strict=True)
    }
    assert found == {image.numpy().tobytes(): label for image, label in theirs(name, root, train=True)}
    assert len(data.train.targets) + len(data.val.targets) == len(found) == SIZES[name][0]
    assert tuple(data.test.inputs.shape[1:]) == data.native_shape
    assert data.num_classes == CLASSES[name] == len(data.class_names)


def test_the_validation_part_has_equal_shares_and_follows_the_split_seed(tiny):
    root = tiny("CIFAR10")
    data, same, other = (made("CIFAR10", root, seed=seed, split_seed=split) for seed, split in ((0, 0), (1, 0), (0, 1)))
    assert torch.bincount(data.val.targets).sort().values.tolist() == [2] * 5 + [3] * 5
    assert torch.equal(data.val.inputs, same.val.inputs)
    assert not torch.equal(data.val.inputs, other.val.inputs)
    assert torch.equal(data.test.inputs, other.test.inputs)


def test_the_model_sees_what_torchvisions_transforms_give(tiny):
    data = made("CIFAR10", tiny("CIFAR10"))
    mean, std = data.mean.flatten().tolist(), data.std.flatten().tolist()
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.ToPILImage(),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(mean, std),
        ]
    )
    expected = torch.stack([transform(image) for image in data.test.inputs])
    assert torch.equal(data.prepare(data.test.inputs), expected)
    seen = data.prepare(data.train.inputs)
    assert seen.mean((0, 2, 3)).abs().max() < 1e-5
    assert (seen.std((0, 2, 3)) - 1).abs().max() < 1e-5


def test_a_sweep_reads_the_files_once_and_again_when_they_change(tiny, monkeypatch):
    root, reads = tiny("SVHN"), []
    original = torchvision.datasets.SVHN.__init__
    monkeypatch.setattr(
        torchvision.datasets.SVHN, "__init__", lambda self, *a, **k: reads.append(1) or original(self, *a, **k)
    )
    first, second = made("SVHN", root), made("SVHN", root)
    assert len(reads) == 2  # the parts
    assert torch.equal(first.train.inputs, second.train.inputs)
    (root / "train_32x32.mat").write_bytes(b"something else")
    with pytest.raises(ValueError, match="damaged"):
        made("SVHN", root, download=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_epoch_of_training_on_the_tiny_set(name, tiny, tmp_path, capsys):
    words = [f"data={OPTION.get(name, name.lower())}", f"data.root={tiny(name)}", "data.download=false"]
    words += ["data.batch_size=16", "data.val_fraction=0.25", "trainer=cpu", "trainer.max_epochs=1", "logger=none"]
    words += ["model=mlp", "model.widths=[8]", "callbacks=checkpoint", f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("root", ["here", "/nowhere"])
def test_the_command_says_it_before_anything_starts(root, tmp_path):
    with pytest.raises(UserError, match=r"cifar-10-batches-py/data_batch_1 is missing; data.download=true gets it"):
        refusals(plan(["data=cifar10", f"data.root={root}", "data.download=false"]).jobs)


def test_files_of_another_kind_are_refused(tiny, monkeypatch):
    root = tiny("CIFAR100")
    for name in ("base_folder", "train_list", "test_list", "meta"):
        monkeypatch.setattr(torchvision.datasets.CIFAR10, name, getattr(torchvision.datasets.CIFAR100, name))
    with pytest.raises(ValueError, match=r"do not hold images of shape .* labels below 10"):
        made("CIFAR10", root)
