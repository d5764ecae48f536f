"""What the tests of runs share."""

import pytest

from dropout_lab.runs import provenance as provenance_of
from dropout_lab.runs.folder import RunFolder
from dropout_lab.runs.provenance import provenance


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "sweep" / "0", config_hash="0123456789abcdef")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """What provenance takes for this package's repository: a folder without one, yet."""
    provenance.cache_clear()
    path = tmp_path / "code"
    path.mkdir()
    monkeypatch.setattr(provenance_of, "REPOSITORY", path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    yield path
    provenance.cache_clear()
