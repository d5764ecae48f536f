"""Laws of errors that the user can correct: one line, exit code 2, the nearest name."""

import pytest

from dropout_lab.errors import UserError, full_errors, nearest, one_line_errors


def test_a_user_error_is_one_line_on_stderr_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise UserError("dropout.p=2: must be below 1")
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", "error: dropout.p=2: must be below 1\n")


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
