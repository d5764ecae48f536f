"""W&B's offline files: their records, and what they lack that ``metrics.csv`` has.

On a full disk W&B drops rows without a word and looks finished, and a kill costs it the last 15 seconds, of which a run
that is resumed logs only those again that it computes again; the CSV file is the record of truth. A ``run-*.wandb``
file is a LevelDB log of protobuf records: a header of 7 bytes, then blocks of 32 KiB, in which each piece of a record
has a header of 7 bytes (checksum, length, place in the record). W&B brings the records' classes, but no reader for
Python.
"""

import csv
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from glob import escape
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dropout_lab.runs.folder import METRICS, config_of, read_status

_MAGIC, _BLOCK, _HEADER = b":W&B", 32768, 7
_FULL, _FIRST, _LAST = 1, 2, 4
Row = tuple[str, frozenset[str]]  # step and metrics


def warn_of_losses(root: Path) -> None:
    """Say on stderr which runs of a sweep (or the one run) ended well and have offline files that are not complete."""
    folders = [folder for folder in (root, *root.glob("*/")) if read_status(folder)["status"] == "ok"]
    if lines := disagreements(sorted(folders)):
        print("\nwarning: W&B's offline files lack what metrics.csv has:", file=sys.stderr)
        print("".join(f"  {line}\n" for line in lines), file=sys.stderr)


def disagreements(folders: Iterable[Path]) -> list[str]:
    """A line for each run whose offline files lack rows of its ``metrics.csv``, or its ending; none where all is well.

    The files of a run that was resumed count together, and what a kill cost them is told from what the disk did. Runs
    without offline files (online, or without W&B) are not looked at.

    Args:
        folders: of runs that ended well.
    """
    lines = [_lacks(folder, *logged) for folder in folders if (logged := _logged_as(folder))]
    return [line for line in lines if line]


def records(path: Path) -> Iterator[Any]:
    """The records (``wandb_internal_pb2.Record``) of a ``.wandb`` file, up to one that was not written whole.

    Raises:
        ValueError: it is no such file, or is damaged.
    """
    from wandb.proto import wandb_internal_pb2 as pb

    for content, _ in _whole(path):
        record = pb.Record()  # type: ignore[attr-defined]
        record.ParseFromString(content)
        yield record


def mend(place: str, name: str) -> None:
    """Leave nothing but whole records in the offline files of a run that was killed, and no file without one.

    ``wandb sync`` would stop there, and leave out what the run logs when it is resumed.

    Args:
        place: the ``save_dir`` of the run's logger.
        name: its id.
    """
    for path in _files(place, name, "offline-"):
        try:
            end = max((end for _, end in _whole(path)), default=0)
        except ValueError:  # damaged in another way: for a person to look at
            continue
        if end == 0:
            path.unlink()
        elif end < path.stat().st_size:
            os.truncate(path, end)


def _whole(path: Path) -> Iterator[tuple[bytes, int]]:
    """The records of a ``.wandb`` file that were written whole, each with the place in the file where it ends."""
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
            yield collected, position


def _files(place: str, name: str, kind: str = "*") -> list[Path]:
    """The files that W&B keeps of a run in ``place/wandb``, one for each of its starts, in order of time.

    That of a start which the server refused has ``-offline`` behind its id. ``kind="offline-"``: of starts without a
    server alone.
    """
    found = Path(place).glob(f"wandb/{kind}run-*-{escape(name)}*/run-*.wandb")
    own = [path for path in found if path.stem in (f"run-{name}", f"run-{name}-offline")]
    return sorted(own, key=lambda path: path.parent.name.removeprefix("offline-"))


def _logged_as(folder: Path) -> tuple[str, str] | None:
    """Where a run's W&B logger writes, its ``save_dir``, and the run's id there; None where it had none."""
    try:
        config = config_of(folder)
        loggers = config["logger"].values()
        place = next(str(one["save_dir"]) for one in loggers if str(one["_target_"]).endswith(".Wandb"))
        return place, str(config["run"]["id"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def _lacks(folder: Path, place: str, name: str) -> str | None:
    """What the offline files of a run lack, in a line; None: nothing, or there are none, or nothing to compare with."""
    files = _files(place, name)
    if not any(path.parent.name.startswith("offline-") for path in files):
        return None
    try:
        rows = _rows(folder / METRICS)
    except (OSError, ValueError, KeyError):
        return None
    kept: set[Row] = set()
    try:
        for path in files:
            last, ended = set(), False
            for record in records(path):
                last.add(_row(record.history))
                ended |= record.HasField("exit")
            kept |= last
    except (OSError, ValueError) as error:
        return f"{folder}: {error}"
    lost = [number for number, row in enumerate(rows) if row not in kept]
    resumed = next((number for number, row in enumerate(rows) if row in last), 0)  # the first row of the last start
    killed = sum(number < resumed for number in lost)
    words = [f"W&B has {len(rows) - len(lost)} of {len(rows)} rows"] if lost else []
    if killed:
        words.append(f"{killed} were lost when the run was killed")
    if not ended and not lost:
        words.append("W&B does not know that it has ended")
    if not ended or len(lost) > killed:
        words.append("was the disk full?")
    return f"{folder}: {'; '.join(words)}" if words else None


def _rows(path: Path) -> list[Row]:
    """The rows of ``metrics.csv`` that have a step."""
    with path.open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["step"]]
    return [(row.pop("step"), frozenset(key for key, value in row.items() if key and value)) for row in table]


def _row(history: Any) -> Row:
    """Step and metrics of a row at W&B, without the clocks that it adds."""
    values = {item.key or ".".join(item.nested_key): item.value_json for item in history.item}
    return values.pop("trainer/global_step", ""), frozenset(key for key in values if not key.startswith("_"))
