"""Laws of writing: a file is whole at any moment, the old one or the new one."""

import pytest
from small_disk import mounted

from dropout_lab.runs.folder import write_whole


def test_what_could_not_be_written_whole_leaves_the_old_file_and_no_part(tmp_path):
    with mounted(tmp_path / "small", "size=100k") as disk:
        write_whole(disk / "file", b"old")
        with pytest.raises(OSError, match="No space left"):
            write_whole(disk / "file", bytes(200_000))
        assert [path.name for path in disk.iterdir()] == ["file"]
        assert (disk / "file").read_bytes() == b"old"
