"""key=value words of the small commands."""

import errno
import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from commands import COMMANDS
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from dropout_lab.cli import (
    UserError,
    full_errors,
    in_one_line,
    nearest,
    number,
    one_line_errors,
    read_arguments,
    read_folders,
    root_cause,
)

DEFAULTS = {"run": None, "ckpt": "best"}


def read(*words):
    return read_arguments(words, "lab fold run=DIR", DEFAULTS)


def test_what_is_not_given_has_its_default():
    assert read("run=a=b") == {"run": "a=b", "ckpt": "best"}
    assert read("ckpt=last", "run=x") == {"run": "x", "ckpt": "last"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "run: not key=value; usage: lab fold run=DIR"),
        (["run="], "run=: not key=value"),
        (["rum=x"], "rum=x: there is no key 'rum'; did you mean 'run'? allowed: run, ckpt"),
        (["ckpt=best"], "run=... is missing; usage: lab fold run=DIR"),
        (["run=a", "run=b"], "run=b: run is given twice"),
    ],
)
def test_bad_words_are_one_line(words, message):
    with pytest.raises(UserError, match="^" + message.replace("(", r"\(").replace("?", r"\?").replace(".", r"\.")):
        read(*words)


@pytest.mark.parametrize("command", [read, lambda *words: read_folders(words, "lab fold run=DIR", 1)])
def test_help_prints_the_usage_and_ends(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command("--help")
    assert ended.value.code == 0
    assert capsys.readouterr().out == "usage: lab fold run=DIR\n"


def test_folders_are_counted():
    assert read_folders(["a", "b"], "lab diff RUN RUN", 2) == [Path("a"), Path("b")]
    with pytest.raises(UserError, match=r"^folders needed: 2, given: 1; usage: lab diff RUN RUN$"):
        read_folders(["a"], "lab diff RUN RUN", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure_s=x"], r"^unrecognized arguments: --figure_s=x; did you mean '--figures'\? usage: lab report "),
        (["--nothing"], "^unrecognized arguments: --nothing; usage: lab report "),
        (["--figures"], "^argument --figures: expected one argument; usage: lab report "),
    ],
)
def test_a_parser_raises_what_it_would_print(words, message, capsys):
    parser = ArgumentParser(prog="lab report")
    parser.add_argument("--figures")
    with pytest.raises(UserError, match=message):
        in_one_line(parser).parse_args(words)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "7", "x", "nan", "1.5"])
def test_numbers_are_checked(text):
    with pytest.raises(UserError, match=f"^n={text}: .*it must be an integer from 1 to 6$"):
        number("n", text, int, 1, 7, "an integer from 1 to 6")
    assert number("n", "3", int, 1, 7, "") == 3


def test_a_user_error_is_one_line_on_stderr_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise UserError("dropout.p=2: must be below 1")
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", "error: dropout.p=2: must be below 1\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "page.html"), "page.html: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), None),
    ],
)
def test_what_cannot_be_written_is_one_line_and_no_other_trouble_with_files(error, line, monkeypatch, capsys):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit if line else type(error)), one_line_errors():
        raise error
    assert capsys.readouterr().err == (f"error: {line}\n" if line else "")


def test_a_message_of_several_lines_becomes_one(monkeypatch, capsys):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit), one_line_errors():
        raise UserError("size mismatch:\n\tcopying a param\n  from checkpoint")
    assert capsys.readouterr().err == "error: size mismatch: copying a param from checkpoint\n"


def test_hydra_full_error_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert full_errors()
    with pytest.raises(UserError, match="wrong"), one_line_errors():
        raise UserError("wrong")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("words", "line"), [([], "interrupted"), (["interrupted; runs/1"], "interrupted; runs/1")])
def test_ctrl_c_is_one_line_on_stderr_and_exit_code_130(words, line, monkeypatch, capsys):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise KeyboardInterrupt(*words)
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", f"{line}\n")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(KeyboardInterrupt), one_line_errors():
        raise KeyboardInterrupt


def without_reader(*words):
    """Exit code and errors of Python with these words, whose output goes into a pipe that nobody reads from."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, *words], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [*(f"{name} --help" for name in COMMANDS), "dropout_lab.train --cfg job"])
def test_every_command_ends_without_a_word_where_nobody_reads_on(words):
    if words.startswith("dropout_lab.report.results"):
        pytest.skip("it has no help to print")
    code, said = without_reader("-m", *words.split())
    assert not said
    assert code in (0, 141)  # argparse takes its help for read


@pytest.mark.parametrize("size", [10, 10**6])  # what is printed at the end, and what no buffer holds
def test_so_does_what_has_something_to_say_before_it_ends(size):
    code = f"from dropout_lab.cli import one_line_errors\nwith one_line_errors():\n    print('x' * {size})"
    assert without_reader("-c", code) == (141, "")


def test_another_broken_pipe_is_an_error(capfd):
    with pytest.raises(BrokenPipeError), one_line_errors():
        raise BrokenPipeError


@pytest.mark.parametrize("value", ["", "0"])
def test_other_values_of_hydra_full_error_do_not(monkeypatch, value):
    monkeypatch.setenv("HYDRA_FULL_ERROR", value)
    assert not full_errors()


def test_an_error_of_the_code_keeps_its_traceback(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(ZeroDivisionError), one_line_errors():
        _ = 1 / 0


def test_without_an_error_nothing_happens(capsys):
    with one_line_errors():
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("invertd", "did you mean 'inverted'? "),
        ("Classic", "did you mean 'classic'? "),
        ("max_epoch", "did you mean 'trainer.max_epochs'? "),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_offered_where_one_is_near(name, meant):
    assert nearest(name, iter(["classic", "inverted", "spatial", "trainer.max_epochs"])) == meant


def test_there_is_no_nearest_of_no_names():
    assert nearest("inverted", []) == ""


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
        (UserError("runs/9: does not exist"), "runs/9: does not exist"),
        (FileNotFoundError(2, "No such file", "x.ckpt"), "[Errno 2] No such file: 'x.ckpt'"),
        (KeyError("lr"), "KeyError: 'lr'"),
    ],
)
def test_a_cause_is_one_line(error, line):
    assert root_cause(error) == line


def test_an_error_about_somebody_elses_text_does_nothing_to_the_terminal(capsys):
    with pytest.raises(SystemExit), one_line_errors():
        raise UserError("config.yaml: \x1b[2J\x07\u202eno\u2028such\x85name ± 5 %")
    assert capsys.readouterr().err == "error: config.yaml: \\x1b[2J\\x07\\u202eno such name ± 5 %\n"
