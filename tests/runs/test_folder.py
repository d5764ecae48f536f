"""Laws of the run folder: what it says is right at every moment, however the run ends."""

import hashlib
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from small_disk import fill, mounted, read_only

from dropout_lab.cli import UserError
from dropout_lab.modules.divergence import DivergenceError
from dropout_lab.runs import folder as folders
from dropout_lab.runs.folder import RunFolder, read_config, read_status, require_writable, why_unnamed

KEYS = {"status", "error", "traceback", "git_sha", "git_diff", "code_hash"}
KEYS |= {"versions", "command", "seconds", "config_hash"}


def test_a_run_is_running_until_it_is_ok(folder):
    assert read_status(folder.path) == {"status": "missing"}
    with folder.recording():
        during = read_status(folder.path)
        assert during["status"] == "running"
    after = read_status(folder.path)
    assert after["status"] == "ok"
    assert set(during) >= KEYS
    assert set(during) == set(after)
    assert after["error"] is after["traceback"] is None
    assert after["config_hash"] == "0123456789abcdef"


def test_seconds_count_from_the_start(folder):
    folder._start -= 100
    with folder.recording():
        pass
    assert 100 <= read_status(folder.path)["seconds"] < 110


def test_an_exception_is_a_failure_and_is_passed_on(folder):
    with pytest.raises(ZeroDivisionError), folder.recording():
        _ = 1 / 0
    status = read_status(folder.path)
    assert (status["status"], status["error"]) == ("failed", "ZeroDivisionError: division by zero")
    assert "1 / 0" in status["traceback"]
    assert set(status) >= KEYS


def test_a_loss_that_is_no_number_is_no_failure_of_code(folder):
    with pytest.raises(DivergenceError), folder.recording():
        raise DivergenceError("train/loss is nan at step 7")
    status = read_status(folder.path)
    assert [status[key] for key in ("status", "error", "traceback")] == [
        "diverged",
        "train/loss is nan at step 7",
        None,
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_status_is_json_whatever_the_result(folder, value):
    with folder.recording():
        folder.objective = value
    text = (folder.path / "status.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["objective"] is None


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_and_sigterm_are_interruptions_and_are_passed_on(folder, end):
    with pytest.raises(end), folder.recording():
        raise end
    status = read_status(folder.path)
    assert (status["status"], status["error"]) == ("interrupted", end.__name__)


def test_a_run_started_again_is_running_again(folder):
    with pytest.raises(ValueError, match="first"), folder.recording():
        raise ValueError("first")
    with folder.recording():
        assert read_status(folder.path)["status"] == "running"
        assert read_status(folder.path)["error"] is None
    assert read_status(folder.path)["status"] == "ok"


def test_after_a_kill_the_folder_can_be_read(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from dropout_lab.runs.folder import RunFolder
folder = RunFolder(Path({str(tmp_path)!r}), "hash")
with folder.recording():
    folder.write_config({{"seed": 3}})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_status(tmp_path)["status"] == "running"
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"seed": 3}


def test_files_are_written_beside_and_then_put_in_their_place(folder, monkeypatch):
    """So a kill at any moment leaves the old file or the new one."""
    folder.write_config({"seed": 1})
    seen, replace = [], Path.replace

    def looks(new, old):
        seen.append((old.name, old.exists() and old.read_text(), new.read_text()))
        return replace(new, old)

    monkeypatch.setattr(Path, "replace", looks)
    folder.write_config({"seed": 2})
    with folder.recording():
        pass
    assert seen[0] == ("config.yaml", "seed: 1\n", "seed: 2\n")
    assert [name for name, *_ in seen[1:]] == ["status.json", "status.json"]
    assert [json.loads(new)["status"] for *_, new in seen[1:]] == ["running", "ok"]
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", "status.json"}


def test_a_full_disk_has_room_for_how_the_run_ended(tmp_path, repository):
    with mounted(tmp_path / "small", "size=100k") as disk:
        folder = RunFolder(disk / "0", "hash")
        with pytest.raises(OSError, match="No space left"), folder.recording():
            (fill(disk).parent / "more").write_text("x")
        status = read_status(disk / "0")
    assert (status["status"], status["error"]) == ("failed", "OSError: [Errno 28] No space left on device")
    assert set(status) >= KEYS


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_where_the_end_cannot_be_written_it_stays_what_it_was(end, tmp_path, repository):
    with mounted(tmp_path / "small", "size=100k") as disk:
        folder = RunFolder(disk / "0", "hash")

        def ends():
            with folder.recording():
                read_only(disk)
                raise end

        with pytest.raises(end):
            ends()
        assert read_status(disk / "0")["status"] == "running"
        with pytest.raises(OSError, match="Read-only"), folder.recording():
            pass


def test_other_code_than_a_run_was_begun_with_is_told_and_kept(folder, monkeypatch, caplog):
    codes = []
    for code in ("a", "b", "b", "c"):
        monkeypatch.setattr(folders, "provenance", lambda code=code: {"code_hash": code})
        again = RunFolder(folder.path, "hash")
        again.go_on()
        with again.recording():
            pass
        status = read_status(folder.path)
        codes.append((status["code_hash"], status.get("earlier_code_hashes", [])))
    assert codes == [("a", []), ("b", ["a"]), ("b", ["a"]), ("c", ["a", "b"])]
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        *("code_hash was a, now b", "code_hash was b, now c")
    ]


@pytest.mark.parametrize("folder", ["there", "there/0", "new/0"])
def test_a_folder_that_can_be_written_is_not_made_yet(tmp_path, folder):
    (tmp_path / "there").mkdir()
    require_writable(tmp_path / folder)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: nothing can be written there: .*file: Not a directory"):
        require_writable(tmp_path / "file" / "run")
    with pytest.raises(UserError, match=r"/proc: No such file or directory"):
        require_writable(Path("/proc/run"))
    with (
        mounted(tmp_path / "disk", "size=100k,ro") as disk,
        pytest.raises(UserError, match=r"disk: Read-only file system"),
    ):
        require_writable(disk / "run")
    with mounted(tmp_path / "full", "size=40k") as disk, pytest.raises(UserError, match=r"full: No space left"):
        require_writable(disk / "run")


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", '{"status": "runn', "[]", "null", "[" * 5000, "{}", '{"status": null}', '{"status": ["ok"]}'),
        *('{"status": "ok", "versions": "2"}', '{"status": "ok", "error": {}}', '{"status": "ok", "sha256": []}'),
    ],
)
def test_a_status_that_cannot_be_read_is_missing(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) == {"status": "missing"}


