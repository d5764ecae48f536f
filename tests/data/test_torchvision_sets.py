"""Laws of the data sets that torchvision reads: what it reads is trained on, and what is missing is one line."""

import gc
import http.server
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torchvision
from tiny_sets import CLASSES, SIZES, accept, write
from torchvision.transforms.functional import pil_to_tensor

from dropout_lab import data as sets
from dropout_lab.cli import UserError
from dropout_lab.jobs.plan import plan
from dropout_lab.train.__main__ import main
from dropout_lab.train.preflight import refusals

# torchvision leaves the connection open on which it looked for redirects.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

NAMES = tuple(CLASSES)
OPTION = {"FashionMNIST": "fashion_mnist"}


def made(name, root, setup=True, **options):
    data = getattr(sets, name)(**{"batch_size": 8, "seed": 0, "val_fraction": 0.25, "root": str(root), **options})
    if setup:
        data.setup()
    return data


def theirs(name, root, train):
    part = {"split": "train" if train else "test"} if name == "SVHN" else {"train": train}
    return [(pil_to_tensor(image), label) for image, label in getattr(torchvision.datasets, name)(str(root), **part)]


@pytest.fixture(scope="module", autouse=True)
def connections_are_closed_here():
    """Close connections here, not in a later file's test, which takes the warning for its own."""
    yield
    gc.collect()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    def tiny(name):
        write(name, tmp_path)
        accept(name, tmp_path, monkeypatch)
        return tmp_path

    return tiny


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of the files of tmp_path/served; ``.asked`` are the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "served")

        def do_GET(self):
            asked.append(self.path)
            with suppress(BrokenPipeError):  # torchvision looks for redirects first and hangs up
                super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.asked, server.url = asked, f"http://127.0.0.1:{server.server_port}/"
        yield server
        server.shutdown()
        thread.join()


def serve(name, server, tmp_path, monkeypatch):
    """Let torchvision find a tiny set on the server."""
    folder = write(name, tmp_path / "served")
    accept(name, tmp_path / "served", monkeypatch)
    kind, url = getattr(torchvision.datasets, name), server.url
    if name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(kind, "mirrors", [f"{url}not_here/", f"{url}{name}/raw/"])
    elif name == "SVHN":
        monkeypatch.setattr(
            kind, "split_list", {part: [url + file, file, md5] for part, (_, file, md5) in kind.split_list.items()}
        )
    else:
        monkeypatch.setattr(kind, "url", url + kind.filename)
    return folder


def files_of(data):
    return [path for item in data.downloads() for path, _ in item.needed]


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


@pytest.mark.parametrize("value", ["perhaps", 1, None])
def test_download_is_a_switch(value):
    with pytest.raises(ValueError, match=f"^data.download={value}: must be true or false$"):
        made("MNIST", "nowhere", setup=False, download=value)


# What is read.


@pytest.mark.parametrize("name", NAMES)
def test_images_and_classes_are_torchvisions_item_by_item_in_the_official_parts(name, tiny):
    root = tiny(name)
    data = made(name, root)
    assert data.test.images.dtype == torch.uint8
    for image, label, (their_image, their_label) in zip(
        data.test.images, data.test.classes, theirs(name, root, train=False), strict=True
    ):
        assert torch.equal(image, their_image)
        assert label == their_label
    found = {
        image.numpy().tobytes(): int(label)
        for part in (data.train, data.val)
        for image, label in zip(*part, strict=True)
    }
    assert found == {image.numpy().tobytes(): label for image, label in theirs(name, root, train=True)}
    assert len(data.train.classes) + len(data.val.classes) == len(found) == SIZES[name][0]
    assert tuple(data.test.images.shape[1:]) == data.native_shape
    assert data.num_classes == CLASSES[name] == len(data.class_names)


def test_the_validation_part_has_equal_shares_and_follows_the_split_seed(tiny):
    root = tiny("CIFAR10")
    data, same, other = (made("CIFAR10", root, seed=seed, split_seed=split) for seed, split in ((0, 0), (1, 0), (0, 1)))
    assert (
        torch.bincount(data.val.classes).tolist() in ([2] * 5 + [3] * 5, [3] * 5 + [2] * 5)
        or len(data.val.classes) == 25
    )
    assert torch.equal(data.val.images, same.val.images)
    assert not torch.equal(data.val.images, other.val.images)
    assert torch.equal(data.test.images, other.test.images)


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
    expected = torch.stack([transform(image) for image in data.test.images])
    assert torch.equal(data.prepare(data.test.images), expected)
    seen = data.prepare(data.train.images)
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
    assert torch.equal(first.train.images, second.train.images)
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


