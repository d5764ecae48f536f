"""A file that holds more than weights is told as just that."""

import os
import pickle
import re
import subprocess

import pytest
import torch

from dropout_lab.models.weights import why_unread


class Runs:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


MORE = {
    "posix.system": Runs(os.system, "true"),
    "Popen": Runs(subprocess.Popen, "true"),
    "eval": Runs(eval, "1"),
    f"{__name__}.Runs": Runs,  # a class without any such thing
}


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_holds_more_than_weights_is_told_as_that(name, zipped, tmp_path):
    torch.save({"state_dict": {}, "more": MORE[name]}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError) as error:
        torch.load(tmp_path / "a.ckpt", weights_only=True)
    told = why_unread(error.value)
    assert re.fullmatch(rf"it holds more than weights \(([a-z]+\.)?{name}\); only weights are read.*", told)
    assert "weights_only" not in told


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut off", bytes(100), pickle.dumps([1])[:-1]])
def test_a_file_that_is_none_is_not_told_as_one_that_holds_more(content, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(Exception) as error:  # noqa: PT011  # torch raises errors of any kind
        torch.load(tmp_path / "a.ckpt", weights_only=True)
    told = why_unread(error.value)
    assert told
    assert "more than" not in told
    assert "weights_only" not in told
