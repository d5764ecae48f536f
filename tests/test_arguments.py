"""key=value words of the small commands."""

import pytest

from dropout_lab.arguments import number, read_arguments
from dropout_lab.errors import UserError

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


def test_help_prints_the_usage_and_ends(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code == 0
    assert capsys.readouterr().out == "usage: lab fold run=DIR\n"


@pytest.mark.parametrize("text", ["0", "7", "x", "nan", "1.5"])
def test_numbers_are_checked(text):
    with pytest.raises(UserError, match=f"^n={text}: .*it must be an integer from 1 to 6$"):
        number("n", text, int, 1, 7, "an integer from 1 to 6")
    assert number("n", "3", int, 1, 7, "") == 3
