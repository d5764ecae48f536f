"""Files of a data set, put into their folder by torchvision: downloaded, unpacked, their MD5 sums compared.

Added to torchvision's own: processes wait for each other, a damaged file is got again, what is there is not asked for,
a silent server is given up, and what cannot be had is one line that names the file and the remedy.
"""

import fcntl
import functools
import socket
from pathlib import Path
from typing import NamedTuple


class Download(NamedTuple):
    """A file on the internet, and the files that are read once it is here.

    Args:
        path: where it is put; an archive is unpacked beside it.
        md5: its sum.
        urls: where it is, to be tried in this order.
        needed: itself, or what is unpacked from it, each with its sum; None: MNIST's format, which says its size.
    """

    path: Path
    md5: str
    urls: tuple[str, ...]
    needed: tuple[tuple[Path, str | None], ...]


def make_ready(item: Download, download: bool) -> None:
    """See to it that every needed file is there and whole.

    Args:
        item: what is needed, and where it is to be had.
        download: get what is missing or damaged from the internet; an archive that is there is unpacked in any case.

    Raises:
        FileNotFoundError: a file is missing, and not to be downloaded, or cannot be.
        ValueError: a file is damaged, and not to be downloaded, or cannot be.
    """
    wrong = _problem(item.needed)
    if wrong is None:
        return
    if not download and (packed := _problem(((item.path, item.md5),))) is not None:
        wrong = packed if item.path.exists() else wrong
        raise type(wrong)(f"{wrong}; data.download=true gets it, or data.root=FOLDER names another place")
    try:
        item.path.parent.mkdir(parents=True, exist_ok=True)
        with (item.path.parent / ".download.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process of this machine at a time
            if _problem(item.needed) is not None:  # another one may have seen to it
                _get(item)
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        wrong = _problem(item.needed) or ValueError(item.path)
        raise type(wrong)(
            f"{wrong} and could not be downloaded from {item.urls[0]}: {reason}; put it there by other means, or "
            "data.root=FOLDER names another place"
        ) from error
    if (wrong := _problem(item.needed)) is not None:
        raise type(wrong)(f"{wrong}; also after {item.path} was downloaded and unpacked; remove both")


def _get(item: Download) -> None:
    """Download a file that is not there whole, unpack one that is an archive."""
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    get = download_url if item.path == item.needed[0][0] else download_and_extract_archive
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: a server that is silent would be waited for for ever
    try:
        for url in item.urls:
            try:
                return get(url, str(item.path.parent), filename=item.path.name, md5=item.md5)  # type: ignore[no-any-return]
            except (OSError, RuntimeError) as error:
                failure = error
        raise failure
    finally:
        socket.setdefaulttimeout(before)


def _problem(files: tuple[tuple[Path, str | None], ...]) -> FileNotFoundError | ValueError | None:
    """The error that tells of the first file that is missing or damaged; None: all are as they should be."""
    for path, md5 in files:
        if not path.is_file():
            return FileNotFoundError(f"{path} is missing")
        stat = path.stat()
        if damage := _damage(path, md5, stat.st_size, stat.st_mtime_ns):
            return ValueError(f"{path} is damaged: {damage}")
    return None


@functools.lru_cache(maxsize=64)
def _damage(path: Path, md5: str | None, size: int, changed: int) -> str | None:
    """What tells that a file is damaged, or None; found out once as long as the file stays as it is."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor
    from torchvision.datasets.utils import calculate_md5

    if md5 is None:
        try:
            read_sn3_pascalvincent_tensor(str(path))
        except (AssertionError, ValueError, KeyError, RuntimeError):
            return "its size is not what its header says"
    elif (found := calculate_md5(path)) != md5:
        return f"its MD5 sum is {found} and should be {md5}"
    return None
