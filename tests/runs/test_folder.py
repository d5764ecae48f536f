"""Laws of the run folder: what it says is right at every moment, however the run ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from small_disk import fill, mounted

from dropout_lab.cli import UserError, root_cause
from dropout_lab.runs import provenance as provenance_of
from dropout_lab.runs.folder import RunFolder, read_status, require_writable, write_whole
from dropout_lab.runs.provenance import provenance

KEYS = {"status", "error", "traceback", "git_sha", "git_diff", "code_hash"}
KEYS |= {"versions", "command", "seconds", "config_hash"}


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


def git(path, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    done = subprocess.run(["git", "-C", str(path), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


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


def test_what_could_not_be_written_whole_leaves_the_old_file_and_no_part(tmp_path):
    with mounted(tmp_path / "small", "size=100k") as disk:
        write_whole(disk / "file", b"old")
        with pytest.raises(OSError, match="No space left"):
            write_whole(disk / "file", bytes(200_000))
        assert [path.name for path in disk.iterdir()] == ["file"]
        assert (disk / "file").read_bytes() == b"old"


def test_a_full_disk_has_room_for_how_the_run_ended(tmp_path):
    with mounted(tmp_path / "small", "size=100k") as disk:
        folder = RunFolder(disk / "0", "hash")
        with pytest.raises(OSError, match="No space left"), folder.recording():
            (fill(disk).parent / "more").write_text("x")
        status = read_status(disk / "0")
    assert (status["status"], status["error"]) == ("failed", "OSError: [Errno 28] No space left on device")
    assert set(status) >= KEYS


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


@pytest.mark.parametrize("content", ["", "{", '{"status": "runn', "[]", "null"])
def test_a_status_that_cannot_be_read_is_missing(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) == {"status": "missing"}


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


def test_the_code_is_told_by_its_revision_and_a_diff_that_can_be_applied(repository):
    file = repository / "code.py"
    git(repository, "init", "-q")
    file.write_bytes(b"first\n  second\n\nlast\n")
    git(repository, "add", "code.py")
    git(repository, "commit", "-q", "-m", "c")
    changed = b"  first\n  second\n\nlast\n\n  \n"  # whitespace at both ends of the diff
    file.write_bytes(changed)
    found = provenance()
    assert found["git_sha"] == git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "code.py")
    subprocess.run(["git", "-C", str(repository), "apply"], input=found["git_diff"], text=True, check=True)
    assert file.read_bytes() == changed


def test_the_users_taste_in_diffs_does_not_matter(repository):
    git(repository, "init", "-q")
    (repository / "code.py").write_text("old\n")
    git(repository, "add", "code.py")
    git(repository, "commit", "-q", "-m", "c")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", "true")
    (repository / "code.py").write_text("new\n")
    assert "\n-old\n+new\n" in provenance()["git_diff"]


def test_changes_that_are_not_utf_8_do_not_stop_a_run(repository, folder):
    git(repository, "init", "-q")
    (repository / "code.py").write_text("# caf\n")
    git(repository, "add", "code.py")
    git(repository, "commit", "-q", "-m", "c")
    (repository / "code.py").write_bytes("# café\n".encode("latin-1"))
    with folder.recording():
        pass
    assert "+# caf\N{REPLACEMENT CHARACTER}" in read_status(folder.path)["git_diff"]


def test_outside_a_repository_the_code_is_unknown(repository, folder):
    with folder.recording():
        pass
    status = read_status(folder.path)
    assert status["status"] == "ok"
    assert status["git_sha"] is status["git_diff"] is None


def test_without_git_the_code_is_unknown(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance()["git_sha"] is None


def test_code_is_the_same_where_its_source_is_the_same(repository):
    """With or without git; documents, data and what Python compiles are not code."""

    def code_hash():
        provenance.cache_clear()
        return provenance()["code_hash"]

    source = repository / "src"
    (source / "package").mkdir(parents=True)
    (source / "package" / "code.py").write_text("x = 1\n")
    first = code_hash()
    for document in (repository / "README.md", source / "package" / "page.css", source / "package" / "code.pyc"):
        document.write_text("new")
        assert code_hash() == first
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "c")
    assert code_hash() == first
    (source / "package" / "new.py").write_text("")  # which git diff doesn't show
    second = code_hash()
    (source / "package" / "new.py").rename(source / "new.py")
    third = code_hash()
    (source / "package" / "code.py").write_text("x = 2\n")
    assert len({first, second, third, code_hash()}) == 4


def test_the_versions_are_those_in_use(repository):
    versions = provenance()["versions"]
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["hydra-core"] == hydra.__version__
    assert {"dropout-lab", "torch", "torchvision", "lightning", "wandb"} <= set(versions)
    assert all(versions.values())


def test_the_command_can_be_pasted_into_a_shell(repository, monkeypatch):
    arguments = ["/opt/bin/python3", "-m", "dropout_lab.train", "notes=it's a test", "seed=0,1", "model.widths=[1,2]"]
    monkeypatch.setattr(sys, "orig_argv", arguments)
    echo = ["bash", "-c", f"printf '%s\\n' {provenance()['command']}"]
    assert subprocess.run(echo, capture_output=True, text=True, check=True).stdout.splitlines() == [
        "python3",
        *arguments[1:],
    ]


def test_the_cause_is_the_error_itself_not_that_instantiating_failed():
    with pytest.raises(InstantiationException) as caught:
        instantiate({"_target_": "builtins.dict", "x": {"_target_": "operator.truediv", "_args_": [1, 0]}})
    assert root_cause(caught.value) == "ZeroDivisionError: division by zero"


def test_an_instantiation_error_without_a_cause_is_its_own():
    assert root_cause(InstantiationException("no such target")) == "InstantiationException: no such target"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("one\n  two\n"), "RuntimeError: one two"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("data.batch_size=0: must be 1 or more"), "data.batch_size=0: must be 1 or more"),
        (ValueError(), "ValueError"),
        (FileNotFoundError(2, "No such file", "x.ckpt"), "[Errno 2] No such file: 'x.ckpt'"),
        (KeyError("lr"), "KeyError: 'lr'"),
    ],
)
def test_a_cause_is_one_line(error, line):
    assert root_cause(error) == line
