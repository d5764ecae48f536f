"""A long CSV file that is readable at every moment, also after the process that writes it was killed."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One number of one layer."""

    step: int
    epoch: int
    mode: str
    layer: str
    stat: str
    value: float


def append(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to the file, after a header if it is new, in one write; the file is closed afterwards.

    A last line that a killed process left unfinished is removed first.
    """
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.seek(0, 2)
        tail = file.seek(max(0, size - 4096)), file.read()
        file.truncate(tail[0] + tail[1].rfind(b"\n") + 1)
        header = "" if file.seek(0, 2) else ",".join(Row._fields) + "\n"
        file.write((header + text).encode())
