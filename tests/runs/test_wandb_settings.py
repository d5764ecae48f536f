"""Laws of W&B's settings: what W&B would refuse is refused beforehand by its key, and what can be made to fit is."""

import os
import tempfile

import pytest
import wandb
from wandb_files import read_all

from dropout_lab.runs import wandb_logger
from dropout_lab.runs.wandb_logger import Wandb
from dropout_lab.runs.wandb_settings import VARIABLES, accepted, fitted


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


TAGS = "must be a list of texts of 1 to 64 characters"
NAME = r"must be a text of at most 128 characters without any of /\#?%:"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        *(("tags", value, TAGS) for value in ([["a"]], [None], {"a": 1}, ["ok", ""], ["a" * 65])),
        *((key, f"a{sign}b", NAME) for key in ("project", "entity", "id") for sign in "/\\#?%:"),
        *(("id", f"a{sign}b", NAME) for sign in ";,'"),
        *((key, "a" * 129, "must be a text of at most 128") for key in ("project", "entity", "id")),
        ("job_type", "a" * 65, "must be a text of at most 64 characters"),
        *((key, ["a"], "must be a text") for key in ("project", "name", "group", "notes")),
        ("id", " a", "Run ID cannot start or end with whitespace"),
        ("resume", "perhaps", "must be 'allow', 'must', 'never' or 'auto'"),
        ("save_code", "perhaps", "must be a valid boolean"),
        ("config", 5, "must be a mapping"),
    ],
)
def test_what_wandb_refuses_is_refused_before_a_run_begins(key, value, says):
    with pytest.raises(ValueError, match=r"^logger\.wandb\.") as refused:
        Wandb(mode="offline", **{key: value})
    assert str(refused.value).startswith(f"logger.wandb.{key}={value}: {says}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WANDB_PROJECT", "a/b", NAME),
        ("WANDB_ENTITY", "a/b", NAME),
        ("WANDB_RUN_ID", "a/b", NAME),
        ("WANDB_TAGS", "a,,b", TAGS),
        ("WANDB_JOB_TYPE", "a" * 65, "must be a text of at most 64"),
        ("WANDB_MODE", "perhaps", "must be 'online', 'offline'"),
        ("WANDB_SILENT", "perhaps", "must be a valid boolean"),
        ("WANDB_BASE_URL", "perhaps", "must be a valid URL"),
    ],
)
def test_so_is_a_variable_whatever_the_mode(monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"^{variable}=") as refused:
        Wandb(mode="disabled")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_is_not_shown(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", " secret")
    with pytest.raises(ValueError, match=r"^WANDB_API_KEY: ") as refused:
        Wandb(mode="offline")
    assert "secret" not in str(refused.value)


def test_a_variable_counts_where_the_setting_is_left_open(monkeypatch):
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, "b,c")
    monkeypatch.setenv("WANDB_RUN_ID", "b")
    assert accepted({"project": "a", "tags": [], "notes": None}) == {
        **dict.fromkeys(VARIABLES, "b,c"),
        "project": "a",
        "tags": ["b", "c"],
        "id": "b",
    }


def test_numbers_become_texts_and_what_is_empty_is_left_open():
    found = accepted({"tags": [2026, "a", 0.5], "project": 7, "name": 8, "notes": 9, "entity": "", "id": ""})
    assert {key: value for key, value in found.items() if value is not None} == {
        "tags": ["2026", "a", "0.5"],
        "project": "7",
        "name": "8",
        "notes": "9",
    }
    assert accepted({"tags": "one"})["tags"] == ["one"]


@pytest.mark.parametrize("kind", ["name", "group"])
def test_a_long_name_loses_its_middle_and_keeps_what_tells_it_from_others(kind):
    one, other = (fitted(kind, f"{'a' * 200} {mark}", kind) for mark in ("12345678", "12345679"))
    assert len(one) == len(other) == 128
    assert one.startswith("aaa")
    assert one.endswith("…" + "a" * 30 + " 12345678")
    assert one != other
    assert fitted(kind, "a" * 128, kind) == "a" * 128


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/dev/null/home"])
def test_without_a_home_nothing_is_said_and_the_run_is_kept(monkeypatch, tmp_path, home, capfd):
    """W&B's own process would write its log to the terminal, 16 lines."""
    wandb.teardown()
    monkeypatch.setattr(wandb_logger, "_refusal", None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    else:
        monkeypatch.delenv("HOME")
    logger = Wandb(mode="offline", save_dir=str(tmp_path / "s"), id="a")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.finish(0)
    wandb.teardown()
    assert capfd.readouterr() == ("", "")
    assert "WANDB_CACHE_DIR" not in os.environ
    assert [found.series("a") for found in read_all(tmp_path / "s")] == [[(0, 1.0)]]
