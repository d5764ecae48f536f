"""Laws of provenance: the code can be had again, its fingerprint is that of its source, the command can be pasted."""

import subprocess
import sys

import hydra

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
