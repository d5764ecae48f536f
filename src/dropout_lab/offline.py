"""W&B's offline files: their records, and what they lack that ``metrics.csv`` has.

On a full disk W&B drops rows without a word and looks finished, and a kill costs it the last 15 seconds; the CSV file
is the record of truth. A ``run-*.wandb`` file is a LevelDB log of protobuf records: a header of 7 bytes, then blocks of
32 KiB, in which each piece of a record has a header of 7 bytes (checksum, length, place in the record).
"""

import csv
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dropout_lab.run_folder import read_status

_MAGIC, _BLOCK, _HEADER = b":W&B", 32768, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def warn_of_losses(root: Path) -> None:
    """Say on stderr which runs of a sweep (or the one run) ended well and have offline files that are not complete."""
    folders = [folder for folder in (root, *root.glob("*/")) if read_status(folder)["status"] == "ok"]
    if lines := disagreements(sorted(folders)):
        print("\nwarning: W&B's files lack what metrics.csv has; was the disk full?", file=sys.stderr)
        print("".join(f"  {line}\n" for line in lines), file=sys.stderr)


def disagreements(folders: Iterable[Path]) -> list[str]:
    """A line for each run whose offline files lack rows of its ``metrics.csv``, or its ending; none where all is well.

    Runs without offline files (online, or without W&B) are not looked at.

    Args:
        folders: of runs that ended well.
    """
    files: dict[str, dict[str, list[Path]]] = {}  # where the loggers write -> id -> a file for each start of the run
    lines = []
    for folder in folders:
        name, place = _logged_as(folder)
        if place not in files:
            files[place] = _by_id(place)
        if own := files[place].get(name):
            lines.append(_lacks(folder, own))
    return [line for line in lines if line]


def records(path: Path) -> Iterator[Any]:
    """The records (``wandb_internal_pb2.Record``) of a ``.wandb`` file; one that was not written whole ends it.

    Raises:
        ValueError: it is no such file, or is damaged.
    """
    from wandb.proto import wandb_internal_pb2 as pb

    data = path.read_bytes()
    if data and not data.startswith(_MAGIC):
        raise ValueError(f"{path}: not a .wandb file")
    position, collected = _HEADER, b""
    while True:
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:  # the end of a block is padded
            position += left
        if position + _HEADER > len(data):
            return
        checksum, length, place = struct.unpack_from("<IHB", data, position)
        piece = data[position + _HEADER : position + _HEADER + length]
        if len(piece) < length or place == 0:
            return
        if zlib.crc32(piece, zlib.crc32(bytes([place]))) != checksum:
            raise ValueError(f"{path}: wrong checksum at byte {position}")
        position += _HEADER + length
        collected = piece if place in (_FULL, _FIRST) else collected + piece
        if place in (_FULL, _LAST):
            record = pb.Record()  # type: ignore[attr-defined]
            record.ParseFromString(collected)
            yield record


def _logged_as(folder: Path) -> tuple[str, str]:
    """A run's id at W&B and the ``save_dir`` of its logger; "" where it had none."""
    try:
        text = (folder / "config.yaml").read_text()
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # in C it is 10 times as fast
        loggers = config["logger"].values()
        place = next(str(one["save_dir"]) for one in loggers if str(one["_target_"]).endswith(".Wandb"))
        return str(config["run"]["id"]), place
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration):
        return "", ""


def _by_id(place: str) -> dict[str, list[Path]]:
    """The offline files in ``place/wandb``; that of a run which the server refused has ``-offline`` behind its id."""
    files: dict[str, list[Path]] = {}
    for path in sorted(Path(place).glob("wandb/offline-run-*/run-*.wandb")) if place else ():
        files.setdefault(path.stem.removeprefix("run-").removesuffix("-offline"), []).append(path)
    return files


def _lacks(folder: Path, files: list[Path]) -> str | None:
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            rows = sum(bool(row["epoch"]) for row in csv.DictReader(file))
    except (OSError, KeyError):
        return None  # there is nothing to compare with
    kept, ended = 0, False
    try:
        for path in files:
            ended = False
            for record in records(path):
                kept += any(_key(item) == "epoch" for item in record.history.item)
                ended |= record.HasField("exit")
    except (OSError, ValueError) as error:
        return f"{folder}: {error}"
    if kept < rows:
        return f"{folder}: W&B has {kept} of {rows} rows"
    return None if ended else f"{folder}: W&B does not know that it has ended"


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
