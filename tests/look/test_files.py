"""Laws of the files of a look: both or, at a full disk, those of before."""

import json

import pytest
from looks import subject
from PIL import Image
from small_disk import mounted

from dropout_lab.look.files import write
from dropout_lab.look.views import look_at
from dropout_lab.look.words import record


def test_the_picture_and_the_record_are_written_into_a_folder_that_is_made(tmp_path):
    look = look_at(subject(), 0.5)
    write(look, tmp_path / "new" / "look")
    assert {path.name for path in (tmp_path / "new" / "look").iterdir()} == {"look.json", "look.png"}
    assert json.loads((tmp_path / "new" / "look" / "look.json").read_text()) == json.loads(json.dumps(record(look)))
    with Image.open(tmp_path / "new" / "look" / "look.png") as picture:
        assert picture.format == "PNG"


def test_a_full_disk_keeps_the_look_that_was_there(tmp_path):
    look = look_at(subject(), 0.5)
    with mounted(tmp_path / "small", "size=100k") as disk:
        (disk / "look.png").write_bytes(b"old")
        (disk / "look.json").write_text("{}")
        with pytest.raises(OSError, match="No space left"):
            write(look, disk)
        assert {path.name: path.read_bytes() for path in disk.iterdir()} == {"look.png": b"old", "look.json": b"{}"}
