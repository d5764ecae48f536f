"""Laws of writing: a file is whole at any moment, the old one or the new one."""

import pytest
from small_disk import mounted

from dropout_lab.runs.atomic import replacing, write_whole


def test_what_could_not_be_written_whole_leaves_the_old_file_and_no_part(tmp_path):
    with mounted(tmp_path / "small", "size=100k") as disk:
        write_whole(disk / "file", b"old")
        with pytest.raises(OSError, match="No space left"):
            write_whole(disk / "file", bytes(200_000))
        assert [path.name for path in disk.iterdir()] == ["file"]
        assert (disk / "file").read_bytes() == b"old"


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_ends_the_writing_leaves_the_old_file_alone(tmp_path, end):
    write_whole(tmp_path / "file", b"old")

    def interrupted():
        with replacing(tmp_path / "file") as file:
            file.write(b"half of the new")
            raise end

    with pytest.raises(end):
        interrupted()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_until_it_is_whole_the_old_file_is_what_is_read(tmp_path):
    path = tmp_path / "new folder" / "file"
    with replacing(path) as file:
        file.write(b"first")
        assert not path.exists()
    with replacing(path) as file:
        file.write(b"second")
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]
