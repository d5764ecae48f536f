"""Laws of digests: they are of what a file holds now."""

import hashlib
import os

from dropout_lab.runs.digests import digest, digests


def test_a_digest_is_the_sha256_of_the_content_and_follows_it(tmp_path):
    file = tmp_path / "file"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(content[0], content[0]))  # writing both may take less than the clock's tick
        assert digest(file) == hashlib.sha256(content).hexdigest()


def test_files_are_named_by_their_paths_and_left_out_where_they_are_not(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(b"one")
    assert digests(tmp_path, [tmp_path / "in" / "file", tmp_path / "none"]) == {
        "in/file": hashlib.sha256(b"one").hexdigest()
    }
