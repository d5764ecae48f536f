"""The template becomes one's own project under another name."""

import os
import shutil
import site
import subprocess
import sys

import pytest
import yaml
from commands import run

from dropout_lab.jobs.conf import REPOSITORY

pytestmark = pytest.mark.slow


def git(folder, *arguments):
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The files as they are now, committed."""
    folder = tmp_path_factory.mktemp("copy") / "repository"
    names = git(REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")[:-1]
    for name in names:
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name, follow_symlinks=False)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "as it was")
    return folder


def rename(copy, *words):
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    command = [sys.executable, copy / "scripts" / "rename", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


WORDS = ["My-Paper", "2nd", "json", "dropout_lab", ""]
TAKEN = ["class", "import", "numpy", "sklearn", "src", "conf", "hydra_plugins"]


@pytest.mark.parametrize("name", [*WORDS, *TAKEN])
def test_a_name_that_cannot_be_is_refused_with_the_reason(copy, name):
    done = rename(copy, name)
    assert done.returncode != 0
    assert done.stderr.startswith("scripts/rename:")
    assert len(done.stderr.splitlines()) == 1
    assert git(copy, "status", "--porcelain") == ""


def test_without_git_it_is_refused_in_one_line(copy, tmp_path):
    for name in ("scripts/rename", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(copy / name, tmp_path / name)
    done = rename(tmp_path, "my_paper")
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "git init" in line


def test_uncommitted_changes_are_refused(copy):
    (copy / "new.py").write_text("")
    done = rename(copy, "my_paper")
    (copy / "new.py").unlink()
    assert done.returncode != 0
    assert "uncommitted changes" in done.stderr


def test_after_renaming_nothing_bears_the_old_name_and_its_tests_pass(copy):
    done = rename(copy, "my_paper")
    assert done.returncode == 0, done.stderr
    assert not (copy / "src" / "dropout_lab").exists()
    mentions = git(copy, "grep", "--untracked", "-iIlE", "dropout[_-]lab|Dropout Lab").splitlines()
    assert set(mentions) == {"LICENSE", "CITATION.cff"}  # whose notice stays, and what the project grew from
    citation = yaml.safe_load((copy / "CITATION.cff").read_text())
    assert citation["title"].startswith("My Paper")
    assert [one["title"][:11] for one in citation["references"]] == ["Dropout Lab"]
    for words in (["check"], ["format", "--check"]):
        ruff = subprocess.run([sys.executable, "-m", "ruff", *words], cwd=copy, capture_output=True, text=True)
        assert ruff.returncode == 0, ruff.stdout
    # Without the environment's .pth files, which would bring in this repository beside the copy.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy / "src"), *site.getsitepackages()])}
    command = [sys.executable, "-S", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    tests = ["tests/dropout/test_schedules.py", "tests/runs/test_settings.py"]
    passed = subprocess.run([*command, *tests], cwd=copy, env=environment, capture_output=True, text=True)
    assert passed.returncode == 0, passed.stdout[-3000:]
    trained = run("debug=fast", f"hydra.run.dir={copy / 'runs' / 'one'}", module="my_paper.train", copy=copy)
    assert trained.returncode == 0, trained.stderr
    assert "test/acc" in trained.stdout
