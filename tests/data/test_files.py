"""Laws of the files of a data set: got when missing or damaged, read when they are there, told in one line when not."""

import socket
import threading
from pathlib import Path

import pytest
import torchvision
from served_sets import NAMES, files_of, made, one_line, serve
from tiny_sets import write

# torchvision leaves the connection open on which it looked for redirects.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


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
