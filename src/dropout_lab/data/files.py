"""Getting a data set's files into their folder: checked, unpacked, downloaded where that is asked for.

torchvision knows where each file comes from and its MD5 sum, and shows the bar while it downloads. What is added here:
processes wait for each other, a file that is damaged is got again, and what cannot be had is one clear line.
"""

import fcntl
import functools
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path


@dataclass(frozen=True)
class Download:
    """One file on the internet.

    Args:
        path: where it is put.
        md5: its sum.
        urls: where it is, to be tried in this order.
        unpacked: the files that come out of it, with their sums where they are known; none: it is used as it is.
    """

    path: Path
    md5: str
    urls: tuple[str, ...]
    unpacked: tuple[tuple[Path, str | None], ...] = ()

    @property
    def needed(self) -> tuple[tuple[Path, str | None], ...]:
        """The files that are read, with their sums."""
        return self.unpacked or ((self.path, self.md5),)

    @property
    def folder(self) -> Path:
        """Where it is unpacked: beside it."""
        return self.path.parent


def make_ready(downloads: Sequence[Download], download: bool) -> None:
    """See to it that every needed file is there and whole.

    Args:
        downloads: what the data set consists of.
        download: get what is missing or damaged from the internet; an archive that is there is unpacked in any case.

    Raises:
        FileNotFoundError: a file is missing, and not to be downloaded, or cannot be.
        ValueError: a file is damaged, and not to be downloaded, or cannot be.
    """
    for item in downloads:
        if problem(item.needed) is None:
            continue
        packed = problem([(item.path, item.md5)])
        if packed is not None and not download:
            shown = packed if item.path.exists() and item.unpacked else problem(item.needed)
            raise _error(shown, "data.download=true gets it, or data.root=FOLDER names another place")
        try:
            with _alone(item.folder):
                if problem(item.needed) is not None:  # another process may have seen to it
                    _get(item)
        except (OSError, RuntimeError, EOFError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise _error(
                problem(item.needed) or str(item.path),
                f"and could not be downloaded from {item.urls[0]}: {reason}; put it there by other means, or "
                "data.root=FOLDER names another place",
                joint=" ",
            ) from error
        if (left := problem(item.needed)) is not None:
            raise _error(left, f"also after {item.path} was downloaded and unpacked; remove both")


def problem(files: Sequence[tuple[Path, str | None]]) -> str | None:
    """What is wrong with the first file that is not as it should be; None: all are."""
    for path, md5 in files:
        if not path.is_file():
            return f"{path} is missing"
        stat = path.stat()
        if md5 is None:
            if not _is_whole_idx(path):
                return f"{path} is damaged: its size is not what its header says"
        elif (found := _md5(path, stat.st_size, stat.st_mtime_ns)) != md5:
            return f"{path} is damaged: its MD5 sum is {found} and should be {md5}"
    return None


def _get(item: Download) -> None:
    """Download what is not there, unpack what is packed."""
    from torchvision.datasets.utils import extract_archive

    if problem([(item.path, item.md5)]) is not None:
        _download(item)
    if item.unpacked:
        extract_archive(str(item.path), str(item.folder))


def _download(item: Download) -> None:
    from torchvision.datasets.utils import download_url

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: a server that is silent would be waited for for ever
    try:
        for url in item.urls:
            try:
                return download_url(url, str(item.folder), item.path.name, item.md5)  # type: ignore[no-any-return]
            except (OSError, RuntimeError) as error:
                failure = error
        raise failure
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".download.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.lru_cache(maxsize=64)
def _md5(path: Path, size: int, changed: int) -> str:
    """Computed once as long as the file stays as it is."""
    from torchvision.datasets.utils import calculate_md5

    return calculate_md5(path)  # type: ignore[no-any-return]


def _is_whole_idx(path: Path) -> bool:
    """Whether a file of MNIST's format has as many bytes as its header says; their sums are known for archives only."""
    with path.open("rb") as file:
        head = file.read(16)
    if len(head) < 8 or head[:3] != b"\0\0\x08" or len(head) < 4 + 4 * head[3]:
        return False
    sizes = [int.from_bytes(head[4 * i : 4 * i + 4], "big") for i in range(1, head[3] + 1)]
    return path.stat().st_size == 4 + 4 * head[3] + prod(sizes)


def _error(what: str | None, how: str, joint: str = "; ") -> ValueError | FileNotFoundError:
    text = f"{what}{joint}{how}"
    return FileNotFoundError(text) if "is missing" in str(what) else ValueError(text)