# What is missing, damaged, or not to be had.


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_that_are_not_to_be_downloaded_are_one_line(name, tmp_path):
    data = made(name, tmp_path, setup=False, download=False)
    with pytest.raises(FileNotFoundError) as error:
        data.setup()
    one_line(error, f"{files_of(data)[0]} is missing; data.download=true gets it, or data.root=FOLDER names another")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "SVHN"])
def test_files_with_another_sum_are_one_line_with_torchvisions_own_sums(name, tmp_path):
    write(name, tmp_path)
    data = made(name, tmp_path, setup=False, download=False)
    with pytest.raises(ValueError, match=r"MD5 sum is .* and should be") as error:
        data.setup()
    one_line(error, "is damaged", tmp_path, "data.download=true gets it")


@pytest.mark.parametrize("damage", ["shorter", "empty", "foreign"])
def test_a_damaged_idx_file_is_one_line(damage, tiny):
    root = tiny("MNIST")
    for path in (root / "MNIST/raw").glob("*.gz"):
        path.unlink()
    path = root / "MNIST/raw/train-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes({"shorter": content[:-1], "empty": b"", "foreign": b"<html>" * 100}[damage])
    with pytest.raises(ValueError, match="its size is not what its header says") as error:
        made("MNIST", root, download=False)
    one_line(error, path, "data.download=true gets it")


@pytest.mark.parametrize("name", NAMES)
def test_no_network_is_one_line(name, tmp_path, monkeypatch):
    from urllib.error import URLError

    def unreachable(*args, **kwargs):
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    data = made(name, tmp_path, setup=False)
    with pytest.raises(FileNotFoundError) as error:
        data.setup()
    one_line(
        error, f"{files_of(data)[0]} is missing and could not be downloaded from http", "name resolution", "data.root"
    )


def test_damaged_and_no_network_is_one_line(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    write("CIFAR10", tmp_path)
    with pytest.raises(ValueError, match=r"is damaged: .* and could not be downloaded .*no route to host") as error:
        made("CIFAR10", tmp_path)
    one_line(error)


def test_a_silent_server_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    limits = []

    def silent(*args, **kwargs):
        limits.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib.request.urlopen", silent)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded from http.*: timed out"):
        made("MNIST", tmp_path)
    assert len(limits) == len(torchvision.datasets.MNIST.mirrors)
    assert all(0 < limit <= 60 for limit in limits)
    assert socket.getdefaulttimeout() is None


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError) as error:
        made("MNIST", tmp_path / "file" / "below")
    one_line(error, "is missing and could not be downloaded", "Not a directory")


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


# Download.


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_downloaded(name, server, tmp_path, monkeypatch, capsys):
    served = serve(name, server, tmp_path, monkeypatch)
    data = made(name, tmp_path / "new")
    assert all(path.read_bytes() == (served / path.name).read_bytes() for path in files_of(data))
    assert "100%" in capsys.readouterr().err  # torchvision's bar
    before = len(server.asked)
    made(name, tmp_path / "new")
    assert len(server.asked) == before


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN"])
def test_a_damaged_file_is_downloaded_again(name, server, tmp_path, monkeypatch):
    served = serve(name, server, tmp_path, monkeypatch)
    data = made(name, tmp_path / "new")
    for item in data.downloads():
        for path in {item.path, *(path for path, _ in item.needed)}:
            path.write_bytes(path.read_bytes()[:-5])
    again = made(name, tmp_path / "new")
    assert all(path.read_bytes() == (served / path.name).read_bytes() for path in files_of(again))


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_an_archive_that_is_there_is_unpacked_without_a_network(name, tiny, monkeypatch):
    root = tiny(name)
    files = files_of(made(name, root, setup=False))
    for path in files:
        path.unlink()
    monkeypatch.setattr("urllib.request.urlopen", None)
    made(name, root, download=False)
    assert all(path.is_file() for path in files)


@pytest.mark.slow
def test_processes_that_start_together_download_once(server, tmp_path, monkeypatch):
    serve("SVHN", server, tmp_path, monkeypatch)
    failed = []

    def start():
        try:
            made("SVHN", tmp_path / "new")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len([path for path in server.asked if "train" in path]) <= 2  # torchvision asks once for redirects
    assert Path(tmp_path / "new" / "train_32x32.mat").is_file()
