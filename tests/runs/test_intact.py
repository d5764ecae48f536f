"""Laws of files as a run left them: what changed is told once, or refused where numbers would silently be others."""

import json
import os
import zipfile
from contextlib import suppress

import pytest
import torch

from dropout_lab.cli import UserError
from dropout_lab.runs import intact
from dropout_lab.runs.folder import RunFolder
from dropout_lab.runs.intact import changes, require_whole, warn_of_edits

NAMES = ("config.yaml", "metrics.csv", "activations.csv")


@pytest.fixture
def ended(tmp_path):
    """A run that has ended well."""
    intact._warn.cache_clear()
    folder = RunFolder(tmp_path / "run", "0123456789abcdef")
    with folder.recording():
        folder.write_config({"seed": 0})
        (folder.path / "metrics.csv").write_text("epoch,step\n0,1\n")
        (folder.path / "checkpoints").mkdir()
        torch.save({"state_dict": {"net.weight": torch.arange(1000.0)}}, folder.path / "checkpoints" / "best.ckpt")
    return folder.path


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 2
    file.write_bytes(content)
    os.utime(file, ns=(at, at))  # within a tick of the clock it is another file, too


def of_status(folder, **values):
    about = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(about | values))


def test_a_run_as_it_was_left_is_whole(ended, caplog):
    assert changes(ended, *NAMES) is None
    warn_of_edits(ended, *NAMES)
    require_whole(ended / "checkpoints" / "best.ckpt")
    assert caplog.text == ""


def test_what_changed_is_told_once_and_that_alone_which_is_read(ended, caplog):
    (ended / "config.yaml").write_text("seed: 1\n")
    (ended / "metrics.csv").unlink()
    for _ in range(2):
        warn_of_edits(ended, "config.yaml")
    assert [record.getMessage() for record in caplog.records] == [f"{ended}: config.yaml changed since the run ended"]
    assert changes(ended, *NAMES) == "config.yaml and metrics.csv changed since the run ended"


def test_a_run_that_goes_on_has_no_checksums_until_it_has_ended(ended):
    (ended / "metrics.csv").write_text("epoch,step\n")
    with suppress(KeyboardInterrupt), RunFolder(ended, "").recording():
        assert changes(ended, *NAMES) is None
        raise KeyboardInterrupt
    assert changes(ended, *NAMES) is None


def test_a_checkpoint_that_differs_in_any_byte_is_refused(ended):
    file = ended / "checkpoints" / "best.ckpt"
    for at in range(0, file.stat().st_size, 97):
        before = file.read_bytes()
        flip(file, at)
        with pytest.raises(UserError, match=r"best\.ckpt is not as its run left it: its SHA-256"):
            require_whole(file)
        file.write_bytes(before)


def test_without_a_checksum_its_own_sums_tell_of_every_weight(ended):
    of_status(ended, status="interrupted", sha256=None)
    file = ended / "checkpoints" / "best.ckpt"
    require_whole(file)
    with zipfile.ZipFile(file) as members:
        weights = max(members.infolist(), key=lambda member: member.file_size)
    before = file.read_bytes()
    for at in range(weights.header_offset + 200, weights.header_offset + 4000, 399):
        flip(file, at)
        with pytest.raises(UserError, match=r"damaged or cut off: .* does not have its checksum"):
            require_whole(file)
        file.write_bytes(before)
    file.write_bytes(before[:-500])
    with pytest.raises(UserError, match=r"damaged or cut off: File is not a zip file; take another one, ckpt=NAME"):
        require_whole(file)


@pytest.mark.parametrize(
    "status", [b'{"status": "ok", "sha256": {', b'{"status": 7}', b'{"status": "ok", "sha256": 7}']
)
def test_where_the_checksums_are_damaged_that_is_told(ended, status, caplog):
    (ended / "status.json").write_bytes(status)
    warn_of_edits(ended, *NAMES)
    require_whole(ended / "checkpoints" / "best.ckpt")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{ended}: status.json cannot be read (")


def test_a_run_without_a_status_is_read_all_the_same(ended, caplog):
    (ended / "status.json").unlink()
    warn_of_edits(ended, *NAMES)
    require_whole(ended / "checkpoints" / "best.ckpt")
    assert caplog.text == ""
