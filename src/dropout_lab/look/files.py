"""Files that a look leaves in a folder: its picture, and its numbers and words for the report."""

import json
from pathlib import Path

from dropout_lab.cli import interruptible
from dropout_lab.look.picture import draw
from dropout_lab.look.views import Look
from dropout_lab.look.words import record
from dropout_lab.runs.atomic import replacing, write_whole
from dropout_lab.runs.folder import LOOK, LOOK_PICTURE


def write(look: Look, folder: Path) -> None:
    """Write look.png and look.json, by which a report above the folder finds the look; a missing folder is made."""
    picture = draw(look)
    with interruptible(), replacing(folder / LOOK_PICTURE) as file:
        picture.savefig(file)
        write_whole(folder / LOOK, json.dumps(record(look), indent=1).encode())