def test_the_status_of_what_has_ended_has_a_checksum_of_each_file(folder):
    sums = {}
    for end in (None, DivergenceError, ValueError):
        with suppress(DivergenceError, ValueError), folder.recording():
            folder.write_config({"seed": 0})
            (folder.path / "checkpoints").mkdir(exist_ok=True)
            for name in ("activations.csv", "checkpoints/last.ckpt", "checkpoints/epoch=3.ckpt", "train.log"):
                (folder.path / name).write_text(name)
            assert read_status(folder.path)["sha256"] is None
            if end:
                raise end
        sums[end] = read_status(folder.path)["sha256"]
    names = ["config.yaml", "activations.csv", "checkpoints/epoch=3.ckpt", "checkpoints/last.ckpt"]
    assert [*sums[None]] == names
    assert sums[None]["checkpoints/last.ckpt"] == hashlib.sha256(b"checkpoints/last.ckpt").hexdigest()
    assert sums[DivergenceError] == sums[None]
    assert sums[ValueError] is None  # it may be gone on with


def test_the_configuration_comes_back(folder):
    config = {
        "seed": 0,
        "arm": None,
        "widths": [32, 64],
        "layers": {"00_conv": "blocks.0.conv"},
        "lr": 1e-5,
        "on": "no",
    }
    folder.write_config(config)
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == config
    assert OmegaConf.to_container(OmegaConf.load(folder.path / "config.yaml")) == config


def test_a_folder_whose_name_is_no_text_is_refused_where_it_is_used(tmp_path, monkeypatch):
    odd = tmp_path / "caf\udce9"
    for use in (read_config, require_writable):
        with pytest.raises(UserError, match="its name is not UTF-8; rename it"):
            use(odd)
    assert why_unnamed(tmp_path / "café") is None
    assert why_unnamed(tmp_path / "caf\udcc3\udca9").endswith("set PYTHONUTF8=1")  # as Python reads it under LC_ALL=C


def test_a_run_that_fails_before_it_is_recorded_says_so_and_leaves_what_is_whole(folder):
    with pytest.raises(ValueError, match="first"), folder.beginning():
        raise ValueError("first")
    assert (read_status(folder.path)["status"], read_status(folder.path)["error"]) == ("failed", "first")
    with folder.recording():
        pass
    with pytest.raises(ValueError, match="second"), folder.beginning():
        raise ValueError("second")
    assert read_status(folder.path)["status"] == "ok"


@pytest.mark.parametrize(
    ("content", "said"), [("", "it is empty"), ("a: [b\n", "line 2: "), ("[a]", "it holds list"), ("seed: a", "seed: ")]
)
def test_a_configuration_that_can_not_be_read_is_told_with_the_line(tmp_path, content, said):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=f"config.yaml cannot be read: {said}"):
        read_config(tmp_path)


@pytest.mark.parametrize("where", ["notes", "tags", "run"])
def test_a_configuration_of_a_folder_takes_nothing_from_this_machine(where, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "told")
    value = "is ${oc.env:SECRET}"
    config = {"seed": 0, where: {"notes": value, "tags": ["a", value], "run": {value: 1}}[where]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=rf"config.yaml cannot be read: {where}.*: is \$\{{oc.env:SECRET\}} is taken"):
        read_config(tmp_path)
