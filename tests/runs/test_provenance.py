"""Laws of provenance: the code can be had again, its fingerprint is that of its source, the command can be pasted."""

import subprocess
import sys

import hydra
import pytest

from dropout_lab.runs import provenance as module
from dropout_lab.runs.folder import read_status
from dropout_lab.runs.provenance import provenance


def git(path, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    done = subprocess.run(["git", "-C", str(path), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


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


@pytest.mark.parametrize("inside", [".", "projects/mine"])
def test_new_files_of_source_and_configuration_are_in_the_diff(inside, repository, monkeypatch):
    """Also where the project is a folder of a larger repository."""
    project = repository / inside
    (project / "src" / "deep").mkdir(parents=True)
    (project / "conf").mkdir()
    monkeypatch.setattr(module, "REPOSITORY", project)
    git(repository, "init", "-q")
    (project / "old.py").write_text("old\n")
    (project / ".gitignore").write_text("local.yaml\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "c")
    before = git(repository, "status", "--porcelain")
    (project / "old.py").write_text("new\n")
    new = {"src/deep/a strategy.py": "x = 1\n\n  y = 2", "src/deep/__init__.py": "", "conf/mine.yaml": "p: 0.5 # ½\n"}
    for name, text in new.items():
        (project / name).write_text(text)
    for name in ("conf/local.yaml", "notes.txt"):
        (project / name).write_text("not of the code")
    index = (repository / ".git" / "index").read_bytes()
    found = provenance()
    assert (repository / ".git" / "index").read_bytes() == index
    for name in [*new, "conf/local.yaml", "notes.txt"]:
        (project / name).unlink()
    git(repository, "checkout", "-q", ".")
    subprocess.run(["git", "-C", str(repository), "apply"], input=found["git_diff"], text=True, check=True)
    assert {name: (project / name).read_text() for name in new} == new
    assert (project / "old.py").read_text() == "new\n"
    assert before == ""
    assert not (project / "conf" / "local.yaml").exists()
    assert not (project / "notes.txt").exists()


def test_new_files_that_the_diff_leaves_out_are_named_in_it(repository, monkeypatch):
    monkeypatch.setattr(module, "MOST_NEW_BYTES", 100)
    monkeypatch.setattr(module, "MOST_NEW_FILES", 2)
    git(repository, "init", "-q")
    git(repository, "commit", "-q", "-m", "c", "--allow-empty")
    (repository / "src" / "vendored").mkdir(parents=True)
    contents = {"a": b"1", "b.bin": b"\0", "c.bin": b"\xe9", "d": b"2" * 101, "e": b"3" * 100, "f": b"4", "g": b"5"}
    for name, content in contents.items():
        (repository / "src" / name).write_bytes(content)
    (repository / "src" / "h").symlink_to("a")
    git(repository / "src" / "vendored", "init", "-q")
    first, patch = provenance()["git_diff"].split("\n", 1)
    left_out = ", ".join(f"src/{name}" for name in ["b.bin", "c.bin", "d", "e", "g", "h", "vendored/"])
    assert first == f"new files that are too large, too many or no text to be here: {left_out}"
    assert [line for line in patch.splitlines() if line.startswith("+++")] == ["+++ b/src/a", "+++ b/src/f"]


def test_the_users_taste_in_diffs_does_not_matter(repository):
    git(repository, "init", "-q")
    (repository / "code.py").write_text("old\n")
    git(repository, "add", "code.py")
    git(repository, "commit", "-q", "-m", "c")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", "true")
    (repository / "code.py").write_text("new\n")
    (repository / "src").mkdir()
    (repository / "src" / "added.py").write_text("added\n")
    assert "\n-old\n+new\n" in provenance()["git_diff"]
    assert "\n+added\n" in provenance()["git_diff"]


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
    (source / "package" / "new.py").write_text("")  # which git does not know
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
